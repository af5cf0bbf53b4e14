"""What a run asks of its rows is checked on the table, before a model is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import pytest

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.data.pairs import read
from w2sd.data.sources import Files
from w2sd.pipeline import checks
from w2sd.pipeline.checks import at_hand, check_rows

Asked = Callable[..., RunConfig]


def check(run: RunConfig) -> None:
    check_rows(run, read(run.data))


@pytest.mark.parametrize(
    ("knobs", "knob"),
    [
        (["conflict=implicit", "conflict.ratio=2"], "conflict.ratio"),
        (["conflict=placebo_unrelated", "conflict.ratio=2"], "conflict.ratio"),
    ],
)
def test_more_extra_rows_than_there_are_are_refused(asked: Asked, knobs: list[str], knob: str) -> None:
    with refused(knob, 2.0):
        check(asked(*knobs))
    check(asked(*knobs, "data.helpful=2048", "data.unrelated=2048"))


def test_rows_are_at_hand_where_they_are_drawn_or_in_small_files(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert at_hand(asked().data)
    assert not at_hand(asked("data=hub", "data.id=somebody/pairs", "model@weak=gpt2", "model@strong=gpt2").data)
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    data = Files(path=str(tmp_path / "pairs.jsonl"))
    assert at_hand(data)
    monkeypatch.setattr(checks, "SMALL", 2)
    assert not at_hand(data)


SMALL = ["data=world_classes", "data.gt=64", "data.w2s=64", "data.test=60", "supervision=filtered"]


@pytest.mark.parametrize(
    ("knobs", "which"),
    [
        (["stopping=labels"], "stopping.holdout=0.1 holds"),
        (["stopping=labels", "stopping.holdout=0.9"], "stopping.holdout=0.9 leaves"),
        (["supervision.k=64"], "w2s"),
        (["stopping=labels", "supervision=relabelled", "supervision.probe=topological"], "holds"),
    ],
)
def test_more_neighbours_than_a_half_has_are_refused_before_anything_is_trained(
    asked: Asked, knobs: list[str], which: str
) -> None:
    run = asked(*SMALL, *knobs)
    with refused("supervision.k", ANY, which):
        check(run)


def test_as_many_neighbours_as_the_smallest_half_has_are_taken(asked: Asked) -> None:
    words = [*SMALL, "stopping=labels"]
    with refused("supervision.k") as refusal:
        check(asked(*words))
    most = int(re.search(r"\d+", refusal.value.accepted)[0])
    check(asked(*words, f"supervision.k={most}"))
    check(asked(*words, "supervision.probe=logistic"))
    with refused("supervision.k"):
        check(asked(*words, f"supervision.k={most + 1}"))


@pytest.mark.parametrize("method", ["labels", "watch"])
@pytest.mark.parametrize(("holdout", "n_held"), [("0.00001", 0), ("0.99999", 64)])
def test_a_holdout_of_no_row_or_of_all_is_refused_before_anything_is_trained(
    asked: Asked, method: str, holdout: str, n_held: int
) -> None:
    words = [*SMALL[:-1], f"stopping={method}"]
    check(asked(*words))
    with refused("stopping.holdout", float(holdout), f"64 gt {n_held}"):
        check(asked(*words, f"stopping.holdout={holdout}"))


def test_a_holdout_of_whole_clusters_is_refused_where_they_are_all_on_one_side(asked: Asked) -> None:
    """All items of w2s are about one text, so that half of them is as good as none, or all."""
    run = asked(*SMALL[:-1], "data.w2s_parts=1", "stopping=labels", "stopping.holdout=.5")
    table = read(run.data)
    together = [row._replace(cluster="one") if row.split == "w2s" else row for row in table.examples]
    check_rows(run, table)
    with refused("stopping.holdout", 0.5, "64 w2s"):
        check_rows(run, table._replace(examples=together))


@pytest.mark.parametrize(
    ("knobs", "n"), [(["data.w2s=4"], "4"), (["data.w2s=9", "stopping=labels", "stopping.holdout=.5"], "")]
)
def test_fewer_rows_than_a_threshold_needs_are_refused_before_anything_is_trained(
    asked: Asked, knobs: list[str], n: str
) -> None:
    pairs = ["data.gt=64", "data.helpful=2", "data.unrelated=2", "data.test=60", *knobs]
    check(asked(*pairs))
    with refused("objective.min_rows", 8, f"{n} w2s"):
        check(asked(*pairs, "objective=logconf"))
    check(asked(*pairs, "objective=logconf", "objective.min_rows=2"))


def test_of_many_classes_no_row_is_too_few_for_a_threshold(asked: Asked) -> None:
    words = [*SMALL[:-1], "data.w2s=6", "objective=logconf"]
    run = asked(*words)
    with refused("objective.min_rows"):
        check(run)
    three = SimpleNamespace(classes=("a", "b", "c"))
    check_rows(run._replace(data=three), read(run.data))  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch", "n_warnings"), [(8, 0), (9, 2)])
def test_a_batch_that_is_larger_than_all_rows_is_told_of(
    asked: Asked, caplog: pytest.LogCaptureFixture, batch: int, n_warnings: int
) -> None:
    sizes = [f"data.{knob}=8" for knob in ("gt", "w2s", "test", "helpful", "helpful_test", "unrelated")]
    run = asked(*sizes, f"fit.batch={batch}")
    check_rows(run, read(run.data))
    assert [record.args for record in caplog.records] == [(batch, 8, split) for split in ("gt", "w2s")][:n_warnings]
