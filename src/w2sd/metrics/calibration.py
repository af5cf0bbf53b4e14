"""Whether confidences mean what they say: calibration error, Brier score, ranking, a temperature that mends it, and
squared error taken apart into bias, variance and what student and weak model have in common.

Everything is oriented to the truth, so the target is 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.accuracy import correctness
from w2sd.predictions import Column


def ece(p_correct: ArrayLike, n_bins: int = 10) -> float:
    """The expected calibration error: how far accuracy is from confidence, bin by bin (Guo et al. 2017, eq. 3).

    sum_b (n_b / n) |acc_b - conf_b|, with the confidence max(p, 1 - p) in the answer that is preferred, in bins of
    equal width from 1/2 to 1, lower edges included.

    >>> round(ece([0.8, 0.8, 0.8, 0.2]), 12)
    0.05
    """
    p = np.asarray(p_correct)
    confidence = np.maximum(p, 1 - p)
    bins = np.searchsorted(np.linspace(0.5, 1, n_bins + 1)[1:-1], confidence, side="right")
    return float(np.abs(np.bincount(bins, weights=correctness(p) - confidence)).sum()) / len(p)


def brier(p_correct: ArrayLike) -> float:
    """The mean squared distance from certainty of the truth (Brier 1950): (1/n) sum_i (1 - p_i)^2.

    >>> round(brier([0.9, 0.5, 0.2]), 12)
    0.3
    """
    return float(((1 - np.asarray(p_correct)) ** 2).mean())


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The chance that a positive row scores above a negative one, ties half; None if all rows are of one kind.

    (sum of the ranks of positives - n1 (n1 + 1) / 2) / (n1 n0), with average ranks (Mann & Whitney 1947).

    >>> auroc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    0.75
    """
    from scipy.stats import rankdata

    positive, ranks = np.asarray(labels, dtype=np.bool_), rankdata(scores)
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    return (float(ranks[positive].sum()) - n1 * (n1 + 1) / 2) / (n1 * n0) if n1 and n0 else None


def temperature(margins: ArrayLike) -> float | None:
    """The T for which sigmoid(margin / T) has the least log-loss (Guo et al. 2017, section 4.2), margins to the truth.

    The loss mean(log(1 + exp(-a m))) is convex in a = 1 / T, so its slope is bisected. None where there is no best
    T: with no margin below 0 surer is always better, and with a mean not above 0 no confidence is better than none.
    """
    m = np.asarray(margins, dtype=np.float64)
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
    return (1 + np.tanh(np.asarray(margins) / temperature / 2)) / 2


def decompose(student: ArrayLike, weak: ArrayLike) -> dict[str, float | None]:
    """Risks R = mean (p - 1)^2 = bias^2 + variance of student and weak model, and how the two go together.

    Moments have n in the denominator; the correlation is None where one of the two does not vary. The misfit is
    mean (s - w)^2, and R_s = R_w + misfit + 2 mean((w - 1)(s - w)); for the projection of weak labels on a convex class
    that holds the truth, the student gains its misfit: R_s <= R_w - misfit (Charikar et al. 2024, arXiv 2405.15116,
    theorem 1).
    """
    s, w = np.asarray(student), np.asarray(weak)
    covariance = float(((s - s.mean()) * (w - w.mean())).mean())
    scale = math.sqrt(float(s.var()) * float(w.var()))
    parts: dict[str, float | None] = {}
    for role, p in {"student": s, "weak": w}.items():
        parts[f"risk_{role}"] = float(((p - 1) ** 2).mean())
        parts |= {f"bias_{role}": float(p.mean()) - 1, f"variance_{role}": float(p.var())}
    parts |= {"covariance": covariance, "correlation": covariance / scale if scale else None}
    return parts | {"misfit": float(((s - w) ** 2).mean())}


def across_seeds(p_correct: ArrayLike) -> dict[str, Column]:
    """Squared bias and variance of each row, which sum to its mean squared error, and disagreement: of [seeds, rows].

    The variance has n in the denominator. Disagreement is the chance that just one of two different seeds is right,
    2 k (J - k) / (J (J - 1)) for k of J seeds right (at least 1/2): unbiased for two new seeds.
    """
    p = np.asarray(p_correct)
    n_seeds, right = len(p), (p >= 0.5).sum(axis=0)
    disagreement = 2 * right * (n_seeds - right) / (n_seeds * (n_seeds - 1))
    return {"bias2": (p.mean(axis=0) - 1) ** 2, "variance": p.var(axis=0), "disagreement": disagreement}
