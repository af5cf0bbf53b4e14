"""Deception over the capability gap, and flip rates over the weak model's confidence on training pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.report.writing import FakeStore, read, write_page

from w2sd.metrics.robustness import EDGES
from w2sd.metrics.verdict import trend
from w2sd.report import results, trends, verdicts
from w2sd.report.verdicts import Ruling

CONTROLS = [f"deception/null/{name}" for name in ("twins", "more_data", "random_helpful", "gold_conflict")]
COUNTS = {f"boundary/training/n/{low:.2f}": 10 for low in EDGES[:-1]}


def rule(store: Any) -> list[Ruling]:
    return verdicts.rule(results.load(store.root), store.root)


def add_pairs(fake: Any, gaps: Sequence[float], **of_pair: Any) -> None:
    """A job for each pair of models, at its capability gap."""
    for rung, gap in enumerate(gaps):
        weak = {"_target_": "w2sd.world.ladder.Rung", "rung": rung}
        fake.add_conflict(knobs={"weak": weak}, pgr_gap=gap, planted=0.1 + gap, **of_pair)


def test_deception_against_the_gap_is_drawn_for_three_pairs_of_models(fake: Any, tmp_path: Path) -> None:
    add_pairs(fake, (0.1, 0.2, 0.4))
    add_pairs(fake, (0.1, 0.2), conflict="MoreData")  # a conflict under two pairs has no trend
    found = rule(fake)
    (points,) = trends.families(found).values()
    assert [point.gap for point in points] == [0.1, 0.2, 0.4]
    jobs = [job for r in found if r.group.family == {"conflict": "Implicit"} for job in r.group.values]
    largest = [max(job[name] for name in CONTROLS) / 0.8 for job in sorted(jobs, key=lambda job: job["pgr_gap"])]
    assert [point.control for point in points] == pytest.approx(largest)
    errors = [(point.hi - point.lo) / 3.92 for point in points]  # type: ignore[operator]
    slope = trend([0.1, 0.2, 0.4], [point.excess for point in points], errors)
    assert slope is not None
    said = f"{slope.slope / 10:.1f} [{slope.lo / 10:.1f}, {slope.hi / 10:.1f}] per 0.1 of gap, p = {slope.p:.3f}"
    told = f"Slopes: conflict Implicit: {said}, 3 pairs of models. Pairs of models are taken for independent"
    assert trends.caption(found).startswith(told.replace("-", "−"))
    reader = read(write_page(fake.root, tmp_path))
    assert trends.caption(found) in reader.text
    assert "hollow: the largest mean of its controls" in (tmp_path / "figures/gap.svg").read_text()
    assert (tmp_path / "figures/gap.png").read_bytes().startswith(b"\x89PNG")


def test_two_pairs_of_models_are_no_trend(fake: Any) -> None:
    add_pairs(fake, (0.1, 0.2))
    assert trends.draw_gaps(rule(fake)) is None
    assert trends.caption(rule(fake)) == ""


def test_equal_gaps_are_drawn_without_a_slope(fake: Any) -> None:
    add_pairs(fake, (0.2, 0.2, 0.2))
    found = rule(fake)
    assert trends.draw_gaps(found) is not None
    assert trends.caption(found) == ""


def trained(rate: float) -> dict[str, Any]:
    return {**COUNTS, **{f"boundary/training/rate/{low:.2f}": rate for low in EDGES[:-1]}}


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> list[Ruling]:
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
    return rule(store)


def test_a_line_for_each_group_and_its_end(bounded: list[Ruling]) -> None:
    found = {trends.boundary(ruling.group.jobs): trends.rates(ruling.group.jobs) for ruling in bounded}
    assert set(found) == {0.625, 1.0}
    for ends, rates in found.items():
        assert ends is not None
        assert len(rates) == len(EDGES) - 1
        assert list(rates) == sorted(rates)
        assert list(rates.values()) == pytest.approx([(2 * ends - 1) / 2 + 0.05] * len(rates))
    figure = trends.draw_boundaries(bounded)
    assert figure is not None
    said = {text.get_text() for text in figure.axes[0].texts}
    assert any(words.endswith("dotted at 0.62") for words in said)
    assert any(words.endswith("dotted at 1.00") for words in said)


def test_rates_are_of_all_pairs_together_and_empty_bins_have_none() -> None:
    jobs = pd.DataFrame([trained(0.5), trained(0.1)])
    jobs["boundary/training/n/0.50"] = [30, 10]
    jobs["boundary/training/n/0.95"] = 0
    jobs["boundary/training/rate/0.95"] = math.nan
    found = trends.rates(jobs)
    assert found[0.525] == pytest.approx(0.4)
    assert max(found) == pytest.approx(0.925)
    assert trends.rates(jobs[[]]) == {}


def test_without_one_strength_there_is_no_end() -> None:
    said = {part: f"w2sd.{name}" for part, name in trends.CONDITIONS.items()} | {"conflict.mask": "truth"}
    assert trends.boundary(pd.DataFrame([{**said, "conflict.alpha": 0.5}] * 2)) == 0.75
    assert trends.boundary(pd.DataFrame([{**said, "conflict.alpha": alpha} for alpha in (0.5, 1.0)])) is None
    for part, other in (
        ("conflict.mask", "weak"),
        ("supervision._target_", "w2sd.Hard"),
        ("chain._target_", "x.Bootstrap"),
    ):
        assert trends.boundary(pd.DataFrame([{**said, "conflict.alpha": 0.5, part: other}])) is None
    assert trends.boundary(pd.DataFrame({"seed": [1]})) is None


def test_jobs_without_training_pairs_have_no_figure(planted: Any) -> None:
    assert trends.draw_boundaries(rule(planted)) is None
