"""Weak-to-strong generalisation by benign overfitting, after Wu & Sahai 2024 (arXiv 2410.04638).

    python experiments/theory/benign_overfitting.py

Rows x ~ N(0, diag(variances)) in d = n^p directions, s = n^r of them favoured; y = sign(x_1), and x_1 is favoured. The
weak model sees some favoured directions (x_1 among them) and some of the others, under a bi-level spectrum of its own
(p_w, q_w, r_w), and interpolates n true labels with least norm. The strong model sees all directions and interpolates,
with least norm too, the signs that the weak model gives to m = n^u other rows.

With labels t a least-norm interpolator is f(x) = sum_i w_i <x_i, x> where w = (X X')^-1 t. On new rows

    corr(f, x_1) = lambda_1 sum_i w_i z_i1 / sqrt(w' X diag(lambda) X' w),      error = arccos(corr) / pi

with z the directions at unit variance. Rows thus enter only through Gram matrices of the directions of one level. These
are Wishart matrices, which are drawn without drawing a direction: the cost does not depend on how many there are.

`expected` is our own leading-order calculation, for a weak model near chance and X X' near a multiple of the identity.
The conditions of the paper are known to us only as transcribed by a reader: `transcribed` is unverified.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from replicates import (
    CEILING,
    MUTED,
    RULE,
    SMALL,
    STUDENT,
    WEAK,
    Values,
    canvas,
    from_command_line,
    over_resamples,
    report_progress,
    save,
    show,
)
from w2sd.errors import require
from w2sd.metrics import statistics
from w2sd.metrics.statistics import Mean

SIGN = 2 / math.pi  # squared correlation of a Gaussian with its own sign
LEVEL = 0.25  # a student has made the transition where its error falls below this: its signal is as large as its noise
NORMAL = [NormalDist().inv_cdf((k + 0.5) / 200) for k in range(200)]  # quantiles, to integrate over a normal variable
MOST_ROWS = 4000  # pseudo-labels at most: Gram matrices of 128 MB


class BiLevel(NamedTuple):
    """A spectrum of two levels: s of d directions are favoured and have the share a of the variance, whose sum is d."""

    d: float
    s: float
    a: float

    @property
    def favoured(self) -> float:
        """The variance of a favoured direction."""
        return self.a * self.d / self.s

    @property
    def others(self) -> float:
        """The variance of any other direction."""
        return (1 - self.a) * self.d / (self.d - self.s)

    def fitted(self, m: float) -> float:
        """The share of a favoured direction's signal that m rows fit: the other directions act as a ridge."""
        return m * self.favoured / (m * self.favoured + (self.d - self.s) * self.others)


class Seen(NamedTuple):
    """Rows as one model sees them: x_1, and the Gram matrix over the directions of each level, at unit variance."""

    signal_N: Values
    favoured_NN: Values  # with x_1
    others_NN: Values
    spectrum: BiLevel

    def first(self, m: int) -> Seen:
        """The first m rows."""
        return Seen(self.signal_N[:m], self.favoured_NN[:m, :m], self.others_NN[:m, :m], self.spectrum)

    def gram(self, power: int = 1) -> Values:
        """X diag(lambda)^(power - 1) X'."""
        return self.spectrum.favoured**power * self.favoured_NN + self.spectrum.others**power * self.others_NN

    def interpolate(self, labels_NK: Values) -> Values:
        """The weights of rows in the least-norm interpolator of each column of labels."""
        return np.asarray(np.linalg.solve(self.gram(), labels_NK), dtype=np.float64)

    def errors(self, weights_NK: Values) -> Values:
        """How often such an interpolator is wrong about the sign of x_1, on new rows."""
        spread_K = np.einsum("ik,ik->k", weights_NK, self.gram(power=2) @ weights_NK)
        return sign_error(self.spectrum.favoured * (self.signal_N @ weights_NK) / np.sqrt(spread_K))


class Errors(NamedTuple):
    """Errors on new rows by n, replicate and u."""

    weak_NR: Values
    student_NRU: Values
    ceiling_NRU: Values  # of the student's rows with true labels


@dataclasses.dataclass(frozen=True)
class BenignOverfitting:
    """A sweep over u for several n. What changes between n tells a threshold from a slow improvement."""

    p: float = 4.0  # directions of the strong model: n^p
    q: float = 0.5  # share of the variance in favoured directions: n^-q
    r: float = 0.25  # favoured directions: n^r
    p_weak: float = 3.0  # the same for the weak model
    q_weak: float = 1.95
    r_weak: float = 0.25
    ns: tuple[int, ...] = (16, 81, 256)  # gold labels of the weak model
    us: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)  # n^u pseudo-labels
    replicates: int = 30

    def __post_init__(self) -> None:
        for p, q, r in (("p", "q", "r"), ("p_weak", "q_weak", "r_weak")):
            most = getattr(self, p) - getattr(self, r)
            require(0 < getattr(self, q) < most, q, getattr(self, q), f"above 0 and below {p} - {r} = {most:g}")
        for knob in ("ns", "us"):
            values = getattr(self, knob)
            is_rising = len(values) > 1 and values[0] > 0 and all(a < b for a, b in itertools.pairwise(values))
            require(is_rising, knob, values, "two rising numbers or more, above 0")
        n, u = self.ns[-1], self.us[-1]
        limit = min(self.p, math.log(MOST_ROWS, n))
        require(u < limit, "us", u, f"at most {limit:.2f}: n^u rows, fewer than {min(MOST_ROWS, n**self.p):,.0f}")
        for strong, weak in map(self.spectra, self.ns):
            inside = weak.s <= strong.s and weak.d - weak.s <= strong.d - strong.s
            require(inside, "p_weak", self.p_weak, "directions that the strong model has too, of either level")

    def spectra(self, n: int) -> tuple[BiLevel, BiLevel]:
        """The spectra of the strong and of the weak model, in whole directions."""
        strong = BiLevel(round(n**self.p), round(n**self.r), n**-self.q)
        return strong, BiLevel(round(n**self.p_weak), round(n**self.r_weak), n**-self.q_weak)

    @property
    def learns(self) -> float:
        """min(1 - r, p + 1 - 2 (q + r)): squared, the strong model's signal over noise grows by this power of n."""
        return min(1 - self.r, self.p + 1 - 2 * (self.q + self.r))

    @property
    def teaches(self) -> float:
        """The same of the weak model, (p_w + 1) - 2 (q_w + r_w); negative: it falls to chance as n grows."""
        return min(1 - self.r_weak, self.p_weak + 1 - 2 * (self.q_weak + self.r_weak))

    @property
    def threshold(self) -> float:
        """The u above which our leading order tends to no error and below which it tends to chance.

        The signal that n^u labels teach, over their sampling noise, is squared n^(u - 1 + learns + teaches).
        """
        return 1 - self.learns - min(0.0, self.teaches)

    @property
    def transcribed(self) -> float:
        """The u above which the paper promises success, as transcribed: u + learns > q_w + r_w. Unverified."""
        return self.q_weak + self.r_weak - self.learns

    def expected(self, n: int, u: float) -> tuple[float, float]:
        """The errors of weak model and student to leading order.

        The student's noise: sampling in favoured and in other directions, and what it was taught of the weak model's
        own noise in each. What it learns of x_1 is sampled too: of few labels it may have the wrong sign.
        """
        strong, weak = self.spectra(n)
        known = weak.fitted(n)
        parts = np.array([SIGN * known**2, (weak.s - 1) * known**2 / n, n / (weak.d - weak.s)])
        by_weak = mean_error(parts[0], (1 - SIGN) * known**2 / n, parts[1] + parts[2])
        signal, favoured, others = parts / parts.sum()
        m = n**u
        learnt, loose = strong.fitted(m), m / (strong.d - strong.s)
        noise = (strong.s - 1) * learnt**2 / m + loose + SIGN * (learnt**2 * favoured + loose**2 * others)
        taught = SIGN * signal * learnt**2
        return by_weak, mean_error(taught, (1 - SIGN * signal) * learnt**2 / m, noise)

    def simulate(self, seed: int) -> Errors:
        """The errors of every replicate; the same seed gives the same errors."""
        found = []
        for place, (n, replicate) in enumerate(itertools.product(self.ns, range(self.replicates)), start=1):
            found.append(self.replicate(n, np.random.default_rng([seed, n, replicate])))
            report_progress(place, len(self.ns) * self.replicates)
        weak, taught = (np.array(part) for part in zip(*found, strict=True))
        taught_NRU2 = taught.reshape(len(self.ns), self.replicates, len(self.us), 2)
        return Errors(weak.reshape(len(self.ns), self.replicates), taught_NRU2[..., 0], taught_NRU2[..., 1])

    def replicate(self, n: int, rng: np.random.Generator) -> tuple[float, list[Values]]:
        """The error of one weak model, and for each u those of its student and of that student's ceiling."""
        strong, weak = self.spectra(n)
        sizes = [round(n**u) for u in self.us]
        most = sizes[-1]
        signal_N = rng.standard_normal(n + most)  # first the rows with gold labels, then those the weak model labels
        favoured_NN = np.outer(signal_N, signal_N) + wishart(rng, n + most, int(weak.s) - 1)
        by_weak = Seen(signal_N, favoured_NN, wishart(rng, n + most, int(weak.d - weak.s)), weak)
        gold = by_weak.first(n)
        weights_N = gold.interpolate(np.sign(gold.signal_N))
        labels_M = np.sign(by_weak.gram()[n:, :n] @ weights_N)
        by_strong = Seen(
            signal_N[n:],
            favoured_NN[n:, n:] + wishart(rng, most, int(strong.s - weak.s)),
            by_weak.others_NN[n:, n:] + wishart(rng, most, int(strong.d - strong.s - (weak.d - weak.s))),
            strong,
        )
        taught = []
        for m in sizes:
            rows = by_strong.first(m)
            taught.append(rows.errors(rows.interpolate(np.stack([labels_M[:m], np.sign(rows.signal_N)], axis=1))))
        return float(gold.errors(weights_N[:, None])[0]), taught

    def table(self, errors: Errors) -> dict[str, Mean | str]:
        """What was measured, with 95% intervals, beside what was expected."""
        few, n, u = self.ns[0], self.ns[-1], self.us[-1]
        expected_U = np.array([self.expected(n, u)[1] for u in self.us])
        between = int(np.abs(np.array(self.us) - (self.threshold + self.transcribed) / 2).argmin())
        change_R = errors.student_NRU[-1, :, between] - errors.student_NRU[0, :, between]
        at_ends = [np.array([self.expected(each, u)[0]]) for each in (few, n)]
        found: dict[str, Mean | str] = {
            f"error, weak model (n = {each})": statistics.mean(weak_R.tolist(), statistics.SHARE)
            for each, weak_R in zip(self.ns, errors.weak_NR, strict=True)
        }
        return found | {
            f"error, student (n = {n}, u = {u})": statistics.mean(
                errors.student_NRU[-1, :, -1].tolist(), statistics.SHARE
            ),
            "error, ceiling (the same rows, true labels)": statistics.mean(
                errors.ceiling_NRU[-1, :, -1].tolist(), statistics.SHARE
            ),
            f"u where the student's error falls below 1/4 (n = {n})": over_resamples(
                lambda errors_RU: falls_below(errors_RU.mean(axis=0), self.us), errors.student_NRU[-1]
            ),
            "the same to leading order": Mean(falls_below(expected_U, self.us)),
            "u of the threshold, leading order": Mean(self.threshold),
            "u of the threshold, as transcribed (unverified)": Mean(self.transcribed),
            f"change of the error at u = {self.us[between]}, n = {few} to {n}": statistics.mean(
                change_R.tolist(), statistics.UNBOUNDED
            ),
            f"weak model: power of n in signal over noise, n = {few} to {n}": over_resamples(
                self.power, errors.weak_NR[0], errors.weak_NR[-1]
            ),
            "the same to leading order, at these n": Mean(self.power(*at_ends)),
            "the same to leading order, in the limit": Mean(self.teaches / 2),
            "the same as transcribed (unverified)": Mean(self.teaches),
        }

    def power(self, few_R: Values, many_R: Values) -> float:
        """The power of n by which the weak model's signal over noise changes, from the smallest n to the largest."""
        ends = [-math.log(max(math.tan(math.pi * errors.mean()), 1e-12)) for errors in (few_R, many_R)]
        return (ends[1] - ends[0]) / math.log(self.ns[-1] / self.ns[0])

    def draw(self, errors: Errors) -> Figure:
        """Errors over u, a line for each n: the darker, the larger. Dashed: what is expected of the student."""
        figure, (axes,) = canvas(1, legend=1.9)
        strengths = np.linspace(0.3, 1.0, len(self.ns))
        for n, alpha, student_RU in zip(self.ns, strengths, errors.student_NRU, strict=True):
            means = [statistics.mean(column.tolist(), statistics.SHARE) for column in student_RU.T]
            values = [mean.value for mean in means]
            axes.plot(self.us, values, "o-", ms=3, lw=1.4, color=STUDENT, alpha=alpha, label=f"student, n = {n}")
            for u, mean in zip(self.us, means, strict=True):
                if mean.lo is not None:
                    axes.plot((u, u), (mean.lo, mean.hi), lw=0.9, color=STUDENT, alpha=alpha)
        for n, alpha, weak_R in zip(self.ns, strengths, errors.weak_NR, strict=True):
            expected = [self.expected(n, u)[1] for u in self.us]
            axes.plot(self.us, expected, "--", lw=0.9, color=STUDENT, alpha=alpha)
            weak = [weak_R.mean()] * len(self.us)
            axes.plot(self.us, weak, ":", color=WEAK, alpha=alpha, label=f"weak model, n = {n}")
        axes.plot(self.us, errors.ceiling_NRU[-1].mean(axis=0), color=CEILING, label=f"ceiling, n = {self.ns[-1]}")
        axes.axhline(0.5, color=RULE, lw=0.8, zorder=0)
        for threshold, name in ((self.threshold, "leading order"), (self.transcribed, "as transcribed")):
            axes.axvline(threshold, color=MUTED, lw=0.8, zorder=0)
            axes.text(threshold, 0.61, name, ha="center", va="bottom", fontsize=SMALL, color=MUTED)
        axes.set_ylim(0, 0.6)
        axes.set_xlabel("u, of n^u pseudo-labels")
        axes.set_ylabel("error")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=SMALL)
        return figure


def sign_error(correlation: Values) -> Values:
    """The error of a score's sign by its correlation with the signal: arccos(rho) / pi."""
    return np.arccos(correlation) / np.pi


def mean_error(signal: float, luck: float, noise: float) -> float:
    """The mean error of a score with these squared parts; `luck` is the variance of the signal between replicates.

    At a signal-to-noise ratio of r the error is 1/2 - arctan(r) / pi.
    """
    ratios = ((signal**0.5 + luck**0.5 * z) / noise**0.5 for z in NORMAL)
    return float(np.mean([0.5 - math.atan(ratio) / math.pi for ratio in ratios]))


def falls_below(errors_U: Values, us: tuple[float, ...]) -> float:
    """The u from which on the error is below LEVEL, between the points of the sweep; NaN if that is not in it."""
    above = np.flatnonzero(errors_U >= LEVEL)
    if not len(above) or above[-1] == len(us) - 1:
        return math.nan
    k = above[-1]
    return float(us[k] + (us[k + 1] - us[k]) * (errors_U[k] - LEVEL) / (errors_U[k] - errors_U[k + 1]))


def wishart(rng: np.random.Generator, rows: int, directions: int) -> Values:
    """Z Z' for standard normal Z [rows, directions]; by Bartlett's decomposition where that is the shorter way."""
    if directions < rows:
        z = rng.standard_normal((rows, directions))
        return z @ z.T
    root = np.tril(rng.standard_normal((rows, rows)), -1)
    np.fill_diagonal(root, np.sqrt(rng.chisquare(directions - np.arange(rows))))
    return root @ root.T


if __name__ == "__main__":
    toy, seed, path = from_command_line(BenignOverfitting, __file__, __doc__)
    errors = toy.simulate(seed)
    show(toy.table(errors))
    save(toy.draw(errors), path)
