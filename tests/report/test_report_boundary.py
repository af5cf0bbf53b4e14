"""Flip rates on training pairs: one line a group, with the end that theory has for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from w2sd.metrics.robustness import EDGES
from w2sd.report import deception_figures, results, verdicts
from w2sd.report.verdicts import Ruling

COUNTS = {f"boundary/training/n/{low:.2f}": 10 for low in EDGES[:-1]}


def trained(rate: float) -> dict[str, Any]:
    return {**COUNTS, **{f"boundary/training/rate/{low:.2f}": rate for low in EDGES[:-1]}}


@pytest.fixture(scope="module")
def rulings(tmp_path_factory: pytest.TempPathFactory) -> list[Ruling]:
    from tests.report.conftest import FakeStore

    store = FakeStore(tmp_path_factory.mktemp("boundary"))
    for alpha in (0.25, 1.0):
        for seed in (0, 1):
            knobs = {
                "conflict": {"_target_": "w2sd.conflicts.explicit.Explicit", "alpha": alpha, "mask": "truth"},
                "supervision": {"_target_": "w2sd.supervision.teacher.Soft"},
                "objective": {"_target_": "w2sd.objectives.reward.RewardBCE"},
                "chain": {"_target_": "w2sd.parts.chain.Direct"},
            }
            store.add_conflict(seed, knobs=knobs, **trained(alpha / 2 + 0.1 * seed))
    return verdicts.rule(results.load(store.root), store.root)


def test_a_line_for_each_group_and_its_end(rulings: list[Ruling]) -> None:
    found = {
        deception_figures.boundary(ruling.group.jobs): deception_figures.rates(ruling.group.jobs) for ruling in rulings
    }
    assert set(found) == {0.625, 1.0}
    for ends, rates in found.items():
        assert ends is not None
        assert len(rates) == len(EDGES) - 1
        assert list(rates) == sorted(rates)
        assert list(rates.values()) == pytest.approx([(2 * ends - 1) / 2 + 0.05] * len(rates))
    figure = deception_figures.draw(rulings)
    assert figure is not None
    said = {text.get_text() for text in figure.axes[0].texts}
    assert any(words.endswith("dotted at 0.62") for words in said)
    assert any(words.endswith("dotted at 1.00") for words in said)


def test_rates_are_of_all_pairs_together_and_empty_bins_have_none() -> None:
    jobs = pd.DataFrame([trained(0.5), trained(0.1)])
    jobs["boundary/training/n/0.50"] = [30, 10]
    jobs["boundary/training/n/0.95"] = 0
    jobs["boundary/training/rate/0.95"] = math.nan
    found = deception_figures.rates(jobs)
    assert found[0.525] == pytest.approx(0.4)
    assert max(found) == pytest.approx(0.925)
    assert deception_figures.rates(jobs[[]]) == {}


def test_without_one_strength_there_is_no_end() -> None:
    said = {part: f"w2sd.{name}" for part, name in deception_figures.CONDITIONS.items()} | {"conflict.mask": "truth"}
    assert deception_figures.boundary(pd.DataFrame([{**said, "conflict.alpha": 0.5}] * 2)) == 0.75
    assert deception_figures.boundary(pd.DataFrame([{**said, "conflict.alpha": alpha} for alpha in (0.5, 1.0)])) is None
    for part, other in (
        ("conflict.mask", "weak"),
        ("supervision._target_", "w2sd.Hard"),
        ("chain._target_", "x.Bootstrap"),
    ):
        assert deception_figures.boundary(pd.DataFrame([{**said, "conflict.alpha": 0.5, part: other}])) is None
    assert deception_figures.boundary(pd.DataFrame({"seed": [1]})) is None


def test_jobs_without_training_pairs_have_no_figure(planted: Any, tmp_path: Path) -> None:
    assert deception_figures.draw(verdicts.rule(results.load(planted.root), planted.root)) is None
