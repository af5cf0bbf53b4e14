"""Squared error taken apart: bias, variance and what student and weak model have in common.

Everything is oriented to the truth, so the target is 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.regions import same_rows
from w2sd.metrics.statistics import Column, as_column


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
