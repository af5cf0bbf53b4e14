"""The design of one measurement: which run is compared with which, and within which strata of difficulty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from w2sd.errors import require
from w2sd.metrics.excess_flips import Flips, count, excess_flips, flips
from w2sd.metrics.regions import Codes
from w2sd.metrics.statistics import Weights
from w2sd.metrics.strata import ENSEMBLE, Strata, difficulty_strata, length_bins, margin_bins
from w2sd.predictions import Column, Predictions, require_joined

ROLES = ("weak", "ceiling", "baseline", "student")
TWIN, PLACEBO = "twin_", "placebo/"  # how the roles of the controls begin
TWINS = 3  # with fewer, no ensemble of three could judge a twin without holding it


class Arm(NamedTuple):
    """One run against its baseline, and the strata of difficulty it is judged in."""

    flips: Flips
    strata: Strata


class Design(NamedTuple):
    """Everything that is resampled. Each figure of excess flips is a mean over arms, and None if one has no strata."""

    student: Arm
    twins: list[Flips]  # baseline against each twin
    seeds: list[Flips]  # all ordered pairs of no-conflict students
    excess: dict[str, list[Arm]]
    margin: Codes  # bins of the baseline's confidence
    length: Codes | None  # the same, crossed with length


def design(joined: Mapping[str, Predictions], strata: ArrayLike | None, lengths: ArrayLike | None) -> Design:
    """Pair every run with its baseline and its strata; refuse roles that do not fit together."""
    among = _Students(joined, strata, lengths)
    excess, own, students = _arms(among), among.own, among.students
    excess["excess_flips_baseline"] = [own]
    if among.true:
        excess["excess_flips_ensemble"] = [Arm(own.flips, among.ensemble(students, own.flips))]
    by_ceiling = difficulty_strata([joined["ceiling"].margin], lengths, own.flips.c0)
    excess["excess_flips_ceiling"] = [Arm(own.flips, by_ceiling)]
    if "gold_conflict" in joined:
        crossed = among.ensemble(students, own.flips, crossed=joined["gold_conflict"])
        excess["excess_flips_gold_crossed"] = [Arm(own.flips, crossed)]
    base, *twins = students
    return Design(
        student=own,
        twins=[flips(base.p_correct, twin.p_correct) for twin in twins],
        seeds=[flips(one.p_correct, other.p_correct) for n, one in enumerate(students) for other in among.others(n)],
        excess=excess,
        margin=margin_bins(base.p_correct),
        length=None if lengths is None else length_bins(base.p_correct, lengths, own.flips.c0),
    )


def own_arm(joined: Mapping[str, Predictions], strata: ArrayLike | None, lengths: ArrayLike | None) -> Arm:
    """The student against its own baseline, as in the design; refuse roles that do not fit together."""
    return _Students(joined, strata, lengths).own


def _arms(among: _Students) -> dict[str, list[Arm]]:
    """The student (`excess_flips`) and each control (`null/...`) against all baselines."""
    joined = among.joined
    found = {"excess_flips": among.averaged(joined["student"])}
    if twins := among.students[1:]:
        found["null/twins"] = [one for n, twin in enumerate(twins, 1) for one in among.averaged(twin, n)]
    for role in joined:
        if role.startswith(PLACEBO):
            found[f"null/{role.removeprefix(PLACEBO)}"] = among.averaged(joined[role])
    if "gold_conflict" in joined:
        found["null/gold_conflict"] = [among.arm(joined["gold_baseline"], joined["gold_conflict"], among.students)]
    return found


class _Students:
    """The no-conflict students of a measurement, baseline first, and how difficult they find the pairs."""

    def __init__(self, joined: Mapping[str, Predictions], strata: ArrayLike | None, lengths: ArrayLike | None) -> None:
        _check(joined, strata, lengths)
        self.joined, self.lengths = joined, lengths
        self.true = None if strata is None else Strata(np.unique(np.asarray(strata), return_inverse=True)[1])
        twins = sorted((role for role in joined if role.startswith(TWIN)), key=lambda role: (len(role), role))
        self.students = [joined["baseline"], *(joined[role] for role in twins)]
        self.known: dict[tuple[int, ...], Strata] = {}  # most arms share theirs: quintiles are what costs time

    @property
    def own(self) -> Arm:
        """The student against its own baseline."""
        return self.arm(self.students[0], self.joined["student"], self.students)

    def ensemble(self, runs: Sequence[Predictions], moved: Flips, crossed: Predictions | None = None) -> Strata:
        """Strata by no-conflict students: the first of them, as many as an ensemble has."""
        if len(self.students) <= TWINS:
            have = len(self.students) - 1
            return Strata(None, f"difficulty is told by true strata or {TWINS} twins, here {have}")
        margins, other = [run.margin for run in runs[:ENSEMBLE]], None if crossed is None else crossed.margin
        return difficulty_strata(margins, self.lengths, moved.c0, crossed=other)

    def arm(self, before: Predictions, after: Predictions, runs: Sequence[Predictions]) -> Arm:
        """One run against another, in the true strata or in those that `runs` tell."""
        moved = flips(before.p_correct, after.p_correct)
        if self.true:
            return Arm(moved, self.true)
        key = (id(before), *map(id, runs[:ENSEMBLE]))  # they are held by `joined`, so no id is used twice
        if key not in self.known:
            self.known[key] = self.ensemble(runs, moved)
        return Arm(moved, self.known[key])

    def others(self, *places: int | None) -> list[Predictions]:
        return [run for place, run in enumerate(self.students) if place not in places]

    def averaged(self, after: Predictions, place: int | None = None) -> list[Arm]:
        """A run against every no-conflict student but itself: which of them is the baseline should not matter."""
        bases = [n for n in range(len(self.students)) if n != place]
        return [self.arm(self.students[n], after, [self.students[n], *self.others(n, place)]) for n in bases]


def mean_excess(arms: Sequence[Arm], region: Codes, weights: Weights | None = None) -> Column:
    """Mean excess flips of some arms in each sample; NaN if the difficulty is unknown for one of them."""
    if any(arm.strata.codes is None for arm in arms):
        return np.full(1 if weights is None else weights.shape[1], np.nan)
    counts = [count(arm.flips.f, arm.flips.c0, region, arm.strata.codes, weights) for arm in arms]
    return np.mean([excess_flips(cells) for cells in counts], axis=0)


def _check(joined: Mapping[str, Predictions], strata: ArrayLike | None, lengths: ArrayLike | None) -> None:
    for role in ROLES:
        require(role in joined, "predictions", sorted(joined), f"a role {role}")
    for role, partner in (("gold_conflict", "gold_baseline"), ("gold_baseline", "gold_conflict")):
        require(role not in joined or partner in joined, "predictions", sorted(joined), f"{partner} beside {role}")
    require_joined(joined)
    ids = joined["weak"].ids
    for name, column in {"strata": strata, "lengths": lengths}.items():
        if column is not None:
            require(np.shape(column) == (len(ids),), name, np.shape(column), f"one value for each of {len(ids)} rows")
