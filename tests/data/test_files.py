"""Local files: the same rows in any format give the same pairs, every row is accounted for, every fault is named."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from w2sd.data.files import Files, split_of
from w2sd.data.pairs import SPLITS, digest
from w2sd.errors import Refused

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
    opened = gzip.open(path, "wt", encoding="utf-8", newline="") if name.endswith(".gz") else path.open("w", newline="")
    with opened as file:
        if ".csv" in name:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def message(source: Files) -> str:
    with pytest.raises(Refused) as refused:
        source.table()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", ".JSONL"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    rows = some(60)
    path = write(tmp_path / "rows.jsonl", rows)
    other = write(tmp_path / f"again{suffix}", rows)
    assert Files(path=other).table() == Files(path=path).table()


def test_ids_do_not_depend_on_the_order(tmp_path: Path) -> None:
    rows = some(60)
    table = Files(path=write(tmp_path / "rows.jsonl", rows)).table()
    random.Random(0).shuffle(rows)
    shuffled = Files(path=write(tmp_path / "shuffled.jsonl", rows)).table()
    assert shuffled.pairs != table.pairs
    assert set(shuffled.pairs) == set(table.pairs)


def test_dialogues_and_messages_give_the_ids_of_text(tmp_path: Path) -> None:
    text: Rows = [{"prompt": f"\n\nHuman: {i}{TAG}", "chosen": " a", "rejected": " b"} for i in range(30)]
    whole: Rows = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in text]
    chat: Rows = [
        {
            side: [{"role": "user", "content": str(i)}, {"role": "assistant", "content": row[side].strip()}]
            for side in ("chosen", "rejected")
        }
        for i, row in enumerate(text)
    ]
    tables = [
        Files(path=write(tmp_path / f"{name}.parquet", rows)).table() for name, rows in enumerate((text, whole, chat))
    ]
    assert tables[0] == tables[1] == tables[2]


def test_one_file_is_split_by_prompt_into_thirds(tmp_path: Path) -> None:
    rows = some(900) + [{**row, "chosen": "another"} for row in some(900)]
    path = write(tmp_path / "rows.jsonl", rows)
    table = Files(path=path).table()
    home: dict[str, str] = {}
    assert all(home.setdefault(pair.cluster, pair.split) == pair.split for pair in table.pairs)
    assert len(table.pairs) == 1800
    assert all(abs(len(table.rows(split)) - 600) < 120 for split in SPLITS)
    moved = Files(path=path, split_seed=1).table()
    assert {pair.id for pair in moved.pairs} == {pair.id for pair in table.pairs}
    assert 0.5 < sum(home[pair.cluster] != pair.split for pair in moved.pairs) / 1800 < 0.8  # two thirds expected


def test_the_split_of_a_prompt_never_changes() -> None:
    assert [split_of(digest(str(i)), 0) for i in range(6)] == ["w2s", "w2s", "test", "gt", "gt", "gt"]


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
    assert Counter((pair.split, pair.facet) for pair in table.pairs) == {
        ("gt", "harmless"): 5,
        ("w2s", "harmless"): 5,
        ("test", "harmless"): 5,
        ("w2s", "helpful"): 4,
        ("test", "helpful"): 3,
    }
    assert table.dropped == {"unsplittable": 0, "equal_sides": 1, "duplicates": 1, "leaks": 2, "over_limit": 0}
    assert all(pair.id == digest(pair.prompt, pair.chosen, pair.rejected, pair.facet) for pair in table.pairs)
    assert all(pair.cluster == digest(pair.prompt) for pair in table.pairs)


def test_the_limit_comes_after_cleaning_in_file_order(three: Files) -> None:
    full, table = three.table(), replace(three, limit=3).table()
    for split, facet in {(pair.split, pair.facet) for pair in full.pairs}:
        assert table.rows(split, facet) == full.rows(split, facet)[:3]
    assert table.dropped["over_limit"] == 2 + 2 + 2 + 1
    assert sum(table.dropped.values()) + len(table.pairs) == 6 + 6 + 6 + 5 + 3


def test_whole_dialogues_that_cannot_be_split_are_counted(tmp_path: Path) -> None:
    rows: Rows = [{"chosen": f"\n\nHuman: {i}{TAG} a", "rejected": f"\n\nHuman: {i}{TAG} b"} for i in range(30)]
    odd: Rows = [{"chosen": "no tag", "rejected": "none"}, {**rows[0], "rejected": f"\n\nHuman: other{TAG} b"}]
    table = Files(path=write(tmp_path / "rows.jsonl", rows + odd)).table()
    assert (len(table.pairs), table.dropped["unsplittable"]) == (30, 2)


def test_identity_follows_the_content(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "rows.jsonl", some(9)))
    identity = Files(path=str(path)).identity()
    assert json.loads(json.dumps(identity)) == identity
    moved = path.rename(tmp_path / "moved.jsonl")
    assert Files(path=str(moved)).identity() == identity
    for change in ({"limit": 5}, {"split_seed": 1}, {"max_tokens": 64}, {"long": "drop"}, {"helpful": str(moved)}):
        assert replace(Files(path=str(moved)), **change).identity() != identity
    moved.write_text(moved.read_text().replace("good 0", "GOOD 0"))  # same path and size
    os.utime(moved, ns=(1, 1))
    assert Files(path=str(moved)).identity() != identity


def test_paths_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl", some(30))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (
        Files(path="~/rows.jsonl").table() == Files(path="rows.jsonl").table() == Files(path="$HERE/rows.jsonl").table()
    )


def test_reading_needs_no_torch_and_no_pandas(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", some(30))
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy'}"
    code = f"import sys; from w2sd.data.files import Files; Files(path={path!r}).table(); print({heavy} & {{*sys.modules}})"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


BROKEN = {
    "broken JSON": (
        "bad.jsonl",
        b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n\n{"prompt": \n',
        'bad.jsonl:3: \'{"prompt":',
    ),
    "no object": ("bad.jsonl", b'["a"]\n', "bad.jsonl:1: ['a'] is not accepted; expected a JSON object"),
    "no UTF-8 in JSON": ("bad.jsonl", b'{"prompt": "\xff"}\n', "bad.jsonl:1: "),
    "a short CSV row": (
        "bad.csv",
        b'prompt,chosen,rejected\n"two\nlines",a,b\np,a\n',
        "bad.csv:4: '2 cells' is not accepted; expected 3, as in the header",
    ),
    "an open quote in CSV": ("bad.csv", b'prompt,chosen,rejected\n"p,a,b\n', "bad.csv:2: 'unexpected end of data'"),
    "no UTF-8 in CSV": ("bad.csv", b"prompt,chosen,rejected\n\xff,a,b\n", "bad.csv: "),
    "CSV without the columns": ("bad.csv", b"prompt,choosen,rejected\np,a,b\n", "bad.csv:2: 'choosen' is not accepted"),
    "no gzip": ("bad.jsonl.gz", b"{}", 'bad.jsonl.gz: "Not a gzipped file'),
    "a cut gzip": (
        "bad.jsonl.gz",
        gzip.compress(json.dumps(GOOD).encode())[:-9],
        "bad.jsonl.gz: 'Compressed file ended",
    ),
    "no Parquet": ("bad.parquet", b"PAR1", "bad.parquet: 'Parquet"),
    "an empty response": (
        "bad.jsonl",
        json.dumps({**GOOD, "chosen": " "}).encode(),
        "bad.jsonl:1: ' ' is not accepted",
    ),
    "a number": ("bad.jsonl", json.dumps({**GOOD, "rejected": 3}).encode(), "bad.jsonl:1: 3 is not accepted"),
    "a null in the second row": (
        "bad.jsonl",
        b"\n".join(json.dumps(row).encode() for row in (GOOD, {**GOOD, "chosen": None})),
        "bad.jsonl:2: None is not accepted; expected text in column 'chosen'",
    ),
    "nothing": (
        "bad.jsonl",
        b"",
        "data.path: 'bad.jsonl' is not accepted; expected at least 2 harmless rows for split gt, found 0",
    ),
    "one row": (
        "bad.csv",
        b"prompt,chosen,rejected\np,a,b\n",
        "data.path: 'bad.csv' is not accepted; expected at least 2",
    ),
    "an unknown suffix": (
        "bad.json",
        b"[]",
        "data.path: 'bad.json' is not accepted; "
        "expected a file that ends in .jsonl, .jsonl.gz, .csv, .csv.gz, .parquet",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refuses_broken_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, data, start = BROKEN[name]
    (tmp_path / file).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert message(Files(path=file)).startswith(start)


def test_refuses_a_bad_cell_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.parquet", [GOOD, {**GOOD, "chosen": None}])
    assert message(Files(path=path)).endswith("bad.parquet[1]: None is not accepted; expected text in column 'chosen'")


def test_says_why_a_split_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gt", "w2s", "test"):
        write(tmp_path / f"{name}.jsonl", some(5, 3))
    write(tmp_path / "tagless.jsonl", [{"chosen": "a", "rejected": "b"}] * 3)
    assert message(Files(gt="gt.jsonl", w2s="w2s.jsonl", test="test.jsonl")) == (
        "data.gt: 'gt.jsonl' is not accepted; "
        "expected at least 2 harmless rows for split gt, found 0 (dropped in all: 10 leaks)"
    )
    assert "(dropped in all: 3 unsplittable); rows without a prompt must be" in message(Files(path="tagless.jsonl"))
    assert message(Files(path="gt.jsonl", helpful="gt.jsonl")).startswith("data.path: ")


ROLES = "expected a file: either data.path, or all of data.gt, data.w2s, data.test"
WANTED = {
    "nothing": ({}, "data.path: '' is not accepted; " + ROLES),
    "one of three": ({"gt": "a.jsonl"}, "data.w2s: '' is not accepted; " + ROLES),
    "both": (
        {"path": "a.jsonl", "w2s": "a.jsonl"},
        "data.w2s: 'a.jsonl' is not accepted; expected nothing beside data.path=a.jsonl",
    ),
    "a missing file": (
        {"path": "aa.jsonl"},
        "data.path: 'aa.jsonl' is not accepted; expected a file that exists; did you mean 'a.jsonl'?",
    ),
    "a missing helpful file": (
        {"path": "a.jsonl", "helpful": "zzz"},
        "data.helpful: 'zzz' is not accepted; expected a file that exists",
    ),
    "a missing folder": (
        {"path": "no/a.jsonl"},
        "data.path: 'no/a.jsonl' is not accepted; expected a file that exists; there is no folder no",
    ),
    "an unset variable": (
        {"path": "$W2SD_NOWHERE/a.jsonl"},
        "data.path: '$W2SD_NOWHERE/a.jsonl' is not accepted; "
        "expected a file; the environment variable in it is not set",
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_refuses_paths_in_planning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, expected = WANTED[name]
    write(tmp_path / "a.jsonl", some(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused) as refused:
        Files(**fields).identity()
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"limit": -1}, "limit: -1 is not accepted; expected 0 (all rows) or at least 2"),
        ({"limit": 1}, "limit: 1 is not accepted; expected 0 (all rows) or at least 2"),
        ({"split_seed": -1}, "split_seed: -1 is not accepted; expected 0 or more"),
        ({"max_tokens": 1}, "max_tokens: 1 is not accepted; expected at least 2"),
        ({"long": "dorp"}, "long: 'dorp' is not accepted; expected one of drop, refuse; did you mean 'drop'?"),
    ],
)
def test_refuses_impossible_values(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(Refused) as refused:
        Files(**fields)
    assert str(refused.value).startswith(expected)


@pytest.mark.slow
def test_both_spellings_of_the_real_files_give_the_same_ids() -> None:
    folder = os.environ.get("W2SD_DATA")
    if not folder:
        pytest.skip("set W2SD_DATA=FOLDER to read the real pairs")

    def source(kind: str) -> Files:
        start = f"{folder}/hh_harmless_w2s/harmless_"
        names = {"gt": "train_gt", "w2s": "train_w2s", "test": "test"}
        helpful = f"{folder}/hh_helpful_single_turn/helpful_single_turn.{kind}.jsonl.gz"
        return Files(**{role: f"{start}{name}.{kind}.jsonl.gz" for role, name in names.items()}, helpful=helpful)

    pairs, peer = source("pairs").table(), source("peer").table()
    assert pairs.dropped == {"unsplittable": 0, "equal_sides": 0, "duplicates": 0, "leaks": 226, "over_limit": 0}
    assert peer.dropped == {**pairs.dropped, "unsplittable": 33}
    # a row whose rejected dialogue goes on for more turns has no common prompt up to its last answer; the file that
    # names its prompts keeps such a row, with the further turns inside the answer
    goes_on = {pair for pair in pairs.pairs if TAG in pair.chosen + pair.rejected}
    assert set(peer.pairs) == set(pairs.pairs) - goes_on
    assert Counter((pair.split, pair.facet) for pair in peer.pairs) == {
        ("gt", "harmless"): 2863,
        ("w2s", "harmless"): 2894,
        ("test", "harmless"): 3013,
        ("w2s", "helpful"): 1444,
    }
