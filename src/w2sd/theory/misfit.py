"""What a student gains by disagreeing with its teacher: the misfit theory, in regression with squared loss.

For a convex class that holds the truth, and the projection of the teacher's labels on it (Charikar et al. 2024, arXiv
2405.15116, theorem 1), with risks R against the truth and misfit = mean (student - weak)^2,

    R_student <= R_weak - misfit,      slack = R_weak - misfit - R_student = 2 mean (weak - student) (student - truth)

with equality where the class is linear (Pythagoras). Least squares projects on the rows that it is fitted to; on new
rows this holds up to sampling. A ridge head projects on the ball of heads no longer than itself, so that the inequality
is sure while it is at least as long as the head of the truth. Where the truth has a part outside of the class that the
teacher knows, the slack is -2 times that part's mean square.

The class here: linear heads on frozen random features. Teachers err inside of the class (which no projection mends) and
outside of it (which it removes).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2sd.errors import require
from w2sd.metrics.variance import spearman
from w2sd.theory.base import Metrics, Simulation, Values, columns, over_replicates

EXACT = 1e-10  # what counts as zero where a theorem says zero
OUTSIDE = 64  # random features of what lies outside of the class, before their projection on it is taken away


class Risks(NamedTuple):
    """Mean squared distances between weak model, student and truth."""

    weak: float
    student: float
    misfit: float

    @property
    def slack(self) -> float:
        """How far the student is below what the theorem promises; negative: above."""
        return self.weak - self.misfit - self.student


def risks(student: Values, weak: Values, truth: Values) -> Risks:
    """The three distances on some rows.

    >>> risks(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([0.0, 0.0]))
    Risks(weak=1.0, student=0.5, misfit=0.5)
    """
    return Risks(_square(weak - truth), _square(student - truth), _square(student - weak))


def fit_head(features_NF: Values, labels_N: Values, ridge: float = 0.0) -> Values:
    """The head that minimises the sum of squares, plus `ridge` times its own square."""
    if not ridge:
        return np.asarray(np.linalg.lstsq(features_NF, labels_N, rcond=None)[0], dtype=np.float64)
    gram_FF = features_NF.T @ features_NF + ridge * np.eye(features_NF.shape[1])
    return np.asarray(np.linalg.solve(gram_FF, features_NF.T @ labels_N), dtype=np.float64)


class Toy(NamedTuple):
    """One draw: points, the features of them that the class knows, and a truth in the class.

    The first points are the student's `own`; of others the truth is known beforehand (`gold`); on the rest, all is
    measured.
    """

    rng: np.random.Generator
    points_NI: Values
    features_NF: Values
    head_F: Values
    truth_N: Values
    own: slice
    gold: slice
    new: slice

    def outside(self) -> Values:
        """A random function of every point, of mean square 1, without its projection on the class."""
        other_N = random_features(self.rng, self.points_NI, OUTSIDE) @ self.rng.standard_normal(OUTSIDE)
        other_N -= self.features_NF @ fit_head(self.features_NF, other_N)
        return other_N / _square(other_N) ** 0.5

    def teach(self, truth_N: Values, risk: float, inside: float) -> Values:
        """The labels of a teacher of this risk, of which the share `inside` is an error that the class can make too."""
        mistaken_N = _inside(self.rng, self.features_NF)[1]
        return truth_N + (inside * risk) ** 0.5 * mistaken_N + ((1 - inside) * risk) ** 0.5 * self.outside()

    def study(self, weak_N: Values, truth_N: Values, ridge: float = 0.0) -> dict[str, float]:
        """A student of these labels: its risks on new rows, what is exact on its own, what gold rows say of it."""
        own, gold, new = self.own, self.gold, self.new
        head_F = fit_head(self.features_NF[own], weak_N[own], ridge * len(weak_N[own]))
        student_N = self.features_NF @ head_F
        on_new, on_own, on_gold = (risks(student_N[at], weak_N[at], truth_N[at]) for at in (new, own, gold))
        point = {"risk_weak": on_new.weak, "risk_student": on_new.student, "misfit": on_new.misfit}
        point |= {"slack": on_new.slack, "slack_own": on_own.slack, "misfit_own": on_own.misfit}
        point |= {"gold_weak": on_gold.weak, "gold_student": on_gold.student}
        return point | {"length": float(np.linalg.norm(head_F) / np.linalg.norm(self.head_F))}


def random_features(rng: np.random.Generator, points_NI: Values, width: int) -> Values:
    """Frozen tanh features of some points."""
    weights_IF = rng.standard_normal((points_NI.shape[1], width)) * 1.5 / points_NI.shape[1] ** 0.5
    return np.tanh(points_NI @ weights_IF + rng.standard_normal(width))


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Three sweeps: teachers, penalties on the head, and truths outside of the class."""

    inputs: int = 8
    features: int = 32  # of the class: its dimension
    rows: int = 2000  # with a teacher's labels, which the student is fitted to
    new_rows: int = 4000  # on which it is measured
    teachers: int = 12  # risks between 0 and twice `risk`, any share of it inside of the class
    gold: int = 50  # new rows with the truth, by which teachers are ranked
    risk: float = 0.3  # of the teacher in the other two sweeps; the truth has mean square 1
    inside: float = 0.5  # the share of its errors that the class can make too
    ridges: list[float] = dataclasses.field(
        default_factory=lambda: [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    )  # per row
    outside: list[float] = dataclasses.field(
        default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.4]
    )  # of the truth, mean square
    replicates: int = 20
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for knob in ("inputs", "features", "gold"):
            require(getattr(self, knob) >= 1, knob, getattr(self, knob), "an integer of 1 or more")
        require(self.rows > self.features, "rows", self.rows, f"more than features = {self.features}")
        least = max(self.features, self.gold)
        require(self.new_rows > least, "new_rows", self.new_rows, f"more than {least}, features and gold")
        require(self.teachers >= 3, "teachers", self.teachers, "an integer of 3 or more, to be ranked")
        require(0 < self.risk < 10, "risk", self.risk, "a number above 0 and below 10")
        require(0 <= self.inside <= 1, "inside", self.inside, "a share in [0, 1]")
        for knob in ("ridges", "outside"):
            values = getattr(self, knob)
            require(bool(values) and min(values) >= 0, knob, values, "numbers of 0 or more, at least one")
        require(self.replicates >= 2, "replicates", self.replicates, "an integer of 2 or more")

    def simulate(self, seed: int, advance: Callable[[int, int], None]) -> Simulation:
        """Every student of every replicate, in tidy rows: `sweep` says which one, `x` where in it."""
        points, ranks = [], []
        for replicate in range(self.replicates):
            toy = self.draw(np.random.default_rng([seed, replicate]))
            taught = list(self._teachers(toy))
            ranks.append(_ranks(taught))
            found = (*taught, *self._ridges(toy), *self._outside(toy))
            points += [{"replicate": replicate, **point} for point in found]
            advance(replicate + 1, self.replicates)
        curves = columns(points)
        metrics = self._measure({name: np.array(column) for name, column in curves.items()})
        for name, values in columns(ranks).items():
            metrics |= over_replicates(f"rank/{name}", values)
        return Simulation(metrics, curves)

    def draw(self, rng: np.random.Generator) -> Toy:
        """A toy of these sizes."""
        points_NI = rng.standard_normal((self.rows + self.gold + self.new_rows, self.inputs))
        features_NF = random_features(rng, points_NI, self.features)
        known = self.rows + self.gold
        slices = slice(self.rows), slice(self.rows, known), slice(known, None)
        return Toy(rng, points_NI, features_NF, *_inside(rng, features_NF), *slices)

    def _teachers(self, toy: Toy) -> Iterator[dict[str, Any]]:
        for _ in range(self.teachers):
            risk, inside = 2 * self.risk * toy.rng.random(), toy.rng.random()
            weak_N = toy.teach(toy.truth_N, risk, inside)
            yield {"sweep": "teachers", "x": inside, **toy.study(weak_N, toy.truth_N)}

    def _ridges(self, toy: Toy) -> Iterator[dict[str, Any]]:
        weak_N = toy.teach(toy.truth_N, self.risk, self.inside)
        for ridge in self.ridges:
            yield {"sweep": "ridges", "x": ridge, **toy.study(weak_N, toy.truth_N, ridge)}

    def _outside(self, toy: Toy) -> Iterator[dict[str, Any]]:
        beyond_N = toy.outside()
        for size in self.outside:
            truth_N = toy.truth_N + size**0.5 * beyond_N
            weak_N = toy.teach(truth_N, self.risk, self.inside)
            yield {"sweep": "outside", "x": size, **toy.study(weak_N, truth_N)}

    def _measure(self, curves: dict[str, Values]) -> Metrics:
        def at(sweep: str, column: str) -> Values:
            """The values of a column in a sweep [replicate, x]."""
            return np.asarray(curves[column][curves["sweep"] == sweep].reshape(self.replicates, -1), dtype=np.float64)

        gain = at("teachers", "risk_weak") - at("teachers", "risk_student")
        metrics: Metrics = {"projection/slack_own": float(np.abs(at("teachers", "slack_own")).max())}
        metrics |= over_replicates("projection/gain", gain.mean(axis=1))
        metrics |= over_replicates("projection/misfit", at("teachers", "misfit").mean(axis=1))
        metrics |= over_replicates("projection/slack", at("teachers", "slack").mean(axis=1))
        long, holds = at("ridges", "length") >= 1, at("ridges", "slack_own") > -EXACT
        metrics |= {"ridge/holds_long": _share(holds[long]), "ridge/holds_short": _share(holds[~long])}
        metrics |= over_replicates("ridge/slack_largest", at("ridges", "slack_own")[:, -1])
        metrics |= over_replicates("outside/slack", at("outside", "slack")[:, -1])
        metrics["outside/expected"] = -2 * self.outside[-1]
        last = at("outside", "risk_weak")[:, -1] - at("outside", "risk_student")[:, -1]
        return metrics | over_replicates("outside/gain", last)


def _inside(rng: np.random.Generator, features_NF: Values) -> tuple[Values, Values]:
    """A random head, and what it says of every point, of mean square 1."""
    head_F = rng.standard_normal(features_NF.shape[1])
    said_N = features_NF @ head_F
    size = _square(said_N) ** 0.5
    return head_F / size, said_N / size


def _ranks(taught: list[dict[str, Any]]) -> dict[str, float]:
    """Rank correlations of the students' risks with what is known of them beforehand."""
    known = {name: np.array([point[name] for point in taught]) for name in taught[0] if name not in ("sweep", "x")}
    guesses = {"weak_risk": known["gold_weak"], "student_risk": known["gold_student"]}
    guesses["difference"] = known["gold_weak"] - known["misfit_own"]
    return {name: spearman(guess, known["risk_student"]) or 0.0 for name, guess in guesses.items()}


def _share(of: NDArray[np.bool_]) -> float | None:
    return float(of.mean()) if of.size else None


def _square(values: Values) -> float:
    return float(np.mean(values**2))
