"""Files and datasets of pairs: split by prompt, disjoint, every row accounted for, known by what decides their rows.

Datasets of the hub are local folders of the same shape: no network is touched.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.builders import refused
from tests.data.reading import Rows, anywhere, some, write

from w2sd.data.formats import TAG, Chat, Dialogue, Pairs, TextLabel
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, UNRELATED
from w2sd.data.sources import Files, Hub
from w2sd.identity import digest

ROWS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


# --- local files ------------------------------------------------------------------------------------------------------


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
    table = Files(path=write(tmp_path / "rows.jsonl", rows + odd), format=Dialogue()).table()
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
        {"format": Dialogue()},
        {"format": Pairs(prompt="question")},
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


def test_says_why_a_split_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gt", "w2s", "test"):
        write(tmp_path / f"{name}.jsonl", some(5, 3))
    write(tmp_path / "tagless.jsonl", [{"chosen": "a", "rejected": "b"}] * 3)
    with refused("data.gt", "gt.jsonl", "2 gt 0 10 leaks"):
        Files(gt="gt.jsonl", w2s="w2s.jsonl", test="test.jsonl").table()
    with refused("data.path", "tagless.jsonl", "3 unsplittable"):
        Files(path="tagless.jsonl", format=Dialogue()).table()
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
    ({"append_eos": "always"}, ("append_eos", "always", "auto never")),
    ({"balance": False}, ("balance", False, "true")),
    ({"format": "text"}, ("format", "text", "_target_")),
    *(
        ({knob: value, "format": TextLabel()}, (knob, value, "pairs"))
        for knob, value in (("helpful", "a"), ("helpful_test", "a"), ("unrelated", "a"), ("long", "refuse"))
    ),
    ({"append_eos": "never", "format": TextLabel()}, ("append_eos", "never", "pairs")),
]


@pytest.mark.parametrize(("fields", "refusal"), UNUSABLE)
def test_refuses_before_anything_is_read(
    fields: dict[str, Any], refusal: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jsonl", some(3))
    monkeypatch.chdir(tmp_path)
    with refused(*refusal):
        Files(**fields).identity()


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_folder_gives_the_pairs_of_a_file(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / "set" / f"train{suffix}", ROWS)
    write(tmp_path / "set" / f"test{suffix}", ROWS[:5])
    tables = [source.table() for source in (Hub(id="set"), Files(path=str(file)), Hub(id=f"set/train{suffix}"))]
    whole, plain, one = map(anywhere, tables)
    assert whole == plain == one
    assert [pair.where for pair in tables[0].examples] == [f"set train[{n}]" for n in range(len(ROWS))]


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    write(tmp_path / "set/train.jsonl", ROWS)
    other = [{"question": r["prompt"], "yes": r["chosen"], "no": r["rejected"], "score": 1} for r in ROWS]
    write(tmp_path / "other/train.jsonl", other)
    named = Hub(id="other", format=Pairs(prompt="question", chosen="yes", rejected="no"))
    assert anywhere(named.table()) == anywhere(Hub(id="set").table())


def test_whole_dialogues_and_messages(tmp_path: Path) -> None:
    prompts = [f"\n\nHuman: {row['prompt']}\n\nAssistant:" for row in ROWS]
    text = [
        {"prompt": p, "chosen": " " + r["chosen"], "rejected": " " + r["rejected"]}
        for p, r in zip(prompts, ROWS, strict=True)
    ]
    write(tmp_path / "text/train.jsonl", text)
    write(
        tmp_path / "whole/train.jsonl", [{side: r["prompt"] + r[side] for side in ("chosen", "rejected")} for r in text]
    )
    chat = [
        {
            side: [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r[side]}]
            for side in ("chosen", "rejected")
        }
        for r in ROWS
    ]
    write(tmp_path / "chat/train.jsonl", chat)
    sources = [Hub(id="text"), Hub(id="whole", format=Dialogue()), Hub(id="chat", format=Chat())]
    text, whole, chat = (anywhere(source.table()) for source in sources)
    assert text == whole == chat


def test_a_local_dataset_is_known_by_its_content_and_another_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set/train.jsonl", ROWS)
    local = Hub(id="set")
    assert json.loads(json.dumps(local.identity())) == local.identity()
    shutil.copytree("set", "moved")
    assert Hub(id="moved").identity() == local.identity()
    shutil.move("moved/train.jsonl", "moved/test.jsonl")  # another split
    assert Hub(id="moved").identity() != local.identity()
    shutil.move("moved/test.jsonl", "moved/train.jsonl")
    write(tmp_path / "moved/more.jsonl", ROWS)
    assert Hub(id="moved").identity() != local.identity()
    remote = Hub(id="owner/name")
    changes = {
        "id": "owner/other",
        "revision": "v1",
        "subset": "s",
        "split": "all",
        "test_split": "test",
        "format": Pairs(prompt="q"),
        "limit": 3,
        "long": "refuse",
    }
    assert (
        len(
            {json.dumps(replace(remote, **{k: v}).identity()) for k, v in changes.items()}
            | {json.dumps(remote.identity())}
        )
        == 9
    )


def test_another_split_of_a_dataset_serves_as_test(tmp_path: Path) -> None:
    write(tmp_path / "set/train.jsonl", ROWS)
    write(tmp_path / "set/test.jsonl", some(30))
    table = Hub(id="set", test_split="test").table()
    assert sorted(pair.prompt for pair in table.rows("test")) == sorted(row["prompt"] for row in some(30))
    assert {pair.split for pair in table.examples if pair.prompt not in {row["prompt"] for row in some(30)}} == {
        "gt",
        "w2s",
    }
    assert len(table.examples) == 90


def test_a_hub_id_is_loaded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load(**options: Any) -> datasets.Dataset:
        asked.append(options)
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(Hub(id="owner/name", revision="abc", split="all").table().examples) == len(ROWS)
    assert asked == [{"path": "owner/name", "name": None, "split": "all", "revision": "abc"}]


BAD: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "no id": ({"id": ""}, ("data.id", "", "owner/name")),
    "a missing folder": ({"id": "./sett"}, ("data.id", "./sett", "owner/name", "set")),
    "an unreachable hub": ({"id": "no/such"}, ("data.id", "no/such")),
    "an empty folder": ({"id": "empty"}, ("data.id", "empty")),
    "mixed types": ({"id": "mixed"}, ("mixed train[1]", 3, "chosen")),
    "an unknown split": ({"split": "dev"}, ("data.split", "dev")),
    "a misspelt split of one file": (
        {"id": "set/train.jsonl", "split": "trian[:9]"},
        ("data.split", "trian[:9]", "train[:100]"),
    ),
    "an unknown subset": ({"subset": "xx"}, ("data.subset", "xx")),
    "an unknown prompt": (
        {"format": Pairs(prompt="promt")},
        ("set train[0]", ["prompt", "chosen", "rejected"], "promt", "prompt"),
    ),
    "an unknown side": (
        {"format": Pairs(chosen="zzz")},
        ("set train[0]", ["prompt", "chosen", "rejected"], "zzz data.format"),
    ),
    "a null": ({"id": "null"}, ("null train[2]", None, "rejected")),
    "another split of one file": (
        {"id": "set/train.jsonl", "test_split": "test"},
        ("data.test_split", "test", "set/train.jsonl"),
    ),
    "one split twice": ({"test_split": "train"}, ("test_split", "train")),
    "an unknown split for test": ({"test_split": "dev"}, ("data.test_split", "dev")),
    "one row": ({"id": "one"}, ("data.id", "one", "2 gt")),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_datasets(name: str, tmp_path: Path) -> None:
    fields, refusal = BAD[name]
    write(tmp_path / "set/train.jsonl", ROWS)
    write(tmp_path / "null/train.jsonl", [*ROWS[:2], {**ROWS[2], "rejected": None}])
    write(tmp_path / "one/train.jsonl", ROWS[:1])
    write(tmp_path / "mixed/train.jsonl", [ROWS[0], {**ROWS[1], "chosen": 3}])
    (tmp_path / "empty").mkdir()
    with refused(*refusal):
        Hub(**{"id": "set", **fields}).table()


def test_no_id_is_not_the_current_folder() -> None:
    with refused("data.id", "", "owner/name"):
        Hub().identity()


def test_refuses_impossible_values() -> None:
    with refused("limit", 1):
        Hub(id="set", limit=1)
