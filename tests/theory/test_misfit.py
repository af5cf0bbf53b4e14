"""The misfit bench: reference vector V33, Pythagoras, and where the theorem ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from w2sd.errors import Refused
from w2sd.theory.misfit import Misfit, fit_head, risks

H = np.array([[1, 0], [0, 1], [1, 1], [1, -1.0]])
HEAD = np.array([1.0, 2.0])
TRUTH = H @ HEAD
WEAK = TRUTH + np.array([0.3, -0.2, 0.1, 0.4])
SMALL = Misfit(features=10, rows=300, new_rows=600, teachers=5, replicates=4)


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Any], pd.DataFrame]:
    simulation = SMALL.simulate(0, lambda done, total: None)
    return simulation.metrics, pd.DataFrame(simulation.curves)


def test_a_projection_of_weak_labels_gains_its_misfit() -> None:
    head = fit_head(H, WEAK)
    assert head == pytest.approx([1.26666667, 1.83333333], abs=1e-8)
    on_rows = risks(H @ head, WEAK, TRUTH)
    assert on_rows == pytest.approx((0.075, 0.0741666667, 0.0008333333), abs=1e-9)
    assert on_rows.slack == pytest.approx(0, abs=1e-12)


def test_a_ridge_head_that_is_too_short_loses_more() -> None:
    head = fit_head(H, WEAK, ridge=1.0)
    assert head == pytest.approx([0.95, 1.375], abs=1e-9)
    on_rows = risks(H @ head, WEAK, TRUTH)
    assert on_rows.student == pytest.approx(0.29484375, abs=1e-9)
    assert on_rows.slack == pytest.approx(2 * head @ (head - HEAD) / 4, abs=1e-12)  # 2 × ridge × θ'(θ - θ*) / rows


@pytest.mark.parametrize("seed", range(5))
def test_pythagoras_on_the_rows_of_any_projection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, head = rng.standard_normal((200, 12)), rng.standard_normal(12)
    weak = features @ head + 3 * rng.standard_normal(200)
    assert risks(features @ fit_head(features, weak), weak, features @ head).slack == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_a_head_at_least_as_long_as_the_truths_keeps_the_promise(seed: int) -> None:
    """A ridge head is the projection on the ball of heads no longer than itself, and that is convex."""
    rng = np.random.default_rng(seed)
    features, head = rng.standard_normal((200, 12)), rng.standard_normal(12)
    weak = features @ (1.5 * head) + rng.standard_normal(200)
    fits = [fit_head(features, weak, ridge) for ridge in (1.0, 10.0, 50.0, 200.0, 5000.0)]
    long = [np.linalg.norm(fit) >= np.linalg.norm(head) for fit in fits]
    slacks = [risks(features @ fit, weak, features @ head).slack for fit in fits]
    assert long[0]
    assert not long[-1]
    assert all(slack > 0 for slack, enough in zip(slacks, long, strict=True) if enough)
    assert slacks[-1] < 0


def test_the_sweeps_hold_what_the_theory_says(found: tuple[dict[str, Any], pd.DataFrame]) -> None:
    metrics, curves = found
    assert metrics["projection/slack_own"] < 1e-10
    assert metrics["ridge/holds_long"] == 1
    assert metrics["ridge/slack_largest"] < 0
    assert metrics["projection/gain"] == pytest.approx(metrics["projection/misfit"], abs=0.05)
    assert metrics["projection/gain"] > 0.05
    assert metrics["outside/expected"] == -0.8
    assert metrics["outside/slack"] == pytest.approx(-0.8, abs=0.25)
    of = curves.groupby("sweep").size()
    assert of.to_dict() == {"teachers": 4 * 5, "ridges": 4 * 7, "outside": 4 * 5}


def test_a_figure_is_that_of_its_points(found: tuple[dict[str, Any], pd.DataFrame]) -> None:
    metrics, curves = found
    taught = curves[curves["sweep"] == "teachers"]
    gain = (taught["risk_weak"] - taught["risk_student"]).groupby(taught["replicate"]).mean()
    assert metrics["projection/gain"] == pytest.approx(gain.mean())
    assert (curves["slack"] - (curves["risk_weak"] - curves["misfit"] - curves["risk_student"])).abs().max() < 1e-12
    assert curves.notna().all().all()


def test_a_seed_decides_everything(found: tuple[dict[str, Any], pd.DataFrame]) -> None:
    again, other = (SMALL.simulate(seed, lambda done, total: None).metrics for seed in (0, 1))
    assert again == found[0]
    assert other["projection/gain"] != again["projection/gain"]


def test_progress_is_told() -> None:
    heard: list[tuple[int, int]] = []
    Misfit(features=4, rows=20, new_rows=60, teachers=3, replicates=2).simulate(0, lambda *at: heard.append(at))
    assert heard == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"rows": 32}, "rows: 32 is not accepted; expected more than features = 32"),
        ({"new_rows": 50}, "new_rows: 50 is not accepted; expected more than 50, features and gold"),
        ({"teachers": 2}, "teachers: 2 is not accepted; expected an integer of 3 or more"),
        ({"inside": 1.5}, r"inside: 1.5 is not accepted; expected a share in \[0, 1\]"),
        ({"ridges": []}, r"ridges: \[\] is not accepted; expected numbers of 0 or more"),
        ({"outside": [-0.1]}, "outside: .* expected numbers of 0 or more"),
        ({"replicates": 1}, "replicates: 1 is not accepted"),
    ],
)
def test_what_cannot_be_simulated_is_refused(knobs: dict[str, Any], line: str) -> None:
    with pytest.raises(Refused, match=f"^{line}"):
        Misfit(**knobs)
