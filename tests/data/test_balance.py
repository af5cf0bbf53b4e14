"""Texts with a class: balanced, disjoint by cluster, the same in any order, and every text accounted for."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.builders import refused
from tests.data.reading import Rows, anywhere, write

from w2sd.config import RunConfig, build, describe
from w2sd.data.choices import MultipleChoice
from w2sd.data.formats import QuestionAnswer, TextLabel
from w2sd.data.pairs import SPLITS, Item, Table, read
from w2sd.data.sources import CONVERTED, Files, Hub
from w2sd.identity import digest


def some(n: int, start: int = 0) -> Rows:
    """Rows of three classes, sorted by them, of which the first has a half and the others a quarter each."""
    return [
        {"text": f"text {i}", "label": k} for k, share in ((0, n // 2), (1, n // 4), (2, n // 4))
        for i in range(start + n * k, start + n * k + share)
    ]  # fmt: skip


def questions(n: int) -> Rows:
    """Several about each story, and every fifth without candidates that differ."""
    return [
        {
            "story": f"s{i // 3}",
            "question": f"q{i}",
            "choices": ["a", "b", "c"] if i % 5 else ["a", "a"],
            "answer": i % 2,
        }
        for i in range(n)
    ]


STORIES = MultipleChoice(text="{story} {question} {candidate}", cluster="{story}")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write(tmp_path / "rows.jsonl", some(400))


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def sizes(table: Table[Item]) -> Counter[tuple[str, int, int]]:
    return Counter((item.split, item.part, item.label) for item in table.examples)


def is_sound(table: Table[Item], n_classes: int, even: bool = True) -> None:
    """What holds for every table: stable ids, clusters at home in one split, all classes in every part of it."""
    home: dict[str, str] = {}
    assert all(home.setdefault(item.cluster, item.split) == item.split for item in table.examples)
    assert all(item.id == digest(item.text) for item in table.examples)
    assert len({item.id for item in table.examples}) == len(table.examples)
    n = sizes(table)
    assert {split for split, *_ in n} == set(SPLITS)
    for split, part in {(split, part) for split, part, _ in n}:
        of_each = [n[split, part, label] for label in range(n_classes)]
        assert min(of_each) >= 2
        assert not even or len(set(of_each)) == 1


# --- what a table holds -----------------------------------------------------------------------------------------------


def test_classes_are_balanced_within_each_split_and_what_is_left_out_is_counted(path: str) -> None:
    source, plain = Files(path=path, format=TextLabel()), Files(path=path, balance=False, format=TextLabel())
    assert source.classes == ("0", "1", "2")
    table, full = read(source), plain.table()
    is_sound(table, 3)
    is_sound(full, 3, even=False)
    is_sound(replace(source, w2s_parts=2).table(), 3)
    assert len(full.examples) == 400
    assert [item for item in full.examples if item in set(table.examples)] == table.examples
    n = sizes(full)
    assert len(table.examples) == sum(3 * min(n[split, 0, k] for k in range(3)) for split in SPLITS)
    assert table.dropped["unbalanced"] == 400 - len(table.examples)
    assert full.dropped == dict.fromkeys(table.dropped, 0)


def test_the_order_of_rows_decides_nothing(path: str, tmp_path: Path) -> None:
    for rows, form in (
        (some(400), TextLabel()),
        (questions(90) * 2, STORIES),
        (questions(90), replace(STORIES, show="all")),
        ([*questions(90), *({**row, "choices": ["b", "z", "y"], "answer": 0} for row in questions(90)[1::2])], STORIES),
    ):
        sources = []
        for name in ("sorted", "shuffled"):
            sources.append(Files(path=write(tmp_path / f"{name}.jsonl", rows), format=form, limit=24, w2s_parts=2))
            random.Random(0).shuffle(rows)
        one, other = (source.table() for source in sources)
        assert set(anywhere(one)[0]) == set(anywhere(other)[0])
        assert one.dropped == other.dropped


def test_every_text_knows_where_it_stands(path: str) -> None:
    rows = Path(path).read_text().split("\n")
    for item in Files(path=path, format=TextLabel()).table().examples:
        assert item.where.startswith(f"{path}:")
        assert json.loads(rows[int(item.where.rpartition(":")[2]) - 1])["text"] == item.text


def test_the_limit_is_a_sample_of_each_class_and_of_each_part(path: str) -> None:
    table = Files(path=path, w2s_parts=2, limit=9, format=TextLabel()).table()
    is_sound(table, 3)
    assert set(sizes(table).values()) == {3}
    bigger = Files(path=path, w2s_parts=2, limit=18, format=TextLabel()).table()
    assert set(table.examples) < set(bigger.examples)
    first = [item.text for item in read(Files(path=path, balance=False, format=TextLabel())).rows("test")][:20]
    loose = Files(path=path, balance=False, limit=20, format=TextLabel()).table()
    assert len(loose.rows("test")) == 20
    assert [item.text for item in loose.rows("test")] != first  # files are often sorted by class


def test_a_question_is_balanced_and_kept_as_a_whole(tmp_path: Path) -> None:
    rows = questions(90)
    extra = {**rows[1], "choices": ["b", "z", "y"], "answer": 0}  # the same question and the same right answer again
    path = write(tmp_path / "rows.jsonl", [*rows, extra])
    for limit in (0, 12):
        table = Files(path=path, format=STORIES, limit=limit).table()
        is_sound(table, 2)
        by_question: dict[str, list[int]] = {}
        for item in table.examples:
            by_question.setdefault(item.text[:-1], []).append(item.label)
        assert all(sorted(labels) == [0, 1] for labels in by_question.values())
        assert {len(table.rows(split)) for split in SPLITS} == {12} or not limit
    assert table.dropped["left_out"] == 18
    assert (table.dropped["duplicates"], table.dropped["unbalanced"]) == (1, 1)
    assert len(table.examples) + sum(table.dropped.values()) == 2 * (91 - 18) + 18


def test_rows_that_belong_together_stay_on_one_side(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", questions(90))
    for seed in range(3):
        is_sound(table := Files(path=path, format=STORIES, split_seed=seed).table(), 2)
        stories = [{item.text.split()[0] for item in table.rows(split)} for split in SPLITS]
        assert not stories[0] & stories[1] | stories[1] & stories[2] | stories[0] & stories[2]
        assert sum(map(len, stories)) == 30


def test_three_files_keep_their_splits_and_lose_what_leaks_or_contradicts(tmp_path: Path) -> None:
    odd = [{"text": "both", "label": 0}, {"text": "both", "label": 1}]
    source = Files(
        gt=write(tmp_path / "gt.jsonl", [*some(40), *some(40, 200)[:5]]),
        w2s=write(tmp_path / "w2s.jsonl", [*some(40, 1000), *odd]),
        test=write(tmp_path / "test.jsonl", [*some(40, 200), *some(40, 200)[:3]]),
        balance=False,
        format=TextLabel(),
    )
    table = source.table()
    assert {split: len(table.rows(split)) for split in SPLITS} == dict.fromkeys(SPLITS, 40)
    assert {reason: n for reason, n in table.dropped.items() if n} == {"contradictions": 2, "duplicates": 3, "leaks": 5}
    assert replace(source, split_seed=1).identity() == source.identity()  # there is nothing to split


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_another_split_of_a_dataset_serves_as_test(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("validation", 5000)):
        write(tmp_path / f"set/{name}.jsonl", some(120, start))
    table = Hub(id="set", test_split="validation", format=TextLabel()).table()
    is_sound(table, 3)
    of_train = {row["text"] for row in some(120)}
    assert {item.split for item in table.examples if item.text in of_train} == {"gt", "w2s"}
    assert {item.split for item in table.examples if item.text not in of_train} == {"test"}
    assert anywhere(Hub(id="set", format=TextLabel()).table()) == anywhere(
        Files(path="set/train.jsonl", format=TextLabel()).table()
    )
    some_of_it = Hub(id="set/train.jsonl", split="train[:118]", balance=False, format=TextLabel()).table()
    assert [item.text for item in some_of_it.examples] == [row["text"] for row in some(120)][:118]


def test_records_and_lists_are_read_from_the_columns_that_the_format_asks_for(tmp_path: Path) -> None:
    rows = [
        {"q": f"q{n}", "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "key": "ABC"[n % 3], "x": n}
        for n in range(40)
    ]
    write(tmp_path / "set/train.jsonl", rows)
    form = MultipleChoice(
        text="{q} {candidate}", candidates=["{choices.text}"], answer="key", answer_is="letter", show="pair"
    )
    table = Hub(id="set", format=form).table()
    is_sound(table, 2)
    assert anywhere(table) == anywhere(Files(path="set/train.jsonl", format=form).table())
    assert {item.text for item in table.examples if item.label} == {f"q{n} {'abc'[n % 3]}" for n in range(40)}


def test_a_hub_id_is_loaded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load(**options: Any) -> datasets.Dataset:
        asked.append(options)
        return datasets.Dataset.from_list(some(90, 1000 * len(asked)))

    monkeypatch.setattr(datasets, "load_dataset", load)
    is_sound(Hub(id="a/b", subset="s", test_split="validation", format=TextLabel(labels=["0", "1", "2"])).table(), 3)
    options = {"path": "a/b", "name": "s", "revision": None}
    assert asked == [{**options, "split": "train"}, {**options, "split": "validation"}]
    converted = Hub(id="a/b", subset="s", revision=CONVERTED, format=TextLabel(labels=["0", "1", "2"]))
    asked.clear()
    converted.table()
    assert asked == [{"path": "a/b", "name": None, "split": "train", "revision": CONVERTED, "data_dir": "s"}]


# --- identity ---------------------------------------------------------------------------------------------------------


def test_identity_follows_what_decides_the_rows(path: str) -> None:
    base = Files(path=path, format=TextLabel(labels=["0", "1", "2"]))
    assert json.loads(json.dumps(base.identity())) == base.identity()
    assert build(describe(base), "data") == base
    moved = Path(path).rename("moved.jsonl")
    base = replace(base, path=str(moved))
    changes: list[dict[str, Any]] = [
        {"format": TextLabel(labels=["0", "1", "2"], names=["a", "b", "c"])},
        {"format": QuestionAnswer()},
        {"balance": False},
        {"limit": 9},
        {"split_seed": 1},
        {"w2s_parts": 2},
        {"max_tokens": 64},
    ]
    keys = {json.dumps(replace(base, **change).identity(), sort_keys=True) for change in [{}, *changes]}
    assert len(keys) == 8
    remote = Hub(id="a/b", format=TextLabel())
    more = [*changes, {"id": "a/c"}, {"revision": "v1"}, {"subset": "s"}, {"split": "all"}, {"test_split": "test"}]
    assert len({json.dumps(replace(remote, **change).identity(), sort_keys=True) for change in [{}, *more]}) == 13


# --- refusals ---------------------------------------------------------------------------------------------------------

LABELS = TextLabel(labels=["0", "1"], names=["bad", "good"])
UNUSABLE: dict[str, tuple[Callable[[], Any], tuple[Any, ...]]] = {
    "a label outside the classes": (
        lambda: Files(path="three.jsonl", format=LABELS),
        ("three.jsonl:31", "2", "label 0 bad 1 good"),
    ),
    "one class": (lambda: Files(path="one.jsonl", format=LABELS), ("data.path", "one.jsonl", "2 gt 0")),
    "one class in one split": (
        lambda: Files(gt="two.jsonl", w2s="more.jsonl", test="one.jsonl", format=LABELS),
        ("data.test", "one.jsonl", "2 test 0"),
    ),
    "one class, unbalanced": (
        lambda: Files(path="one.jsonl", format=LABELS, balance=False),
        ("data.path", "one.jsonl", "2 gt 0"),
    ),
    "one class, to be found": (
        lambda: Files(path="one.jsonl", format=TextLabel()),
        ("data.format.label", "label", "0"),
    ),
    "a part without a class": (
        lambda: Files(path="two.jsonl", format=LABELS, w2s_parts=40),
        ("data.w2s_parts", 40, "2 w2s 0"),
    ),
    "a limit below two of each class, to be found": (
        lambda: Files(path="two.jsonl", limit=3, format=TextLabel()),
        ("data.limit", 3, "0 4 2"),
    ),
    "a limit that leaves too few of one class": (
        lambda: Files(path="rare.jsonl", format=LABELS, balance=False, limit=2),
        ("data.limit", 2, "2 gt"),
    ),
    "a header alone": (lambda: Files(path="header.csv", format=TextLabel()), ("data.path", "header.csv")),
    "an empty file": (lambda: Files(path="header.csv", format=LABELS), ("data.path", "header.csv", "2 gt 0")),
    "all of it leaks": (
        lambda: Files(gt="two.jsonl", w2s="more.jsonl", test="two.jsonl", format=LABELS),
        ("data.gt", "two.jsonl", "2 gt bad good 30 leaks"),
    ),
    "a row without the right answer": (
        lambda: Files(path="lost.jsonl", format=STORIES),
        ("lost.jsonl:4", 7, "index answer 0 1 2"),
    ),
    "an unknown column of a dataset": (
        lambda: Hub(id="three.jsonl", format=TextLabel(text="{txt}")),
        ("three.jsonl train[0]", ["text", "label"], "txt data.format", "text"),
    ),
    "an unknown column of a file": (
        lambda: Files(path="three.jsonl", format=TextLabel(text="{txt}", labels=["0", "1"])),
        ("three.jsonl:1", ["text", "label"], "txt data.format", "text"),
    ),
    "a limit below two of each class": (
        lambda: Files(path="two.jsonl", format=LABELS, limit=3),
        ("limit", 3, "0 4 2"),
    ),
    "no tokens": (lambda: Files(max_tokens=0, format=TextLabel()), ("max_tokens", 0, "2")),
    "no parts": (lambda: Hub(w2s_parts=0, format=TextLabel()), ("w2s_parts", 0, "1")),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    make, refusal = UNUSABLE[name]
    write(tmp_path / "three.jsonl", some(40))
    write(tmp_path / "two.jsonl", some(40)[:30])
    write(tmp_path / "more.jsonl", some(40, 1000)[:30])
    write(tmp_path / "rare.jsonl", [{**row, "label": int(n % 3 == 0)} for n, row in enumerate(some(90))])
    (tmp_path / "header.csv").write_text("text,label\n")
    write(tmp_path / "one.jsonl", [{**row, "label": 0} for row in some(40, 5000)])
    write(tmp_path / "lost.jsonl", [*questions(3), {**questions(2)[1], "answer": 7}])
    write(tmp_path / "set/train.jsonl", some(40)[:30])
    with refused(*refusal):
        make().table()


# --- the sets that have a file ----------------------------------------------------------------------------------------

LOCAL = {  # texts per split, at least
    "boolq_local": 500,
    "sciq_local": 400,
    "cosmos_qa_local": 1000,
    "sst2_local": 1000,
    "imdb": 1500,
    "amazon_local": 30,
    "amazon_cells": 150,
    "amazon_alexa": 80,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_the_real_files_are_read(name: str, asked: Callable[..., RunConfig]) -> None:
    if not os.environ.get("W2SD_DATA"):
        pytest.skip("set W2SD_DATA=FOLDER to read the real texts")
    source = asked(f"data={name}").data
    table = source.table()
    is_sound(table, 2)
    assert min(len(table.rows(split)) for split in SPLITS) >= LOCAL[name]
    assert source.table() == table
    limited = replace(source, limit=20, w2s_parts=2).table()
    assert set(sizes(limited).values()) <= {10, *range(2, 10)}
    assert set(sizes(limited)) == {
        (split, part, k) for split, part in [*((s, 0) for s in SPLITS), ("w2s", 1)] for k in (0, 1)
    }
    is_sound(limited, 2)
