"""Calibration: figures by hand, and a temperature that is the best one."""

from __future__ import annotations

import numpy as np
import pytest

from w2sd.metrics.regions import regions
from w2sd.metrics.robustness import (
    across_seeds,
    brier,
    decompose,
    ece,
    rescale,
    temperature,
)


def test_ece_by_hand() -> None:
    # Bins [.5,.6): one tie, confidence .5, half right. [.9,1]: .95 right, .9 right, and .92 wrong.
    p = [0.5, 0.95, 0.9, 0.08]
    assert ece(p, n_bins=5) == pytest.approx((0 + abs(2 - (0.95 + 0.9 + 0.92))) / 4, abs=1e-12)
    assert ece([1.0, 1.0, 0.0, 0.0], n_bins=10) == pytest.approx(0.5, abs=1e-12)


def test_ece_vanishes_where_confidences_are_honest() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, size=200_000)
    honest = np.where(rng.random(200_000) < confidence, confidence, 1 - confidence)
    assert ece(honest) < 0.01
    assert ece(np.where(honest > 0.5, 0.99, 0.01)) > 0.2


def test_the_brier_score_is_the_mean_squared_distance_from_the_truth() -> None:
    assert brier([1.0, 0.0, 0.5]) == pytest.approx((0 + 1 + 0.25) / 3, abs=1e-12)
    # The same in slots, where the target is 0 or 1.
    rng = np.random.default_rng(2)
    first, target = rng.random(100), rng.random(100) < 0.5
    assert brier(np.where(target, first, 1 - first)) == pytest.approx(((first - target) ** 2).mean(), abs=1e-12)


def log_loss(margins: np.ndarray, temperature: float) -> float:
    return float(np.logaddexp(0, -margins / temperature).mean())


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(true: float) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(0, 2, size=50_000)
    margins = true * np.where(rng.random(50_000) < 1 / (1 + np.exp(-z)), z, -z)
    found = temperature(margins)
    assert found == pytest.approx(true, rel=0.05)
    assert found is not None
    for other in (found * 1.001, found / 1.001):
        assert log_loss(margins, found) < log_loss(margins, other)
    assert temperature(10 * margins) == pytest.approx(10 * found, rel=1e-9)


@pytest.mark.parametrize("margins", [[1.0, 2.0], [0.0, 0.0], [1.0, -1.0], [-2.0, 1.0], [0.0, 3.0], [-1.0]])
def test_where_no_temperature_is_best_there_is_none(margins: list[float]) -> None:
    assert temperature(margins) is None


def test_margins_of_very_different_sizes_have_a_temperature() -> None:
    margins = np.array([1e-6, -1e-7, 1e5, -1e-3])
    found = temperature(margins)
    assert found is not None
    assert log_loss(margins, found) <= min(log_loss(margins, found * x) for x in (0.99, 1.01))


def test_rescaled_confidences_make_other_regions_but_no_other_decisions() -> None:
    margins = np.linspace(-4, 4, 81)
    cooler = rescale(margins, 3.0)
    assert ((cooler >= 0.5) == (margins >= 0)).all()
    assert rescale(margins, 1.0) == pytest.approx(1 / (1 + np.exp(-margins)), abs=1e-15)
    assert (regions(cooler, cooler) == 0).sum() < (regions(rescale(margins, 1.0), cooler) == 1).sum()
    assert rescale([-1e4, 1e4, np.inf], 1.0).tolist() == [0, 1, 1]


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
    assert decompose(STUDENT, WEAK) == pytest.approx(V30, abs=1e-9)


def test_seeds_of_the_worked_example() -> None:
    found = across_seeds([[0.9, 0.2, 0.6], [0.8, 0.4, 0.7], [0.7, 0.3, 0.2]])
    for name, expected in V31.items():
        assert found[name] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("seed", range(5))
def test_identities(seed: int) -> None:
    s, w = np.random.default_rng(seed).random((2, 200))
    d = decompose(s, w)
    assert d["risk_student"] == pytest.approx(d["bias_student"] ** 2 + d["variance_student"], abs=1e-12)
    assert d["risk_weak"] == pytest.approx(d["bias_weak"] ** 2 + d["variance_weak"], abs=1e-12)
    assert d["risk_student"] == pytest.approx(d["risk_weak"] + d["misfit"] + 2 * ((w - 1) * (s - w)).mean(), abs=1e-12)
    means = (s.mean() - w.mean()) ** 2
    assert d["misfit"] == pytest.approx(
        means + d["variance_student"] + d["variance_weak"] - 2 * d["covariance"], abs=1e-12
    )
    seeds = across_seeds([s, w])
    assert seeds["bias2"] + seeds["variance"] == pytest.approx(((s - 1) ** 2 + (w - 1) ** 2) / 2, abs=1e-12)


def test_disagreement_counts_pairs_of_seeds() -> None:
    right = np.random.default_rng(1).random((5, 40)) < 0.5
    pairs = [right[i] != right[j] for i in range(5) for j in range(i)]
    assert across_seeds(np.where(right, 0.7, 0.2))["disagreement"] == pytest.approx(np.mean(pairs, axis=0), abs=1e-12)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert decompose([0.5, 0.5], [0.2, 0.9])["correlation"] is None
