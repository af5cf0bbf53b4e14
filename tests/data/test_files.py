"""Local files: the same rows in any format give the same pairs, every row is accounted for, every fault is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import sys
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from subprocess import run
from typing import Any
from unittest.mock import ANY

import pyarrow
import pyarrow.parquet
import pytest
from tests.builders import refused
from tests.data.reading import anywhere

from w2sd.data.files import Files
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, UNRELATED
from w2sd.identity import digest

Rows = list[dict[str, Any]]
TAG = "\n\nAssistant:"
GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def some(n: int, start: int = 0) -> Rows:
    """Rows that a careless reader of any format would break: commas, quotes, newlines, other scripts."""
    odd = [' "quoted", and more', "\nsecond line", " ünïcødé 漢字", " \u2028 line separator", " plain"]
    return [
        {"prompt": f"question {i}{odd[i % 5]}", "chosen": f"good {i}{odd[(i + 1) % 5]}", "rejected": f"bad {i}"}
        for i in range(start, start + n)
    ]


def write(path: Path, rows: Rows) -> str:
    name = path.name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    if ".csv" in name:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


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


def test_ids_do_not_depend_on_the_order(tmp_path: Path) -> None:
    rows = some(60)
    table = Files(path=write(tmp_path / "rows.jsonl", rows)).table()
    random.Random(0).shuffle(rows)
    shuffled = Files(path=write(tmp_path / "shuffled.jsonl", rows)).table()
    assert shuffled.examples != table.examples
    assert set(anywhere(shuffled)[0]) == set(anywhere(table)[0])


def test_one_file_is_split_by_prompt_into_thirds(tmp_path: Path) -> None:
    rows = some(900) + [{**row, "chosen": "another"} for row in some(900)]
    path = write(tmp_path / "rows.jsonl", rows)
    table = Files(path=path).table()
    home: dict[str, str] = {}
    assert all(home.setdefault(pair.cluster, pair.split) == pair.split for pair in table.examples)
    assert len(table.examples) == 1800
    assert all(abs(len(table.rows(split)) - 600) < 120 for split in SPLITS)
    moved = Files(path=path, split_seed=1).table()
    assert {pair.id for pair in moved.examples} == {pair.id for pair in table.examples}
    assert 0.5 < sum(home[pair.cluster] != pair.split for pair in moved.examples) / 1800 < 0.8  # two thirds expected


@pytest.fixture
def three(tmp_path: Path) -> Files:
    """Three files with, in this order, a leak into test, a duplicate, equal sides and helpful rows."""
    return Files(
        gt=write(tmp_path / "gt.jsonl", [*some(5), *some(1, 20)]),
        w2s=write(tmp_path / "w2s.csv", [*some(5, 10), *some(1, 10)]),
        test=write(tmp_path / "test.parquet", [*some(5, 20), {"prompt": "x", "chosen": "same", "rejected": "same"}]),
        helpful=write(tmp_path / "helpful.jsonl", [*some(4, 30), *some(1, 22)]),
        helpful_test=write(tmp_path / "helpful_test.jsonl", some(3, 40)),
    )


def test_three_files_keep_their_splits_and_count_what_is_dropped(three: Files) -> None:
    table = three.table()
    assert [len(table.rows(split)) for split in SPLITS] == [5, 5, 5]
    assert [len(table.rows(split, "helpful")) for split in SPLITS] == [0, 4, 3]
    assert table.dropped == {"unsplittable": 0, "equal_sides": 1, "duplicates": 1, "leaks": 2, "over_limit": 0}
    assert all(pair.id == digest(pair.prompt, pair.chosen, pair.rejected, pair.facet) for pair in table.examples)
    assert all(pair.cluster == digest(pair.prompt) for pair in table.examples)


def test_the_limit_comes_after_cleaning_in_file_order(three: Files) -> None:
    full, table = three.table(), replace(three, limit=3).table()
    for split, facet in {(pair.split, pair.facet) for pair in full.examples}:
        assert table.rows(split, facet) == full.rows(split, facet)[:3]
    assert table.dropped["over_limit"] == 2 + 2 + 2 + 1
    assert sum(table.dropped.values()) + len(table.examples) == 6 + 6 + 6 + 5 + 3


def test_rows_about_something_else_have_a_facet_of_their_own(three: Files, tmp_path: Path) -> None:
    before, rows = three.table(), some(8, start=500)
    table = replace(three, unrelated=write(tmp_path / "unrelated.jsonl", rows)).table()
    assert [pair.prompt for pair in table.rows("w2s", UNRELATED)] == [row["prompt"] for row in rows]
    assert [pair for pair in table.examples if pair.facet != UNRELATED] == before.examples
    assert {pair.part for pair in table.rows("w2s", UNRELATED)} == {0}


def test_parts_of_w2s_are_disjoint_by_prompt_and_cover_it(tmp_path: Path) -> None:
    """No hop of a chain sees a prompt of another, and the other rows are all in part 0."""
    rows = some(200)
    rows += [{**row, "chosen": row["chosen"] + "!"} for row in rows[::3]]  # prompts with two pairs
    files = Files(path=write(tmp_path / "rows.jsonl", rows), helpful=write(tmp_path / "helpful.jsonl", some(20, 500)))
    whole, table = files.table(), replace(files, w2s_parts=3).table()
    assert [pair._replace(part=0) for pair in table.examples] == whole.examples
    assert {pair.part for pair in whole.examples} == {0}
    parts = [table.rows("w2s", part=part) for part in range(3)]
    assert min(map(len, parts)) > 0.2 * len(whole.rows("w2s"))
    assert sorted(chain.from_iterable(parts)) == sorted(table.rows("w2s", part=None))
    prompts = [{pair.prompt for pair in part} for part in parts]
    assert not any(one & other for one, other in combinations(prompts, 2))
    for split, facet in (("gt", TARGET), ("test", TARGET), ("w2s", CONFLICTING)):
        assert table.rows(split, facet) == whole.rows(split, facet) == table.rows(split, facet, None)


def test_the_limit_holds_for_each_part(tmp_path: Path) -> None:
    files = Files(path=write(tmp_path / "rows.jsonl", some(120)), w2s_parts=3)
    full, table = files.table(), replace(files, limit=5).table()
    for part in range(3):
        assert table.rows("w2s", part=part) == full.rows("w2s", part=part)[:5]
    assert table.dropped["over_limit"] == len(full.examples) - 5 * (2 + 3)


def test_whole_dialogues_that_cannot_be_split_are_counted(tmp_path: Path) -> None:
    rows: Rows = [{"chosen": f"\n\nHuman: {i}{TAG} a", "rejected": f"\n\nHuman: {i}{TAG} b"} for i in range(30)]
    odd: Rows = [{"chosen": "no tag", "rejected": "none"}, {**rows[0], "rejected": f"\n\nHuman: other{TAG} b"}]
    table = Files(path=write(tmp_path / "rows.jsonl", rows + odd)).table()
    assert (len(table.examples), table.dropped["unsplittable"]) == (30, 2)


def test_identity_follows_the_content(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "rows.jsonl", some(9)))
    identity = Files(path=str(path)).identity()
    assert json.loads(json.dumps(identity)) == identity
    moved = path.rename(tmp_path / "moved.jsonl")
    assert Files(path=str(moved)).identity() == identity
    three = Files(gt=str(moved), w2s=str(moved), test=str(moved))
    assert replace(three, split_seed=1).identity() == three.identity()  # there is nothing to split
    for change in (
        {"limit": 5},
        {"split_seed": 1},
        {"max_tokens": 64},
        {"long": "refuse"},
        {"helpful": str(moved)},
        {"w2s_parts": 2},
        {"unrelated": str(moved)},
    ):
        assert replace(Files(path=str(moved)), **change).identity() != identity
    moved.write_text(moved.read_text().replace("good 0", "GOOD 0"))  # same path and size
    os.utime(moved, ns=(1, 1))
    assert Files(path=str(moved)).identity() != identity


def test_paths_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl", some(30))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tables = [anywhere(Files(path=path).table()) for path in ("rows.jsonl", "~/rows.jsonl", "$HERE/rows.jsonl")]
    assert tables[0] == tables[1] == tables[2]


def test_reading_needs_no_torch_and_no_pandas(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", some(30))
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy'}"
    code = f"import sys, w2sd.data.files as f; f.Files(path={path!r}).table(); print({heavy} & set(sys.modules))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


HEADER = b"prompt,chosen,rejected\n"
BROKEN: list[tuple[str, bytes, str | None, Any, str]] = [  # file, its bytes; the refusal's place, value, accepted
    ("x.jsonl", json.dumps(GOOD).encode() + b'\n\n{"no\n', ":3", '{"no\n', "JSON"),
    ("x.jsonl", b'["a"]\n', ":1", ["a"], "JSON"),
    ("x.jsonl", b'\n{"\xff": 1}', ":2", '{"\ufffd": 1}', "JSON utf-8"),
    ("x.jsonl", json.dumps({**GOOD, "chosen": " "}).encode(), ":1", " ", "chosen"),
    ("x.jsonl", json.dumps({**GOOD, "chosen": 3}).encode(), ":1", 3, "chosen"),
    ("x.jsonl", json.dumps(GOOD).encode() + b'\n{"a": 1}', ":2", ["a"], "chosen"),
    ("x.json", b"[]", None, "x.json", ".jsonl .jsonl.gz .csv .csv.gz .parquet"),
    ("x.jsonl", b"", None, "x.jsonl", "2 gt 0"),
    ("x.csv", HEADER + b"p,a,b\n", None, "x.csv", "2 gt"),
    ("x.csv", HEADER + b'"two\nlines",a,b\n\np,a\n', ":5", "2 cells", "3"),
    ("x.csv", b"prompt,chosen,chosen,rejected\np,a,c,b\n", ":1", "chosen", ""),
    ("x.jsonl", b'{"a": 1, "a": 2}', ":1", '{"a": 1, "a": 2}', "JSON a"),
    ("x.csv", HEADER + b'"p,a,b\n', ":2", "unexpected end of data", "CSV"),
    ("x.csv", HEADER + b"p,a,\n", ":2", "", "rejected"),
    ("x.csv", HEADER + b"\xff,a,b\n", "", ANY, ""),
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


def test_says_why_a_split_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gt", "w2s", "test"):
        write(tmp_path / f"{name}.jsonl", some(5, 3))
    write(tmp_path / "tagless.jsonl", [{"chosen": "a", "rejected": "b"}] * 3)
    with refused("data.gt", "gt.jsonl", "2 gt 0 10 leaks"):
        Files(gt="gt.jsonl", w2s="w2s.jsonl", test="test.jsonl").table()
    with refused("data.path", "tagless.jsonl", "3 unsplittable"):
        Files(path="tagless.jsonl").table()
    with refused("data.path", "gt.jsonl"):
        Files(path="gt.jsonl", helpful="gt.jsonl").table()


ROLES = "data.path data.gt data.w2s data.test"
UNUSABLE: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    ({}, ("data.path", "", ROLES)),
    ({"gt": "a.jsonl"}, ("data.w2s", "", ROLES)),
    ({"path": "a.jsonl", "w2s": "a.jsonl"}, ("data.w2s", "a.jsonl", "data.path=a.jsonl")),
    ({"path": "aa.jsonl"}, ("data.path", "aa.jsonl", "", "a.jsonl")),
    ({"path": "a.jsonl", "helpful": "zzz"}, ("data.helpful", "zzz")),
    ({"path": "no/a.csv"}, ("data.path", "no/a.csv", "folder no")),
    ({"path": "$NO_W2SD/a"}, ("data.path", "$NO_W2SD/a", "variable")),
    ({"limit": -1}, ("limit", -1, "0 2")),
    ({"limit": 1}, ("limit", 1, "0 2")),
    ({"w2s_parts": 0}, ("w2s_parts", 0, "1")),
    ({"split_seed": -1}, ("split_seed", -1, "0")),
    ({"max_tokens": 1}, ("max_tokens", 1, "2")),
    ({"long": "dorp"}, ("long", "dorp", "drop refuse", "drop")),
]


@pytest.mark.parametrize(("fields", "refusal"), UNUSABLE)
def test_refuses_before_anything_is_read(
    fields: dict[str, Any], refusal: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jsonl", some(3))
    monkeypatch.chdir(tmp_path)
    with refused(*refusal):
        Files(**fields).identity()
