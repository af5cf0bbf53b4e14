"""Least-norm interpolation of Gaussian rows with a spectrum of two levels, through Gram matrices alone.

With labels t a least-norm interpolator is f(x) = sum_i w_i <x_i, x> where w = (X X')^-1 t. On new rows

    corr(f, x_1) = lambda_1 sum_i w_i z_i1 / sqrt(w' X diag(lambda) X' w),      error = arccos(corr) / pi

with z the directions at unit variance. Rows thus enter through Gram matrices of the directions of one level alone,
which are Wishart matrices, and these are drawn without ever drawing a direction: the cost does not depend on how many
directions there are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from w2sd.theory.base import Values


class BiLevel(NamedTuple):
    """A spectrum of two levels: s of d directions are favoured."""

    d: float
    s: float
    a: float
    favoured: float
    others: float


def bi_level(n: int, p: float, q: float, r: float) -> BiLevel:
    """The spectrum of the bi-level ensemble: d = n^p, s = n^r, a = n^-q, and the two levels.

    The s favoured directions have the variance a d / s, the others (1 - a) d / (d - s), so that their sum is d.
    """
    return levels(n**p, n**r, n**-q)


def linear_score_error(snr: float) -> float:
    """The error of the sign of a linear score, by its signal-to-noise ratio: 1/2 - arctan(snr) / pi.

    >>> linear_score_error(1.0)
    0.25
    """
    return 0.5 - math.atan(snr) / math.pi


def sign_error(correlation: float) -> float:
    """The same by the correlation of score and signal: arccos(rho) / pi, where snr = rho / sqrt(1 - rho^2).

    >>> round(sign_error(0.5), 12)
    0.333333333333
    """
    return math.acos(correlation) / math.pi


class Seen(NamedTuple):
    """Rows as one model sees them: x_1, and Gram matrices over each level's directions, all at unit variance."""

    signal_N: Values
    favoured_NN: Values  # with x_1
    others_NN: Values
    spectrum: BiLevel

    def first(self, m: int) -> Seen:
        return Seen(self.signal_N[:m], self.favoured_NN[:m, :m], self.others_NN[:m, :m], self.spectrum)

    def gram(self, power: int = 1) -> Values:
        """X diag(lambda)^(power - 1) X'."""
        return self.spectrum.favoured**power * self.favoured_NN + self.spectrum.others**power * self.others_NN

    def interpolate(self, labels_NK: Values) -> Values:
        """The weights of rows in the least-norm interpolator of each column of labels."""
        return np.asarray(np.linalg.solve(self.gram(), labels_NK), dtype=np.float64)

    def errors(self, weights_NK: Values) -> list[float]:
        """How often such an interpolator is wrong about the sign of x_1, on new rows."""
        spread_K = np.einsum("ik,ik->k", weights_NK, self.gram(power=2) @ weights_NK)
        correlation_K = self.spectrum.favoured * (self.signal_N @ weights_NK) / np.sqrt(spread_K)
        return [sign_error(float(each)) for each in correlation_K]


def wishart(rng: np.random.Generator, rows: int, directions: int) -> Values:
    """Z Z' for standard normal Z [rows, directions]; by Bartlett's decomposition where that is the shorter way."""
    if directions < rows:
        z = rng.standard_normal((rows, directions))
        return z @ z.T
    root = np.tril(rng.standard_normal((rows, rows)), -1)
    np.fill_diagonal(root, np.sqrt(rng.chisquare(directions - np.arange(rows))))
    return root @ root.T


def levels(d: float, s: float, a: float) -> BiLevel:
    """The spectrum of d directions in which s have the share a of the variance."""
    return BiLevel(d, s, a, a * d / s, (1 - a) * d / (d - s))
