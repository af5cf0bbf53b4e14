"""What a student gains by disagreeing with its teacher: the misfit theory, in regression with squared loss.

    python experiments/theory/misfit.py

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
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from replicates import (
    CEILING,
    MUTED,
    SMALL,
    STUDENT,
    WEAK,
    Values,
    canvas,
    from_command_line,
    report_progress,
    save,
    show,
)
from w2sd.errors import require
from w2sd.metrics import statistics
from w2sd.metrics.statistics import Mean

EXACT = 1e-10  # what counts as zero where a theorem says zero
OUTSIDE = 64  # random features of what lies outside of the class, before their projection on it is taken away
Curves = dict[str, Values]  # a row for each student; `sweep` names its sweep, `x` its place there


class Risks(NamedTuple):
    """Mean squared distances between weak model, student and truth."""

    weak: float
    student: float
    misfit: float

    @property
    def slack(self) -> float:
        """How far the student is below what the theorem promises; negative: above."""
        return self.weak - self.misfit - self.student


class Draw(NamedTuple):
    """One replicate: points, the features of them that the class knows, and a truth in the class.

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
        return other_N / mean_square(other_N) ** 0.5

    def teach(self, truth_N: Values, risk: float, inside: float) -> Values:
        """The labels of a teacher of this risk, of which the share `inside` is an error that the class can make too."""
        mistaken_N = random_head(self.rng, self.features_NF)[1]
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
    ridges: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # penalties per row
    outside: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4)  # mean squares of a part of the truth outside of the class
    replicates: int = 20

    def __post_init__(self) -> None:
        require(self.rows > self.features, "rows", self.rows, f"more than features = {self.features}")
        require(self.teachers >= 3, "teachers", self.teachers, "an integer of 3 or more, to be ranked")
        require(self.risk > 0, "risk", self.risk, "a number above 0")
        require(0 <= self.inside <= 1, "inside", self.inside, "a share in [0, 1]")

    def simulate(self, seed: int) -> Curves:
        """Every student of every replicate; the same seed gives the same students."""
        points: list[dict[str, Any]] = []
        for replicate in range(self.replicates):
            draw = self.draw_replicate(np.random.default_rng([seed, replicate]))
            points += [*self._teachers(draw), *self._ridges(draw), *self._outside(draw)]
            report_progress(replicate + 1, self.replicates)
        return {name: np.array([point[name] for point in points]) for name in points[0]}

    def draw_replicate(self, rng: np.random.Generator) -> Draw:
        """A draw of these sizes."""
        points_NI = rng.standard_normal((self.rows + self.gold + self.new_rows, self.inputs))
        features_NF = random_features(rng, points_NI, self.features)
        known = self.rows + self.gold
        slices = slice(self.rows), slice(self.rows, known), slice(known, None)
        return Draw(rng, points_NI, features_NF, *random_head(rng, features_NF), *slices)

    def _teachers(self, draw: Draw) -> Iterator[dict[str, Any]]:
        for _ in range(self.teachers):
            risk, inside = 2 * self.risk * draw.rng.random(), draw.rng.random()
            weak_N = draw.teach(draw.truth_N, risk, inside)
            yield {"sweep": "teachers", "x": inside, **draw.study(weak_N, draw.truth_N)}

    def _ridges(self, draw: Draw) -> Iterator[dict[str, Any]]:
        weak_N = draw.teach(draw.truth_N, self.risk, self.inside)
        for ridge in self.ridges:
            yield {"sweep": "ridges", "x": ridge, **draw.study(weak_N, draw.truth_N, ridge)}

    def _outside(self, draw: Draw) -> Iterator[dict[str, Any]]:
        beyond_N = draw.outside()
        for size in self.outside:
            truth_N = draw.truth_N + size**0.5 * beyond_N
            weak_N = draw.teach(truth_N, self.risk, self.inside)
            yield {"sweep": "outside", "x": size, **draw.study(weak_N, truth_N)}

    def table(self, curves: Curves) -> dict[str, Mean | str]:
        """What was measured, with 95% intervals, beside what the theory says."""

        def at(sweep: str, column: str) -> Values:
            """The values of a column in a sweep [replicate, x]."""
            return curves[column][curves["sweep"] == sweep].reshape(self.replicates, -1)

        taught = {name: at("teachers", name) for name in curves}
        gain_RT = taught["risk_weak"] - taught["risk_student"]
        long, holds = at("ridges", "length") >= 1, at("ridges", "slack_own") > -EXACT
        last_R = at("outside", "risk_weak")[:, -1] - at("outside", "risk_student")[:, -1]
        guesses = {
            "rank correlation with R_student: of R_weak on gold rows": taught["gold_weak"],
            "of R_weak on gold rows - misfit": taught["gold_weak"] - taught["misfit_own"],
            "of R_student on the same gold rows": taught["gold_student"],
        }
        return {
            "gain of students over their teachers, R_weak - R_student": over_replicates(gain_RT),
            "misfit": over_replicates(taught["misfit"]),
            "slack on the student's own rows, largest": Mean(float(np.abs(taught["slack_own"]).max())),
            "slack on new rows": over_replicates(taught["slack"]),
            "ridge heads at least as long as the truth's: inequality holds": f"{holds[long].sum()} of {long.sum()}",
            "ridge heads that are shorter: inequality holds": f"{holds[~long].sum()} of {(~long).sum()}",
            f"slack under the largest penalty ({self.ridges[-1]} a row)": over_replicates(
                at("ridges", "slack_own")[:, -1:]
            ),
            f"truth with a part outside of the class (mean square {self.outside[-1]}): slack": over_replicates(
                at("outside", "slack")[:, -1:]
            ),
            "the same, expected": Mean(-2 * self.outside[-1]),
            "the same, gain of the student": over_replicates(last_R[:, None]),
            **{
                name: statistics.mean(rank_correlations(guess, taught["risk_student"]), statistics.Scale(-1, 1))
                for name, guess in guesses.items()
            },
        }

    def draw(self, curves: Curves) -> Figure:
        """The gain over the misfit of every student; and the slack over how long a penalised head is."""
        figure, (left, right) = canvas(2)
        dot: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3, "mew": 0, "alpha": 0.6}
        gain = curves["risk_weak"] - curves["risk_student"]
        inside, outside = curves["sweep"] == "teachers", (curves["sweep"] == "outside") & (curves["x"] > 0)
        for which, colour, name in ((inside, STUDENT, "truth in the class"), (outside, WEAK, "truth outside")):
            left.plot(curves["misfit"][which], gain[which], color=colour, label=name, **dot)
        most = float(curves["misfit"].max())
        left.plot((0, most), (0, most), color=MUTED, lw=0.8, zorder=0)
        left.set_xlabel("misfit")
        left.set_ylabel("gain: risk of weak model − of student")
        left.legend(loc="lower left", frameon=False, fontsize=SMALL)
        ridges, long = curves["sweep"] == "ridges", curves["length"] >= 1
        for which, colour, name in ((ridges & long, STUDENT, "long enough"), (ridges & ~long, CEILING, "too short")):
            right.plot(curves["length"][which], curves["slack_own"][which], color=colour, label=name, **dot)
        right.axhline(0, color=MUTED, lw=0.8, zorder=0)
        right.axvline(1, color=MUTED, lw=0.8, zorder=0)
        right.set_xlabel("length of a ridge head, over that of the truth's")
        right.set_ylabel("slack on its own rows")
        right.legend(loc="lower right", frameon=False, fontsize=SMALL)
        return figure


def risks(student: Values, weak: Values, truth: Values) -> Risks:
    """The three distances on some rows."""
    return Risks(mean_square(weak - truth), mean_square(student - truth), mean_square(student - weak))


def fit_head(features_NF: Values, labels_N: Values, ridge: float = 0.0) -> Values:
    """The head that minimises the sum of squares, plus `ridge` times its own square."""
    if not ridge:
        return np.asarray(np.linalg.lstsq(features_NF, labels_N, rcond=None)[0], dtype=np.float64)
    gram_FF = features_NF.T @ features_NF + ridge * np.eye(features_NF.shape[1])
    return np.asarray(np.linalg.solve(gram_FF, features_NF.T @ labels_N), dtype=np.float64)


def random_features(rng: np.random.Generator, points_NI: Values, width: int) -> Values:
    """Frozen tanh features of some points."""
    weights_IF = rng.standard_normal((points_NI.shape[1], width)) * 1.5 / points_NI.shape[1] ** 0.5
    return np.tanh(points_NI @ weights_IF + rng.standard_normal(width))


def random_head(rng: np.random.Generator, features_NF: Values) -> tuple[Values, Values]:
    """A random head, and its output on every point, of mean square 1."""
    head_F = rng.standard_normal(features_NF.shape[1])
    output_N = features_NF @ head_F
    size = mean_square(output_N) ** 0.5
    return head_F / size, output_N / size


def rank_correlations(x_RT: Values, y_RT: Values) -> list[float]:
    """Spearman's correlation in each replicate, of values without ties."""
    ranks_x, ranks_y = (values.argsort(axis=1).argsort(axis=1) for values in (x_RT, y_RT))
    return [float(np.corrcoef(x, y)[0, 1]) for x, y in zip(ranks_x, ranks_y, strict=True)]


def over_replicates(values_RX: Values) -> Mean:
    """The mean of each replicate's mean, with its 95% t interval."""
    return statistics.mean(values_RX.mean(axis=1).tolist(), statistics.UNBOUNDED)


def mean_square(values: Values) -> float:
    """The mean of the squares."""
    return float(np.mean(values**2))


if __name__ == "__main__":
    toy, seed, path = from_command_line(Misfit, __file__, __doc__)
    curves = toy.simulate(seed)
    show(toy.table(curves))
    save(toy.draw(curves), path)
