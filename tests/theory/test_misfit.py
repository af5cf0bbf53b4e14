"""The misfit bench: reference vector V33, Pythagoras, and where the theorem ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.builders import refused

from w2sd.theory.misfit import EXACT, Misfit, _ranks, fit_head, risks

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


@pytest.mark.parametrize("inside", [0.0, 0.25, 1.0])
def test_a_teacher_errs_as_much_as_it_is_asked_to_and_that_share_of_it_inside_of_the_class(inside: float) -> None:
    toy = SMALL.draw(np.random.default_rng(0))
    error = toy.teach(toy.truth_N, 0.3, inside) - toy.truth_N
    within = toy.features_NF @ fit_head(toy.features_NF, error)
    assert np.mean(within**2) == pytest.approx(0.3 * inside)
    assert np.mean((error - within) ** 2) == pytest.approx(0.3 * (1 - inside))


def test_a_student_is_fitted_to_its_own_rows_and_measured_on_others() -> None:
    toy = SMALL.draw(np.random.default_rng(0))
    places = np.arange(len(toy.truth_N))
    assert np.concatenate([places[at] for at in (toy.own, toy.gold, toy.new)]).tolist() == places.tolist()
    assert [len(places[at]) for at in (toy.own, toy.gold, toy.new)] == [SMALL.rows, SMALL.gold, SMALL.new_rows]
    weak = toy.teach(toy.truth_N, 0.3, 0.5)
    student = toy.features_NF @ fit_head(toy.features_NF[toy.own], weak[toy.own], ridge=0.1 * SMALL.rows)
    new, own, gold = (risks(student[at], weak[at], toy.truth_N[at]) for at in (toy.new, toy.own, toy.gold))
    found = toy.study(weak, toy.truth_N, ridge=0.1)
    assert [found[name] for name in ("risk_weak", "risk_student", "misfit")] == pytest.approx([*new])
    assert [found["slack_own"], found["misfit_own"]] == pytest.approx([own.slack, own.misfit])
    assert [found["gold_weak"], found["gold_student"]] == pytest.approx([gold.weak, gold.student])


def test_teachers_are_ranked_by_what_is_known_beforehand() -> None:
    columns = {"risk_student": [1, 2, 3, 4], "gold_weak": [4, 3, 2, 1], "gold_student": [1, 2, 4, 3]}
    columns["misfit_own"] = [3, 1, -1, -3]  # risk - misfit rises
    taught = [{name: float(column[n]) for name, column in columns.items()} for n in range(4)]
    assert _ranks(taught) == pytest.approx({"weak_risk": -1, "student_risk": 0.8, "difference": 1})


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
    ridges = curves[curves["sweep"] == "ridges"]
    holds = (ridges["slack_own"] > -EXACT).groupby(ridges["length"] >= 1).mean()
    assert (metrics["ridge/holds_short"], metrics["ridge/holds_long"]) == (holds[False], holds[True])
    assert holds[False] < 1


def test_a_seed_decides_everything(found: tuple[dict[str, Any], pd.DataFrame]) -> None:
    again, other = (SMALL.simulate(seed, lambda done, total: None).metrics for seed in (0, 1))
    assert again == found[0]
    assert other["projection/gain"] != again["projection/gain"]


def test_progress_is_told() -> None:
    heard: list[tuple[int, int]] = []
    Misfit(features=4, rows=20, new_rows=60, teachers=3, replicates=2).simulate(0, lambda *at: heard.append(at))
    assert heard == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        ({"rows": 32}, ("rows", 32, "features 32")),
        ({"new_rows": 50}, ("new_rows", 50, "50")),
        ({"teachers": 2}, ("teachers", 2, "3")),
        ({"inside": 1.5}, ("inside", 1.5, "[0 1]")),
        ({"ridges": []}, ("ridges", [], "0")),
        ({"outside": [-0.1]}, ("outside", [-0.1])),
        ({"replicates": 1}, ("replicates", 1)),
    ],
)
def test_what_cannot_be_simulated_is_refused(knobs: dict[str, Any], refusal: tuple[Any, ...]) -> None:
    with refused(*refusal):
        Misfit(**knobs)
