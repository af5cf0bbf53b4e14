"""Weak-to-strong generalisation by benign overfitting, after Wu & Sahai 2024 (arXiv 2410.04638).

Rows x ~ N(0, diag(variances)) in d = n^p directions, s = n^r of them favoured; y = sign(x_1), and x_1 is favoured. The
weak model sees some favoured directions (x_1 among them) and some of the others, under a bi-level spectrum of its own
(p_w, q_w, r_w), and interpolates n true labels with least norm. The strong model sees all directions and interpolates,
with least norm too, the signs that the weak one gives to m = n^u other rows.

`expected` is our own leading-order calculation, for a weak model near chance and X X' near a multiple of the identity.
The conditions of the paper are known to us only as transcribed by a reader: `transcribed` is unverified.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from w2sd.errors import require
from w2sd.theory.base import Metrics, Simulation, Values, columns, over_replicates, over_resamples
from w2sd.theory.interpolation import BiLevel, Seen, bi_level, levels, linear_score_error, wishart

SIGN = 2 / math.pi  # squared correlation of a Gaussian with its own sign
LEVEL = 0.25  # a student has made the transition where its error falls below this: its signal is as large as its noise
NORMAL = [NormalDist().inv_cdf((k + 0.5) / 200) for k in range(200)]  # a sample without chance
MOST_ROWS = 4000  # of pseudo-labels: Gram matrices of 128 MB


@dataclasses.dataclass(frozen=True)
class BenignOverfitting:
    """A sweep over u for several n. What changes between n tells a threshold from a slow improvement."""

    p: float = 4.0  # directions of the strong model: n^p
    q: float = 0.5  # share of the variance in favoured directions: n^-q
    r: float = 0.25  # favoured directions: n^r
    p_weak: float = 3.0  # the same for the weak model
    q_weak: float = 1.95
    r_weak: float = 0.25
    ns: list[int] = dataclasses.field(default_factory=lambda: [16, 81, 256])  # gold labels of the weak model
    us: list[float] = dataclasses.field(default_factory=lambda: [round(0.2 + 0.1 * k, 1) for k in range(12)])  # m = n^u
    replicates: int = 30
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for knob in ("p", "p_weak"):
            require(1 < getattr(self, knob) <= 6, knob, getattr(self, knob), "a number above 1, at most 6")
        for p, q, r in (("p", "q", "r"), ("p_weak", "q_weak", "r_weak")):
            require(0 <= getattr(self, r) < 1, r, getattr(self, r), "a number in [0, 1)")
            most = getattr(self, p) - getattr(self, r)
            require(
                0 < getattr(self, q) < most, q, getattr(self, q), f"a number above 0 and below {p} - {r} = {most:g}"
            )
        for knob, above in (("ns", 3), ("us", 0)):
            values = getattr(self, knob)
            rising = len(values) > 1 and values[0] > above and all(a < b for a, b in itertools.pairwise(values))
            require(rising, knob, values, f"two rising numbers or more, above {above}")
        n, u = self.ns[-1], self.us[-1]
        limit = min(self.p, math.log(MOST_ROWS, n))
        require(u < limit, "us", u, f"at most {limit:.2f}: n^u rows, fewer than {min(MOST_ROWS, n**self.p):,.0f}")
        for n in self.ns:
            strong, weak = self.spectra(n)
            inside = weak.s <= strong.s and weak.d - weak.s <= strong.d - strong.s
            require(inside, "p_weak", self.p_weak, "directions that the strong model has too, of either level")
        require(self.replicates >= 2, "replicates", self.replicates, "an integer of 2 or more")

    def spectra(self, n: int) -> tuple[BiLevel, BiLevel]:
        """Of the strong and the weak model, in whole directions."""
        strong, weak = bi_level(n, self.p, self.q, self.r), bi_level(n, self.p_weak, self.q_weak, self.r_weak)
        return _whole(strong), _whole(weak)

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
        known = _fitted(weak, n)
        parts = np.array([SIGN * known**2, (weak.s - 1) * known**2 / n, n / (weak.d - weak.s)])
        by_weak = _mean_error(parts[0], (1 - SIGN) * known**2 / n, parts[1] + parts[2])
        signal, favoured, others = parts / parts.sum()
        m = n**u
        learnt, loose = _fitted(strong, m), m / (strong.d - strong.s)
        noise = (strong.s - 1) * learnt**2 / m + loose + SIGN * (learnt**2 * favoured + loose**2 * others)
        taught = SIGN * signal * learnt**2
        return by_weak, _mean_error(taught, (1 - SIGN * signal) * learnt**2 / m, noise)

    def simulate(self, seed: int, advance: Callable[[int, int], None]) -> Simulation:
        """Errors of weak model, student and ceiling (the student's rows under true labels) for each n, replicate, u."""
        points = []
        for n in self.ns:
            expected = [self.expected(n, u) for u in self.us]
            for replicate in range(self.replicates):
                weak, taught = self.replicate(n, np.random.default_rng([seed, n, replicate]))
                for u, (student, ceiling), (expected_weak, expected_student) in zip(
                    self.us, taught, expected, strict=True
                ):
                    point = {"n": n, "u": u, "m": round(n**u), "replicate": replicate, "weak": weak}
                    point |= {"student": student, "ceiling": ceiling}
                    points.append(point | {"expected_weak": expected_weak, "expected_student": expected_student})
                advance(self.ns.index(n) * self.replicates + replicate + 1, len(self.ns) * self.replicates)
        curves = columns(points)
        return Simulation(self._measure(curves), curves)

    def replicate(self, n: int, rng: np.random.Generator) -> tuple[float, list[tuple[float, float]]]:
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
            student, ceiling = rows.errors(rows.interpolate(np.stack([labels_M[:m], np.sign(rows.signal_N)], axis=1)))
            taught.append((student, ceiling))
        return gold.errors(weights_N[:, None])[0], taught

    def _measure(self, curves: dict[str, list[float]]) -> Metrics:
        shape = (len(self.ns), self.replicates, len(self.us))
        weak, student, ceiling = (np.reshape(curves[role], shape) for role in ("weak", "student", "ceiling"))
        metrics: Metrics = {"threshold/ours": self.threshold, "threshold/transcribed": self.transcribed}
        for role, errors in {"weak": weak, "student": student, "ceiling": ceiling}.items():
            metrics |= over_replicates(f"error/{role}", errors[-1, :, -1])
        expected = np.array([self.expected(self.ns[-1], u)[1] for u in self.us])
        metrics |= over_resamples("transition/measured", lambda e: _falls_below(e.mean(axis=0), self.us), student[-1])
        metrics |= over_resamples("transition/expected", lambda e: _falls_below(e[0], self.us), expected[None])
        between = (self.threshold + self.transcribed) / 2
        place = int(np.abs(np.array(self.us) - between).argmin())
        metrics["between/u"] = self.us[place]
        metrics |= over_replicates("between/change", student[-1, :, place] - student[0, :, place])
        metrics |= over_resamples("exponent/weak", self._exponent, weak[0, :, 0], weak[-1, :, 0])
        expected = np.array([[self.expected(n, self.us[0])[0]] for n in (self.ns[0], self.ns[-1])])
        metrics |= {"exponent/expected": self._exponent(*expected), "exponent/limit": self.teaches / 2}
        return metrics | {"exponent/transcribed": self.teaches}

    def _exponent(self, few_R: Values, many_R: Values) -> float:
        """The power of n by which the weak model's signal over noise changes, from the smallest n to the largest."""
        ends = [-math.log(max(math.tan(math.pi * errors.mean()), 1e-12)) for errors in (few_R, many_R)]
        return (ends[1] - ends[0]) / math.log(self.ns[-1] / self.ns[0])


def _whole(spectrum: BiLevel) -> BiLevel:
    return levels(round(spectrum.d), round(spectrum.s), spectrum.a)


def _mean_error(signal: float, luck: float, noise: float) -> float:
    """The mean error of a score with these squared parts; `luck` is the variance of the signal between replicates."""
    signals = (signal**0.5 + luck**0.5 * z for z in NORMAL)
    return float(np.mean([linear_score_error(each / noise**0.5) for each in signals]))


def _fitted(spectrum: BiLevel, m: float) -> float:
    """The share of a favoured direction's signal that m rows fit: the other directions act as a ridge."""
    return m * spectrum.favoured / (m * spectrum.favoured + (spectrum.d - spectrum.s) * spectrum.others)


def _falls_below(errors_U: Values, us: list[float]) -> float:
    """The u from which on the error is below LEVEL, between the points of the sweep; NaN if that is not in it."""
    above = np.flatnonzero(errors_U >= LEVEL)
    if not len(above) or above[-1] == len(us) - 1:
        return math.nan
    k = above[-1]
    return float(us[k] + (us[k + 1] - us[k]) * (errors_U[k] - LEVEL) / (errors_U[k] - errors_U[k + 1]))
