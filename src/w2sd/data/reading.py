"""Local files: where they are, what they are known by, and their raw rows, whatever the format.

Rows are read one after the other, and a file that would need far more memory than its size says is refused: `ROW`,
`NESTED` and `GROWTH` are the limits.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import BufferedReader, TextIOWrapper
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2sd.atomic import digest_file
from w2sd.errors import Refused, nearest, require

if TYPE_CHECKING:
    import pyarrow

ROW = 2**22  # characters of a row; of a text in Parquet, its bytes
NESTED = 64  # levels of a JSON row
GROWTH = 100  # how many times its own size a file may hold, beyond SMALL
SMALL = 2**26  # bytes
BATCH = 1000  # rows of a Parquet file at a time
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
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(name, str(error), "a file that can be read to its end") from error


def _reader(path: Path, knob: str, value: str) -> Callable[[Binary, str], Iterator[Row]]:
    for suffix, reader in READERS.items():
        if path.name.lower().endswith(suffix):
            return reader
    raise Refused(knob, value, "a file that ends in " + ", ".join(READERS))


@contextmanager
def parquet(
    path: Path, name: str, wanted: Sequence[str] | None = None
) -> Iterator[tuple[list[str], Iterator[pyarrow.RecordBatch]]]:
    """The names of a Parquet file's columns, and its rows in batches; what cannot be read of it is refused.

    Texts are read as the dictionaries that the file holds: a value that stands in every row is there once until all
    the rows of a batch were weighed.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names, leaves = table.schema_arrow.names, [table.schema.column(n) for n in range(len(table.schema))]
            require(not (again := _twice(names)), name, again, "columns of different names")
            levels = max((_levels(kind) for kind in table.schema_arrow.types), default=0)
            require(levels < NESTED, name, levels, f"rows of at most {NESTED} levels")
            groups = (table.metadata.row_group(number) for number in range(table.num_row_groups))
            width = sum(max(8, leaf.length or 0) for leaf in leaves)
            least = sum(max(group.total_byte_size, width * group.num_rows) for group in groups)
            if least > (limit := SMALL + GROWTH * path.stat().st_size):
                raise _too_much(name, path.stat().st_size)
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        columns = wanted and [column for column in wanted if column in names]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as table:
            yield names, _batches(table.iter_batches(BATCH, columns=columns), name, path, limit)
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Refused(name, reason, "a Parquet file that can be read to its end") from error


def _batches(
    batches: Iterator[pyarrow.RecordBatch], name: str, path: Path, limit: int
) -> Iterator[pyarrow.RecordBatch]:
    """The batches with their texts written out, as long as all of them together are within the limit."""
    import pyarrow

    total = 0
    for batch in batches:
        total += sum(_weight(column, name) for column in batch.columns)
        if total > limit:
            raise _too_much(name, path.stat().st_size)
        columns = [
            column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        yield pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _weight(column: pyarrow.Array, name: str) -> int:
    """How many bytes a column has when its texts are written out; none of them is longer than a row may be."""
    from pyarrow import compute, types

    if types.is_struct(column.type):
        return sum(_weight(part, name) for part in column.flatten())
    if types.is_map(column.type):
        return _weight(column.keys, name) + _weight(column.items, name)
    if types.is_nested(column.type):
        return _weight(column.flatten(), name)
    if types.is_dictionary(column.type) and not types.is_primitive(column.type.value_type):
        lengths = compute.binary_length(column.dictionary)
        if (longest := compute.max(lengths).as_py() or 0) > ROW:
            raise Refused(name, f"{longest:,} bytes", f"texts of at most {ROW:,} characters")
        return compute.sum(compute.cast(lengths.take(column.indices), "int64")).as_py() or 0
    return column.nbytes


def _levels(kind: pyarrow.DataType) -> int:
    return 1 + max((_levels(kind.field(n).type) for n in range(kind.num_fields)), default=0) if kind.num_fields else 0


def _read_parquet(file: Binary, name: str) -> Iterator[Row]:
    number = 0
    with parquet(Path(file.name), name) as (_, batches):
        for batch in batches:
            for row in batch.to_pylist():
                yield f"{name}[{number}]", row
                number += 1


def _read_jsonl(file: Binary, name: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(file, name, "\n"), 1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
            if line.count("[") + line.count("{") > NESTED and _is_deep(row):
                raise RecursionError
        except ValueError as error:
            raise Refused(where, line[:80], f"one JSON object a line ({error})") from None
        except RecursionError:
            raise Refused(where, line[:80], f"a JSON object of at most {NESTED} levels") from None
        require(isinstance(row, dict), where, row, "a JSON object")
        yield where, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse one in which a key stands twice."""
    if len(whole := dict(pairs)) < len(pairs):
        raise ValueError(f"{_twice([key for key, _ in pairs]) or ''!r} is in it twice")
    return whole


def _twice(names: Sequence[str]) -> str | None:
    """The first name that is there again; columns without a name, as spreadsheets leave them, can be several."""
    n = Counter(names)
    return next((name for name in names if name and n[name] > 1), None)


def _is_deep(row: Any) -> bool:
    level = [row]
    for _ in range(NESTED):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)


def _read_csv(file: Binary, name: str) -> Iterator[Row]:
    csv.field_size_limit(ROW)  # the module's own limit of 128 Ki is shorter than some dialogues
    size, line = 0, 1  # of the record, which may span several lines: its characters, and where it begins

    def lines() -> Iterator[str]:
        nonlocal size
        for text in _lines(file, name, ""):
            size += len(text)
            if size > ROW:
                raise _too_long(f"{name}:{line}", text)
            yield text

    reader = csv.reader(lines(), strict=True)
    try:
        header = next(reader, [])
        require(not (again := _twice(header)), f"{name}:1", again, "columns of different names")
        size, line = 0, reader.line_num + 1
        for cells in reader:
            where, size, line = f"{name}:{line}", 0, reader.line_num + 1
            if cells:
                require(len(cells) == len(header), where, f"{len(cells)} cells", f"{len(header)}, as in the header")
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise Refused(f"{name}:{line}", str(error), "CSV with a header, and quotes that close") from None


def _lines(file: Binary, name: str, newline: str) -> Iterator[str]:
    """Yield the lines of a text in UTF-8; refuse one that is longer than a row may be."""
    size, total = os.fstat(file.fileno()).st_size, 0
    with TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as text:
        for number in count(1):
            if not (line := text.readline(ROW + 1)):
                return
            total += len(line)
            if len(line) > ROW:
                raise _too_long(f"{name}:{number}", line)
            if total > SMALL + GROWTH * size:
                raise _too_much(name, size)
            try:
                line.encode()
            except UnicodeEncodeError:
                raise Refused(f"{name}:{number}", line[:80], "text in UTF-8") from None
            yield line


def _too_long(where: str, text: str) -> Refused:
    return Refused(where, text[:80], f"a row of at most {ROW:,} characters")


def _too_much(name: str, size: int) -> Refused:
    return Refused(name, f"{size:,} bytes", f"a file that holds at most {GROWTH} times its size and {SMALL:,} bytes")


READERS: dict[str, Callable[[Binary, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}
