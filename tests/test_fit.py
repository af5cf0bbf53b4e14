"""The schedule: reference vectors V19, and what holds for every schedule of any length."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings

from w2sd.errors import Refused
from w2sd.parts.fit import PRECISIONS, SCHEDULES, Fit

V19_WARMUP = [(0, 0.07692307692307693), (1, 0.15384615384615385), (11, 0.9230769230769231), (12, 1), (13, 1)]
V19_COSINE = [(0, 1), (1, 0.99984209464165), (62, 0.5062830199416763), (124, 0.00015790535835003006)]

shares = st.floats(0, 1)
fits = st.builds(Fit, schedule=st.sampled_from(SCHEDULES), warmup=shares, floor=shares)
lengths = st.integers(1, 300)
properties = settings(database=None, deadline=None, max_examples=60)


def factors(fit: Fit, n_steps: int) -> list[float]:
    """Those of every step, and the one that is asked for after the last."""
    return [fit.factor(step, n_steps) for step in range(n_steps + 1)]


def n_warm(fit: Fit, n_steps: int) -> int:
    return math.floor(fit.warmup * n_steps)


@pytest.mark.parametrize(("step", "expected"), V19_WARMUP)
def test_constant_with_warmup_reference_vectors(step: int, expected: float) -> None:
    fit = Fit(schedule="constant", warmup=0.1)
    assert fit.factor(step, 125) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("step", "expected"), V19_COSINE)
def test_cosine_reference_vectors(step: int, expected: float) -> None:
    assert Fit(schedule="cosine").factor(step, 125) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("linear", [0.2, 0.4, 0.6, 0.8, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]), ("constant", [0.5, 1, 1, 1, 1])],
)
def test_warmup_and_schedule_meet_at_the_peak(schedule: str, expected: list[float]) -> None:
    fit = Fit(schedule=schedule, warmup=0.4 if schedule == "linear" else 0.25)
    assert factors(fit, len(expected) - 1) == pytest.approx(expected, abs=1e-12)


@properties
@given(fits, lengths)
def test_factors_are_shares_of_the_peak(fit: Fit, n_steps: int) -> None:
    assert all(0 <= factor <= 1 for factor in factors(fit, n_steps))


@properties
@given(fits, lengths)
def test_the_rate_rises_in_the_warmup_is_the_peak_after_it_and_never_rises_again(fit: Fit, n_steps: int) -> None:
    every, warm = factors(fit, n_steps), n_warm(fit, n_steps)
    assert all(one < other for one, other in pairwise(every[: warm + 1]))
    assert every[warm] == 1
    assert every[warm:] == sorted(every[warm:], reverse=True)


@properties
@given(fits, lengths)
def test_the_first_step_already_learns(fit: Fit, n_steps: int) -> None:
    assert fit.factor(0, n_steps) > 0


@properties
@given(fits, lengths)
def test_falling_schedules_end_at_the_floor_and_are_never_below_it(fit: Fit, n_steps: int) -> None:
    assume(n_warm(fit, n_steps) < n_steps)
    every = factors(fit, n_steps)
    assert every[-1] == (1 if fit.schedule == "constant" else pytest.approx(fit.floor, abs=1e-15))
    assert min(every[n_warm(fit, n_steps) :]) >= fit.floor - 1e-15


@properties
@given(fits, lengths, st.integers(0, 1000))
def test_steps_after_the_end_stay_where_the_schedule_ended(fit: Fit, n_steps: int, more: int) -> None:
    assume(n_warm(fit, n_steps) < n_steps)
    assert fit.factor(n_steps + more, n_steps) == fit.factor(n_steps, n_steps)


@properties
@given(fits, lengths)
def test_without_a_warmup_training_begins_at_the_peak(fit: Fit, n_steps: int) -> None:
    assert Fit(schedule=fit.schedule, floor=fit.floor).factor(0, n_steps) == 1


REFUSED: dict[str, list[Any]] = {
    "lr": [0, -1e-3, math.nan, math.inf],
    "epochs": [0, -1],
    "batch": [0, -32],
    "betas": [[], [0.9], [0.9, 0.99, 0.999], [0.9, 1.0], [-0.1, 0.9], [math.nan, 0.9]],
    "weight_decay": [-0.1, math.nan],
    "warmup": [-0.1, 1.1, math.nan],
    "floor": [-0.1, 1.1, math.nan],
    "clip": [-1.0, math.nan],
    "schedule": ["", "Cosine", "exponential"],
    "precision": ["", "32", "bf16"],
}


@pytest.mark.parametrize(("knob", "value"), [(knob, value) for knob, values in REFUSED.items() for value in values])
def test_impossible_values_are_refused_by_name(knob: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        Fit(**{knob: value})
    assert (refused.value.knob, repr(refused.value.value)) == (knob, repr(value))


@pytest.mark.parametrize(
    "fit",
    [
        {"lr": 1e-12, "epochs": 1, "batch": 1, "betas": [0.0, 0.0], "warmup": 0.0, "floor": 0.0, "clip": 0.0},
        {"lr": 1e3, "warmup": 1.0, "floor": 1.0, "weight_decay": 10.0, "dropout": True},
        *({"schedule": schedule} for schedule in SCHEDULES),
        *({"precision": precision} for precision in PRECISIONS),
    ],
    ids=str,
)
def test_the_edges_of_what_is_possible_are_accepted(fit: dict[str, Any]) -> None:
    assert 0 < Fit(**fit).factor(0, 10) <= 1
