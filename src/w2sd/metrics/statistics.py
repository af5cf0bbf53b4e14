"""How sure a figure is: standard errors, intervals and exact tests for rows that come in clusters.

Every estimate is a mean over rows, or is made of such means; rows of
one cluster are not independent, so standard errors and resamples are those of whole clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.predictions import Column

Metrics = dict[str, float | int | str | None]  # the only strings are reasons why a figure is None

# [rows, samples] how often each row is in each sample. int8: overflow needs a cluster drawn 128 times (p < 1e-200); a
# quarter of int32's memory, a third of its time.
Weights = NDArray[np.int8]

_LEVEL = 0.95  # of intervals
_BLOCK = 2**24  # weights at a time, a byte each; one sample of more rows than this is a block by itself
_KEPT = 2**26  # bytes of draws that are kept for the next figures of a file, which are many


def mcnemar_exact(a: int, b: int) -> float:
    """Two-sided exact p that a against b discordant rows come from a fair coin (McNemar 1947, exact form).

    p = min(1, 2 sum_{k <= min(a, b)} C(a + b, k) / 2^(a + b)). It takes rows for independent.

    >>> round(mcnemar_exact(40, 25), 12)
    0.081681533942
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(a, b), a + b, 0.5)))


def clustered_standard_error(values: ArrayLike, clusters: ArrayLike) -> float | None:
    """The cluster-robust standard error of a mean; None for fewer than two clusters, which say nothing about it.

    se^2 = G / (G - 1) * sum_g (sum_{i in g} (x_i - mean))^2 / n^2 (Liang & Zeger 1986, with the usual factor for G
    clusters). With one row per cluster it is that of independent rows, sd / sqrt(n) with n - 1 in sd.

    >>> clustered_standard_error([1, 1, 0, 0], ["a", "a", "b", "b"])
    0.5
    """
    index = np.unique(clusters, return_inverse=True)[1]
    sums, rows = np.bincount(index, weights=np.asarray(values)), np.bincount(index)
    n_clusters, n, total = len(rows), rows.sum(), sums.sum()
    if n_clusters < 2:
        return None
    # Multiplied by n, so that sums of ones and halves stay exact and "does not vary" is exactly 0.
    residuals = sums * n - rows * total
    return float(np.sqrt(n_clusters / (n_clusters - 1) * (residuals**2).sum()) / n**2)


def clustered_bootstrap(
    columns: Mapping[str, Column], clusters: NDArray[np.intp], *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Column]:
    """Means of each column over resampled clusters: those of `resample`, the same for all columns (paired)."""
    blocks = resample(clusters, n_resamples, seed)
    next(blocks)  # the rows as they are
    draws = zip(*([_means(column, weights) for column in columns.values()] for weights in blocks), strict=True)
    return {name: np.concatenate(parts) for name, parts in zip(columns, draws, strict=True)}


def resample(clusters: NDArray[np.intp], n_resamples: int, seed: int) -> Iterator[Weights]:
    """The rows as they are, then resamples of their clusters, in blocks that memory holds.

    This is the one bootstrap: every interval over the rows of a file is made of these weights, so that all figures are
    paired. Clusters are codes from 0 on.
    """
    n_clusters, block = int(clusters.max()) + 1, max(1, _BLOCK // len(clusters))
    yield np.ones((len(clusters), 1), dtype=np.int8)
    if n_clusters * n_resamples > _KEPT:
        blocks = _draw(n_clusters, n_resamples, seed, block)
    else:
        drawn = _drawn(n_clusters, n_resamples, seed)
        blocks = (drawn[:, start : start + block] for start in range(0, n_resamples, block))
    for times in blocks:
        yield times[clusters]


@lru_cache(maxsize=1)
def _drawn(n_clusters: int, n_resamples: int, seed: int) -> Weights:
    """All draws of `_draw` at once: what is drawn depends on no row, so all figures of a file share it."""
    return np.concatenate(list(_draw(n_clusters, n_resamples, seed, max(1, _BLOCK // n_clusters))), axis=1)


def _draw(n_clusters: int, n_resamples: int, seed: int, block: int) -> Iterator[Weights]:
    """How often each cluster is drawn in each resample, [clusters, resamples]; the size of blocks changes nothing."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, block):
        drawn = rng.integers(n_clusters, size=(min(block, n_resamples - start), n_clusters))
        times = np.stack([np.bincount(sample, minlength=n_clusters) for sample in drawn], dtype=np.int8)
        yield np.ascontiguousarray(times.T)


def weigh(rows: NDArray[np.bool_], codes: NDArray[np.intp], n_codes: int, weights: Weights | None) -> Column:
    """The weight of the marked rows with each code, [codes, samples]."""
    if weights is None:
        return np.bincount(codes[rows], minlength=n_codes).astype(np.float64)[:, None]
    totals = np.zeros((n_codes, weights.shape[1]))
    chosen = np.flatnonzero(rows)
    chosen = chosen[np.argsort(codes[chosen], kind="stable")]
    present, starts = np.unique(codes[chosen], return_index=True)
    for code, same in zip(present, np.split(chosen, starts)[1:], strict=True):  # ten times as fast as reduceat
        totals[code] = weights[same].sum(axis=0, dtype=np.int32)
    return totals


def interval(draws: ArrayLike) -> tuple[float, float] | tuple[None, None]:
    """The 95% percentile interval of the defined draws; NaN draws are left out.

    >>> [round(end, 9) for end in interval([0.0, float("nan"), 40.0])]
    [1.0, 39.0]
    """
    column = np.asarray(draws, dtype=np.float64)
    defined = column[~np.isnan(column)]
    if not len(defined):
        return None, None
    lo, hi = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(lo), float(hi)


def bounds(name: str, draws: Column) -> Metrics:
    """The interval of the draws; None where it has no width, for then it says nothing about the error."""
    lo, hi = interval(draws)
    return {f"{name}_lo": None, f"{name}_hi": None} if lo == hi else {f"{name}_lo": lo, f"{name}_hi": hi}


def _means(column: Column, weights: Weights) -> Column:
    """The mean of a column in each sample, whatever the order of its rows: equal values are counted first."""
    values, codes = np.unique(column, return_inverse=True)
    counts = weigh(np.ones(len(column), dtype=np.bool_), codes, len(values), weights)
    means: Column = values @ counts / weights.sum(axis=0, dtype=np.int32)
    return means


class Mean(NamedTuple):
    """A mean with its 95% t interval."""

    value: float
    lo: float | None = None
    hi: float | None = None


def mean(values: Sequence[float], scale: Scale) -> Mean:
    """The mean of independent values; one value, or one that all share, has no spread to make an interval from.

    An interval is cut at the ends of its figure's scale. The true mean is not beyond them, so this costs no coverage.

    >>> from w2sd.metrics.statistics import SHARE
    >>> [round(end, 3) for end in mean([0.4, 0.5, 0.6], SHARE)], mean([0.5, 0.5], SHARE)
    ([0.5, 0.252, 0.748], Mean(value=0.5, lo=None, hi=None))
    >>> mean([0.5, 0.8], SHARE)
    Mean(value=0.65, lo=0.0, hi=1.0)
    """
    n, middle = len(values), math.fsum(values) / len(values)
    if len(set(values)) == 1:
        return Mean(middle)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    reach = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Mean(middle, max(middle - reach, scale.lowest), min(middle + reach, scale.highest))


@cache
def t_quantile(df: int) -> float:
    """The 97.5% quantile of Student's t for whole degrees of freedom.

    >>> [round(t_quantile(df), 3) for df in (1, 2, 3, 4, 100)]
    [12.706, 4.303, 3.182, 2.776, 1.984]
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def t_tail(t: float, df: int) -> float:
    """P(T > t) of Student's t.

    >>> round(t_tail(2.0, 4), 6), round(t_tail(-1.0, 3), 6)
    (0.058058, 0.804499)
    """
    from scipy.special import stdtr

    return float(stdtr(df, -t))


class Scale(NamedTuple):
    """The smallest and the largest value that a figure can have."""

    lowest: float
    highest: float


SHARE, DIFFERENCE, POSITIVE = Scale(0.0, 1.0), Scale(-1.0, 1.0), Scale(0.0, math.inf)
UNBOUNDED = Scale(-math.inf, math.inf)

# By the whole name, or by the first word of it that stands here. What does not, PGR for one, has no bounds.
_SCALES = {
    SHARE: "accuracy agreement rate brier ece legal error score base_rate blind_spot blind_spot_conditional churn "
    "length_matched margin_matched seed_null q10 q25 q50 q75 q90 truth kept_truth best labels ended repetition "
    "distinct bias2 disagreement misfit risk_student risk_weak "
    "pulled",
    DIFFERENCE: "gain pgr_gap gap net change excess excess_phi blind_spot_change correlation",
    POSITIVE: "n steps n_all flips reverse lift odds_ratio rate_ratio rate_ratio_mh risk_ratio temperature",
    Scale(-2.0, 2.0): "did",
    Scale(0.0, 0.25): "variance_student variance_weak variance/seeds/variance",  # of confidences, which are shares
    Scale(-0.25, 0.25): "covariance",
    Scale(-1.0, 0.0): "bias_student bias_weak",
    UNBOUNDED: "null",  # what follows is the name of a placebo, which is anybody's
}
_SCALE_OF = {word: scale for scale, words in _SCALES.items() for word in words.split()}


def scale_of(name: str) -> Scale:
    """The scale of a metric by its name; `UNBOUNDED` where it has no bounds.

    >>> [tuple(scale_of(name)) for name in ("accuracy/weak", "gain_mcnemar_p", "gain", "deception/did", "tax/flips")]
    [(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (-2.0, 2.0), (0.0, inf)]
    >>> scale_of("pgr") == scale_of("deception/excess_flips") == UNBOUNDED
    True
    """
    if is_p_value(name):
        return SHARE
    return next((_SCALE_OF[word] for word in (name, *name.split("/")) if word in _SCALE_OF), UNBOUNDED)


def is_p_value(name: str) -> bool:
    """Whether a figure is a p value.

    >>> is_p_value("tax/mcnemar_p"), is_p_value("deception/p_region"), is_p_value("pgr")
    (True, True, False)
    """
    return "/null/" not in name and "p" in name.rpartition("/")[2].split("_")
