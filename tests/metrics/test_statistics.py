"""Standard errors, intervals and exact tests against slow references that share no code with them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from w2sd.metrics import statistics
from w2sd.metrics.statistics import (
    DIFFERENCE,
    POSITIVE,
    SHARE,
    UNBOUNDED,
    Scale,
    clustered_bootstrap,
    clustered_standard_error,
    interval,
    mcnemar_exact,
    scale_of,
)


def clustered_rows(rng: np.random.Generator, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows right or wrong in clusters of 1 to 4, alike within a cluster; every row is right with probability .7."""
    sizes = rng.integers(1, 5, size=n_clusters)
    clusters = np.repeat(np.arange(n_clusters), sizes)
    whole, alone = rng.random(n_clusters) < 0.7, rng.random(len(clusters)) < 0.7
    return np.where(rng.random(len(clusters)) < 0.5, whole[clusters], alone).astype(float), clusters


def naive_bootstrap(columns: list[np.ndarray], clusters: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Draw clusters one by one with replacement, collect their rows, take the means."""
    rng, names = np.random.default_rng(seed), np.unique(clusters)
    rows_of = {name: np.flatnonzero(clusters == name) for name in names}
    draws = []
    for _ in range(n_resamples):
        rows = np.concatenate([rows_of[name] for name in rng.choice(names, size=len(names))])
        draws.append([column[rows].mean() for column in columns])
    return np.array(draws)


def test_reference_vector_v32() -> None:
    assert mcnemar_exact(40, 25) == pytest.approx(0.08168153394154005, abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 8), (5, 5), (6, 5), (40, 25), (300, 412), (5000, 4800)])
def test_mcnemar_is_the_exact_binomial_sum(a: int, b: int) -> None:
    n = a + b
    tail = sum(itertools.accumulate(range(min(a, b)), lambda term, k: term * (n - k) // (k + 1), initial=1))
    expected = float(min(Fraction(1), Fraction(2 * tail, 2**n)))
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_is_stable_for_large_counts() -> None:
    a, b = 100_000, 99_000
    normal = math.erfc((a - b - 1) / math.sqrt(2 * (a + b)))  # with continuity correction
    assert mcnemar_exact(a, b) == pytest.approx(normal, rel=1e-3)
    assert mcnemar_exact(100_000, 100_000) == 1
    assert 0 <= mcnemar_exact(100_000, 0) < 1e-300


def test_with_a_row_in_each_cluster_the_standard_error_is_the_textbook_one() -> None:
    x = np.random.default_rng(0).normal(size=37)
    found = clustered_standard_error(x, [f"row {i}" for i in range(37)])
    assert found == pytest.approx(x.std(ddof=1) / math.sqrt(37), rel=1e-12)


def test_the_interval_of_a_mean_has_that_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=37)
    value, lo, hi = statistics.mean(x.tolist(), UNBOUNDED)
    error = clustered_standard_error(x, range(37))
    assert error is not None
    reach = statistics.t_quantile(36) * error
    assert value == pytest.approx(x.mean(), rel=1e-12)
    assert (lo, hi) == pytest.approx((value - reach, value + reach), rel=1e-12)
    assert statistics.mean([0.3], SHARE) == statistics.mean([0.3] * 10, SHARE) == (0.3, None, None)


@pytest.mark.parametrize(
    ("values", "scale", "ends"),
    [
        ([0.5, 0.8], SHARE, (0, 1)),  # by t alone [-1.26, 2.56]
        ([0.9, 0.95, 0.99], SHARE, (pytest.approx(0.835, abs=1e-3), 1)),
        ([-0.2, 0.9], DIFFERENCE, (-1, 1)),
        ([3, 90], POSITIVE, (0, pytest.approx(599.2, abs=0.1))),
    ],
)
def test_an_interval_does_not_leave_the_scale_of_its_figure(values: list[float], scale: Scale, ends: Any) -> None:
    assert statistics.mean(values, scale)[1:] == ends


def test_every_figure_with_an_interval_lies_on_its_scale() -> None:
    bounded = [
        "accuracy/weak",
        "agreement/student/weak_wrong",
        "tax/rate",
        "deception/score",
        "region/ku/rate",
        "tax/churn",
    ]
    assert all(scale_of(name) == SHARE for name in [*bounded, "deception_true/base_rate", "deception/p_region"])
    assert all(scale_of(name) == DIFFERENCE for name in ("gain", "pgr_gap", "tax/net", "deception/excess"))
    unbounded = (
        "pgr",
        "deception/excess_flips",
        "deception/excess_flips_per_1000",
        "deception/null/score",
        "deception/net_score",
    )
    assert all(scale_of(name) == UNBOUNDED for name in unbounded)


def test_clustered_standard_error_is_the_sandwich() -> None:
    x, clusters = clustered_rows(np.random.default_rng(1), 40)
    squares = sum((x[clusters == g] - x.mean()).sum() ** 2 for g in range(40))
    assert clustered_standard_error(x, clusters) == pytest.approx(math.sqrt(40 / 39 * squares) / len(x), rel=1e-12)


def test_whole_clusters_that_agree_count_as_one_row() -> None:
    x = np.array([1, 0, 0, 1, 1, 0, 1.0])
    tripled = clustered_standard_error(np.repeat(x, 3), np.repeat(np.arange(7), 3))
    assert tripled == pytest.approx(clustered_standard_error(x, range(7)), rel=1e-12)


def test_standard_errors_know_when_they_know_nothing() -> None:
    assert clustered_standard_error([1, 0, 1], ["a", "a", "a"]) is None
    assert clustered_standard_error([1, 0, 0] * 5, np.repeat(np.arange(5), 3)) == 0  # a third, in every cluster


def test_bootstrap_probabilities_are_exact_on_three_clusters() -> None:
    # Two clusters share a cell, all have different names and sizes 2, 2, 1: 27 equally likely resamples.
    x, clusters = np.array([1, 0, 0, 1, 1.0]), np.array([1, 1, 0, 0, 2])
    sums = {"a": (1, 2), "b": (1, 2), "c": (1, 1)}
    outcomes = Counter(
        sum(sums[c][0] for c in draw) / sum(sums[c][1] for c in draw) for draw in itertools.product("abc", repeat=3)
    )
    n_resamples = 200_000
    draws = Counter(clustered_bootstrap({"x": x}, clusters, n_resamples=n_resamples, seed=3)["x"].tolist())
    assert set(draws) == set(outcomes)
    for mean, ways in outcomes.items():
        p = ways / 27
        assert draws[mean] / n_resamples == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n_resamples))


def test_bootstrap_has_the_distribution_of_the_naive_one() -> None:
    rng = np.random.default_rng(4)
    x, clusters = clustered_rows(rng, 30)
    y = np.where(rng.random(len(x)) < 0.6, x, rng.normal(size=len(x)))
    naive = naive_bootstrap([x, y], clusters, n_resamples=3000, seed=5)
    fast = np.column_stack(list(clustered_bootstrap({"x": x, "y": y}, clusters, n_resamples=3000, seed=6).values()))
    for column in range(2):
        both = np.sort(np.concatenate([naive[:, column], fast[:, column]]))
        below = [np.searchsorted(np.sort(d[:, column]), both, side="right") / 3000 for d in (naive, fast)]
        assert np.abs(below[0] - below[1]).max() < 1.63 * math.sqrt(2 / 3000)  # Kolmogorov-Smirnov at .01
    # One resample for both columns: they move together as in the naive one.
    assert np.corrcoef(*fast.T)[0, 1] == pytest.approx(np.corrcoef(*naive.T)[0, 1], abs=0.05)


def test_bootstrap_agrees_with_the_analytic_standard_error() -> None:
    x, clusters = clustered_rows(np.random.default_rng(7), 400)
    draws = clustered_bootstrap({"x": x}, clusters, n_resamples=20_000)["x"]
    analytic = clustered_standard_error(x, clusters)
    assert analytic is not None
    assert draws.mean() == pytest.approx(x.mean(), abs=5 * analytic / math.sqrt(20_000) + analytic**2)
    assert draws.std() == pytest.approx(analytic, rel=0.03)


def test_bootstrap_intervals_cover_the_truth() -> None:
    rng, covered = np.random.default_rng(8), 0
    for _ in range(300):
        x, clusters = clustered_rows(rng, 120)
        lo, hi = interval(clustered_bootstrap({"x": x}, clusters, n_resamples=500)["x"])
        assert lo is not None
        assert hi is not None
        covered += lo <= 0.7 <= hi
    assert covered / 300 >= 0.92


def test_bootstrap_depends_on_seed_but_not_on_row_order() -> None:
    rng = np.random.default_rng(9)
    x, clusters = clustered_rows(rng, 50)
    order = rng.permutation(len(x))
    draws = clustered_bootstrap({"x": x}, clusters, seed=1)["x"]
    assert (draws == clustered_bootstrap({"x": x[order]}, clusters[order], seed=1)["x"]).all()
    assert (draws == clustered_bootstrap({"x": x}, clusters, seed=1)["x"]).all()
    assert (draws != clustered_bootstrap({"x": x}, clusters, seed=2)["x"]).any()


def test_there_is_one_bootstrap() -> None:
    x, clusters = clustered_rows(np.random.default_rng(12), 50)
    _, weights = statistics.resample(clusters, 100, seed=1)
    expected = [np.repeat(x, times).mean() for times in weights.T]
    assert clustered_bootstrap({"x": x}, clusters, n_resamples=100, seed=1)["x"] == pytest.approx(expected, abs=1e-12)


def test_bootstrap_in_blocks_is_the_same_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    x, clusters = clustered_rows(np.random.default_rng(10), 50)
    whole = clustered_bootstrap({"x": x}, clusters, n_resamples=100)["x"]
    monkeypatch.setattr("w2sd.metrics.statistics._BLOCK", 1000)
    monkeypatch.setattr("w2sd.metrics.statistics._KEPT", 0)
    assert (clustered_bootstrap({"x": x}, clusters, n_resamples=100)["x"] == whole).all()


def test_interval_leaves_undefined_draws_out() -> None:
    draws = np.random.default_rng(11).normal(size=999)
    full = interval(draws)
    assert full == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-12)
    assert interval(np.concatenate([[np.nan], draws, [np.nan, np.nan]])) == full
    assert interval([np.nan, np.nan]) == (None, None)
