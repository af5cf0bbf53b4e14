"""Bias, variance and misfit: reference vectors V30 and V31, and the identities that hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from w2sd.metrics.calibration import across_seeds, decompose

WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]

V30 = {
    "risk_student": 0.233575,
    "bias_student": -0.4391666666666666,
    "variance_student": 0.04070763888888889,
    "risk_weak": 0.1955,
    "bias_weak": -0.3733333333333333,
    "variance_weak": 0.05612222222222223,
    "covariance": 0.026461111111111112,
    "correlation": 0.55360842433806,
    "misfit": 0.04824166666666666,
}
V31 = {
    "bias2": [0.04, 0.49, 0.25],
    "variance": [0.006666666667, 0.006666666667, 0.046666666667],
    "disagreement": [0, 0, 0.6666666666666666],
}


def test_bias_and_variance_of_the_worked_example() -> None:
    assert decompose(STUDENT, WEAK)._asdict() == pytest.approx(V30, abs=1e-9)


def test_seeds_of_the_worked_example() -> None:
    found = across_seeds([[0.9, 0.2, 0.6], [0.8, 0.4, 0.7], [0.7, 0.3, 0.2]])
    for name, expected in V31.items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("seed", range(5))
def test_identities(seed: int) -> None:
    s, w = np.random.default_rng(seed).random((2, 200))
    d = decompose(s, w)
    assert d.risk_student == pytest.approx(d.bias_student**2 + d.variance_student, abs=1e-12)
    assert d.risk_weak == pytest.approx(d.bias_weak**2 + d.variance_weak, abs=1e-12)
    assert d.risk_student == pytest.approx(d.risk_weak + d.misfit + 2 * ((w - 1) * (s - w)).mean(), abs=1e-12)
    means = (s.mean() - w.mean()) ** 2
    assert d.misfit == pytest.approx(means + d.variance_student + d.variance_weak - 2 * d.covariance, abs=1e-12)
    seeds = across_seeds([s, w])
    assert seeds.bias2 + seeds.variance == pytest.approx(((s - 1) ** 2 + (w - 1) ** 2) / 2, abs=1e-12)


def test_disagreement_counts_pairs_of_seeds() -> None:
    right = np.random.default_rng(1).random((5, 40)) < 0.5
    pairs = [right[i] != right[j] for i in range(5) for j in range(i)]
    assert across_seeds(np.where(right, 0.7, 0.2)).disagreement == pytest.approx(np.mean(pairs, axis=0), abs=1e-12)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert decompose([0.5, 0.5], [0.2, 0.9]).correlation is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decompose([], []), "student: expected at least one row"),
        (lambda: decompose([0.5], [0.5, 0.6]), "weak: 2 rows, but student has 1"),
        (lambda: across_seeds([0.5, 0.6]), r"p_correct: expected \[seeds, rows\]"),
        (lambda: across_seeds([[0.5, 0.6]]), "at least two seeds"),
    ],
)
def test_bad_columns_are_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
