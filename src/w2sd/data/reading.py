"""Local files: where they are, what they are known by, and their raw rows, whatever the format."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

from w2sd.atomic import digest_file
from w2sd.errors import Refused, nearest, require

Row = tuple[str, Mapping[str, Any]]  # where it stands (FILE:LINE), what it says
Binary = BufferedReader | gzip.GzipFile


def expand(value: str) -> Path:
    """The path that a knob means: `~` and `$NAME` are replaced, and an unset `$NAME` is left standing."""
    return Path(os.path.expanduser(os.path.expandvars(value)))


def content(path: Path) -> str:
    """The sha256 of a file's bytes, computed once per process while the file stays as it is."""
    stat = path.stat()
    return _content(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@cache
def _content(path: str, size: int, mtime_ns: int) -> str:
    return digest_file(Path(path))


def absent(knob: str, value: str, kind: str) -> Refused:
    """The refusal of a path that does not lead to a `kind`, with the most similar name beside it."""
    path = expand(value)
    if not value:  # which is no path, and would be the current folder
        return Refused(knob, value, kind)
    if path.exists():
        found = "a folder" if path.is_dir() else "a file" if path.is_file() else "neither a file nor a folder"
        return Refused(knob, value, f"{kind}; it is {found}")
    if "$" in str(path):
        return Refused(knob, value, f"{kind}; the environment variable in it is not set")
    if not path.parent.is_dir():
        return Refused(knob, value, f"{kind} that exists; there is no folder {path.parent}")
    similar = nearest(path.name, (other.name for other in path.parent.iterdir() if other != path))
    return Refused(knob, value, f"{kind} that exists", nearest=similar and str(path.parent / similar))


def locate(knob: str, value: str) -> Path:
    path = expand(value)
    if not path.is_file():
        raise absent(knob, value, "a file")
    _reader(path, knob, value)
    return path


def read(path: Path, name: str) -> Iterator[Row]:
    """The raw rows of a file in its order, each with the place where it stands; the suffix decides the format."""
    reader = _reader(path, name, path.name)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            yield from reader(file, name)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise Refused(name, str(error), "a file that can be read to its end") from error


def _reader(path: Path, knob: str, value: str) -> Callable[[Binary, str], Iterator[Row]]:
    for suffix, reader in READERS.items():
        if path.name.lower().endswith(suffix):
            return reader
    raise Refused(knob, value, "a file that ends in " + ", ".join(READERS))


def _read_jsonl(file: Binary, name: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except ValueError as error:
            raise Refused(where, line[:80].decode(errors="replace"), f"one JSON object a line ({error})") from None
        require(isinstance(row, dict), where, row, "a JSON object")
        yield where, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no key is there twice."""
    if len(whole := dict(pairs)) < len(pairs):
        raise ValueError(f"{_twice([key for key, _ in pairs]) or ''!r} is in it twice")
    return whole


def _twice(names: Sequence[str]) -> str | None:
    """The first name that is there again; columns without a name, as spreadsheets leave them, can be several."""
    return next((name for number, name in enumerate(names) if name and name in names[:number]), None)


def _read_csv(file: Binary, name: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the module's own limit of 128 Ki is shorter than some dialogues
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, [])
            require(not (again := _twice(header)), f"{name}:1", again, "columns of different names")
            line = reader.line_num + 1  # of the record, which may span several lines
            for cells in reader:
                where, line = f"{name}:{line}", reader.line_num + 1
                if cells:
                    require(len(cells) == len(header), where, f"{len(cells)} cells", f"{len(header)}, as in the header")
                    yield where, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise Refused(f"{name}:{reader.line_num}", str(error), "CSV with a header, and quotes that close") from None


def _read_parquet(file: Binary, name: str) -> Iterator[Row]:
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        require(not (again := _twice(table.schema_arrow.names)), name, again, "columns of different names")
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield f"{name}[{number}]", row
                number += 1
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


READERS: dict[str, Callable[[Binary, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}
