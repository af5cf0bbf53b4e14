"""Local files: the same rows in any format, each with its place; every fault of a file is named."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any
from unittest.mock import ANY

import pyarrow
import pyarrow.parquet
import pytest
from tests.builders import refused
from tests.data.reading import anywhere, some, write

from w2sd.data import reading
from w2sd.data.sources import Files
from w2sd.predictions import read_predictions

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", ".JSONL"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    rows = some(60)
    path = write(tmp_path / "rows.jsonl", rows)
    other = write(tmp_path / f"again{suffix}", rows)
    assert anywhere(Files(path=other).table()) == anywhere(Files(path=path).table())


def test_a_cell_may_be_longer_than_csv_readers_usually_allow(tmp_path: Path) -> None:
    csv.field_size_limit(2**17)  # as in a process that has read nothing yet
    rows = [{**row, "prompt": row["prompt"] + "x" * 2**17} for row in some(30)]
    assert len(Files(path=write(tmp_path / "rows.csv", rows)).table().examples) == 30


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv", ".parquet"])
def test_every_pair_knows_where_it_stands(tmp_path: Path, suffix: str) -> None:
    rows = some(60)
    path = write(tmp_path / f"rows{suffix}", rows)
    lines = gzip.decompress(Path(path).read_bytes()) if suffix.endswith(".gz") else Path(path).read_bytes()
    for pair in Files(path=path).table().examples:
        name, number = re.fullmatch(r"(.*)(?::|\[)(\d+)\]?", pair.where).groups()
        assert name == path
        if suffix == ".parquet":
            assert rows[int(number)]["prompt"] == pair.prompt
        else:
            assert re.search(r"question \d+\b", pair.prompt).group() in lines.split(b"\n")[int(number) - 1].decode()


def test_reading_needs_no_torch_and_no_pandas(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", some(30))
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy'}"
    code = f"import sys, w2sd.data.sources as f; f.Files(path={path!r}).table(); print({heavy} & set(sys.modules))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


HEADER = b"prompt,chosen,rejected\n"
BROKEN: list[tuple[str, bytes, str | None, Any, str]] = [  # file, its bytes; the refusal's place, value, accepted
    ("x.jsonl", json.dumps(GOOD).encode() + b'\n\n{"no\n', ":3", '{"no\n', "JSON"),
    ("x.jsonl", b'["a"]\n', ":1", ["a"], "JSON"),
    ("x.jsonl", b'\n{"\xff": 1}', ":2", '{"\udcff": 1}', "UTF-8"),
    ("x.jsonl", json.dumps({**GOOD, "chosen": " "}).encode(), ":1", " ", "chosen"),
    ("x.jsonl", json.dumps({**GOOD, "chosen": 3}).encode(), ":1", 3, "chosen"),
    ("x.jsonl", json.dumps(GOOD).encode() + b'\n{"a": 1}', ":2", ["a"], "prompt"),
    ("x.json", b"[]", None, "x.json", ".jsonl .jsonl.gz .csv .csv.gz .parquet"),
    ("x.jsonl", b"", None, "x.jsonl", "2 gt 0"),
    ("x.csv", HEADER + b"p,a,b\n", None, "x.csv", "2 gt"),
    ("x.csv", HEADER + b'"two\nlines",a,b\n\np,a\n', ":5", "2 cells", "3"),
    ("x.csv", b"prompt,chosen,chosen,rejected\np,a,c,b\n", ":1", "chosen", ""),
    ("x.jsonl", b'{"a": 1, "a": 2}', ":1", '{"a": 1, "a": 2}', "JSON a"),
    ("x.jsonl", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ":1", ANY, "64"),
    ("x.csv", HEADER + b'p,a,b\n"p,a,b\np,a,b\n', ":3", "unexpected end of data", "CSV"),
    ("x.csv", HEADER + b"p,a,\n", ":2", "", "rejected"),
    ("x.csv", HEADER + b"\xff,a,b\n", ":2", "\udcff,a,b\n", "UTF-8"),
    ("x.csv.gz", b"{}", "", ANY, ""),
    ("x.jsonl.gz", gzip.compress(json.dumps(GOOD).encode(), mtime=0)[:-9], "", ANY, ""),
    ("x.parquet", b"PAR1", "", ANY, ""),
]


@pytest.mark.parametrize(("name", "data", "place", "value", "accepted"), BROKEN)
def test_refuses_broken_files(
    name: str,
    data: bytes,
    place: str | None,
    value: Any,
    accepted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with refused("data.path" if place is None else name + place, value, accepted):
        Files(path=name).table()


def test_refuses_a_bad_cell_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.parquet", [GOOD, {**GOOD, "chosen": None}])
    with refused(f"{path}[1]", None, "chosen"):
        Files(path=path).table()


def test_refuses_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    columns = [pyarrow.array(["a"] * 9)] * 4
    twice = pyarrow.Table.from_arrays(columns, names=["prompt", "chosen", "rejected", "chosen"])
    path = str(tmp_path / "x.parquet")
    pyarrow.parquet.write_table(twice, path)
    with refused(path, "chosen"):
        Files(path=path).table()


def test_columns_without_a_name_can_be_several(tmp_path: Path) -> None:
    plain, wide = write(tmp_path / "x.csv", some(20)), tmp_path / "wide.csv"
    with wide.open("w", newline="") as file:
        csv.writer(file).writerows([[*GOOD, "", ""], *([*row.values(), "", ""] for row in some(20))])
    assert anywhere(Files(path=str(wide)).table()) == anywhere(Files(path=plain).table())


def test_a_row_of_json_may_have_as_many_levels_as_is_said(tmp_path: Path) -> None:
    path, row = tmp_path / "x.jsonl", '{"a": ' + "[" * 63 + "]" * 63 + "}\n"
    path.write_text(row)
    assert len(list(reading.read(path, "x"))) == 1
    path.write_text(row + row.replace("[]", "[{}]"))
    with refused("x:2", ANY, "64"):
        list(reading.read(path, "x"))


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 40 + b'"}\n', ":2"),
        ("x.csv", b"a\n" + b"x" * 40 + b"\n", ":2"),
        ("x.csv", b"a\nx\n" + b'"x\n' + b"x\n" * 40 + b'"\n', ":3"),
        ("x.csv", b'a\nx\n"x",' + b'"\n",' * 40, ":3"),
        ("x.csv.gz", gzip.compress(bytes(1000), mtime=0), ":1"),
        ("x.jsonl.gz", gzip.compress(bytes(1000), mtime=0), ":1"),
    ],
)
def test_a_row_has_a_longest_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, place: str
) -> None:
    monkeypatch.setattr(reading, "ROW", 32)
    (tmp_path / name).write_bytes(data)
    with refused("x" + place, ANY, "32"):
        list(reading.read(tmp_path / name, "x"))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv.gz", ".parquet"])
def test_a_file_that_holds_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = Path(write(tmp_path / f"x{suffix}", [GOOD] * 20_000))
    monkeypatch.setattr(reading, "SMALL", 0)
    with refused("x", ANY, "100"):
        list(reading.read(path, "x"))
    monkeypatch.setattr(reading, "SMALL", 2**22)
    assert len(list(reading.read(path, "x"))) == 20_000


BOMBS = """
import resource, sys
from w2sd.data.reading import read
from w2sd.data.sources import Files
from w2sd.predictions import read_predictions
from w2sd.errors import Refused
from w2sd.predictions import Path, read_predictions
list(read(Path(sys.argv[1]), "good"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    for reader in (lambda path: Files(path=path).table(), read_predictions):
        try:
            reader(path)
        except Refused as refusal:
            print(refusal.knob)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_gibibyte_of_zeros_takes_little_memory(tmp_path: Path) -> None:
    member = gzip.compress(bytes(2**26), compresslevel=6)
    zeros = [tmp_path / "x.jsonl.gz", tmp_path / "x.csv.gz"]
    for path in zeros:
        path.write_bytes(member * 16)
    long = pyarrow.table({"id": pyarrow.array([bytes(2**27)], pyarrow.binary()).cast(pyarrow.string())})
    pyarrow.parquet.write_table(long, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
    good = write(tmp_path / "good.parquet", some(10))
    paths = [*map(str, zeros), str(tmp_path / "x.parquet")]
    command = [sys.executable, "-c", BOMBS, good, *paths]
    *knobs, kibibytes = run(command, capture_output=True, text=True, check=True).stdout.split()
    places = [f"{path}:1" for path in paths[:2]] + paths[2:]
    assert knobs == [place for place in places for _ in range(2)]
    assert int(kibibytes) < 500 * 1024


@pytest.mark.parametrize("reader", [read_predictions, lambda path: list(reading.read(path, str(path)))])
def test_a_value_that_parquet_holds_once_counts_in_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[[Path], Any]
) -> None:
    monkeypatch.setattr(reading, "SMALL", 2**16)
    path, n = tmp_path / "x.parquet", 300

    def keep(cluster: Any) -> None:
        columns = {"id": [str(row) for row in range(n)], "margin": [1.0] * n, "cluster": [cluster] * n}
        pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")

    for cluster in ("x" * 10_000, [{"content": "x" * 10_000}]):
        keep(cluster)
        assert 100 * path.stat().st_size + 2**16 < 10_000 * n
        with refused(str(path), f"{path.stat().st_size:,} bytes", "100"):
            reader(path)
    monkeypatch.setattr(reading, "ROW", 9_999)
    with refused(str(path), "10,000 bytes", "9,999"):
        reader(path)


def test_parquet_may_have_as_many_levels_as_json(tmp_path: Path) -> None:
    path, value = tmp_path / "x.parquet", "a"
    for _ in range(63):
        value = {"a": value}  # type: ignore[assignment]
    for levels in (64, 65):
        pyarrow.parquet.write_table(pyarrow.table({"a": [value]}), path)
        if levels == 64:
            assert next(reading.read(path, "x")) == ("x[0]", {"a": value})
        value = {"a": value}  # type: ignore[assignment]
    with refused("x", 64, "64"):
        list(reading.read(path, "x"))
