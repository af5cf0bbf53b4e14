"""Whether confidences mean what they say: calibration error, Brier score, ranking, a temperature that mends it, and
squared error taken apart into bias, variance and what student and weak model have in common.

Everything is oriented to the truth, so the target is 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.accuracy import correctness
from w2sd.metrics.regions import same_rows
from w2sd.predictions import Column, as_column, confidences


class Decomposition(NamedTuple):
    """Risks R = mean (p - 1)^2 = bias^2 + variance of student and weak model, and how the two go together."""

    risk_student: float
    bias_student: float
    variance_student: float
    risk_weak: float
    bias_weak: float
    variance_weak: float
    covariance: float
    correlation: float | None  # None where one of the two does not vary
    misfit: float  # mean (student - weak)^2


class Seeds(NamedTuple):
    """Per row, over seeds: squared bias and variance, which sum to the mean squared error, and disagreement."""

    bias2: Column
    variance: Column
    disagreement: Column  # of two different seeds the chance that just one is right


def ece(p_correct: ArrayLike, n_bins: int = 10) -> float:
    """The expected calibration error: how far accuracy is from confidence, bin by bin (Guo et al. 2017, eq. 3).

    sum_b (n_b / n) |acc_b - conf_b|, with the confidence max(p, 1 - p) in the answer that is preferred, in bins of
    equal width from 1/2 to 1, lower edges included.

    >>> round(ece([0.8, 0.8, 0.8, 0.2]), 12)
    0.05
    """
    if n_bins < 1:
        raise ValueError(f"n_bins: expected at least 1, got {n_bins}")
    p = _some("p_correct", confidences("p_correct", p_correct))
    confidence = np.maximum(p, 1 - p)
    bins = np.searchsorted(np.linspace(0.5, 1, n_bins + 1)[1:-1], confidence, side="right")
    return float(np.abs(np.bincount(bins, weights=correctness(p) - confidence)).sum()) / len(p)


def brier(p_correct: ArrayLike) -> float:
    """The mean squared distance from certainty of the truth (Brier 1950): (1/n) sum_i (1 - p_i)^2.

    >>> round(brier([0.9, 0.5, 0.2]), 12)
    0.3
    """
    return float(((1 - _some("p_correct", confidences("p_correct", p_correct))) ** 2).mean())


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The chance that a positive row scores above a negative one, ties half; None if all rows are of one kind.

    (sum of the ranks of positives - n1 (n1 + 1) / 2) / (n1 n0), with average ranks (Mann & Whitney 1947).

    >>> auroc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    0.75
    """
    positive, ranks = np.asarray(labels, dtype=np.bool_), average_ranks(scores)
    if positive.shape != ranks.shape:
        raise ValueError(f"labels: shape {positive.shape}, but scores has {ranks.shape}")
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    return (float(ranks[positive].sum()) - n1 * (n1 + 1) / 2) / (n1 * n0) if n1 and n0 else None


def average_ranks(values: ArrayLike) -> Column:
    """The rank of each value, from 1; equal values share the mean of their ranks.

    >>> average_ranks([3, 1, 3]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, codes, counts = np.unique(as_column("values", values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]


def temperature(margins: ArrayLike) -> float | None:
    """The T for which sigmoid(margin / T) has the least log-loss (Guo et al. 2017, section 4.2), margins to the truth.

    The loss mean(log(1 + exp(-a m))) is convex in a = 1 / T, so its slope is bisected. None where there is no best
    T: with no margin below 0 surer is always better, and with a mean not above 0 no confidence is better than none.
    """
    m = _some("margins", as_column("margins", margins))
    if not np.isfinite(m).all():
        raise ValueError("margins: expected finite numbers")
    if not (m < 0).any() or m.mean() <= 0:
        return None

    def slope(a: float) -> float:
        return -float((m * (1 - np.tanh(a * m / 2))).mean())  # twice the slope: sigmoid(-x) = (1 - tanh(x / 2)) / 2

    low, high = 0.0, 1 / float(np.abs(m).max())
    while slope(high) < 0:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def rescale(margins: ArrayLike, temperature: float) -> Column:
    """Confidences at a temperature, sigmoid(margin / T): what temperature-scaled regions are made of.

    >>> rescale([0.0, 2.0], 2.0).round(6).tolist()
    [0.5, 0.731059]
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    return (1 + np.tanh(as_column("margins", margins) / temperature / 2)) / 2


def decompose(student: ArrayLike, weak: ArrayLike) -> Decomposition:
    """Bias, variance, covariance and misfit across rows, moments with n in the denominator.

    R_s = R_w + misfit + 2 mean((w - 1)(s - w)); for the projection of weak labels on a convex class that holds the
    truth, the student gains its misfit: R_s <= R_w - misfit (Charikar et al. 2024, arXiv 2405.15116, theorem 1).
    """
    s, w = as_column("student", student), as_column("weak", weak)
    same_rows(student=s, weak=w)
    if not len(s):
        raise ValueError("student: expected at least one row")
    covariance = float(((s - s.mean()) * (w - w.mean())).mean())
    scale = math.sqrt(float(s.var()) * float(w.var()))
    return Decomposition(
        *_moments(s),
        *_moments(w),
        covariance=covariance,
        correlation=covariance / scale if scale else None,
        misfit=float(((s - w) ** 2).mean()),
    )


def across_seeds(p_correct: ArrayLike) -> Seeds:
    """Bias, variance (n in the denominator) and disagreement of each row, from confidences [seeds, rows].

    disagreement = 2 k (J - k) / (J (J - 1)) for k of J seeds right (at least 1/2): unbiased for two new seeds.
    """
    p = np.asarray(p_correct, dtype=np.float64)
    if p.ndim != 2 or len(p) < 2:
        raise ValueError(f"p_correct: expected [seeds, rows] with at least two seeds, got shape {p.shape}")
    n_seeds, right = len(p), (p >= 0.5).sum(axis=0)
    disagreement = 2 * right * (n_seeds - right) / (n_seeds * (n_seeds - 1))
    return Seeds((p.mean(axis=0) - 1) ** 2, p.var(axis=0), disagreement)


def _moments(p: Column) -> tuple[float, float, float]:
    return float(((p - 1) ** 2).mean()), float(p.mean()) - 1, float(p.var())


def _some(name: str, column: Column) -> Column:
    if not len(column):
        raise ValueError(f"{name}: expected at least one row")
    return column
