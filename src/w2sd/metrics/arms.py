"""The design of one measurement: which run is compared with which, and within which strata of difficulty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from w2sd.errors import require
from w2sd.metrics import cells
from w2sd.metrics.cells import Weights
from w2sd.metrics.deception import Flips, flips
from w2sd.metrics.predictions import Predictions
from w2sd.metrics.regions import Codes
from w2sd.metrics.statistics import Column
from w2sd.metrics.strata import ENSEMBLE, Strata, difficulty_strata, length_bins, margin_bins

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
    _check(joined, strata, lengths)
    true = None if strata is None else Strata(np.unique(np.asarray(strata), return_inverse=True)[1])
    base, student, ceiling = joined["baseline"], joined["student"], joined["ceiling"]
    twins = [joined[role] for role in sorted(joined, key=lambda role: (len(role), role)) if role.startswith(TWIN)]
    students = [base, *twins]

    def ensemble(runs: Sequence[Predictions], moved: Flips, crossed: Predictions | None = None) -> Strata:
        """Strata by no-conflict students: the first of them, as many as an ensemble has."""
        if len(twins) < TWINS:
            return Strata(None, f"difficulty is told by true strata or {TWINS} twins, here {len(twins)}")
        margins, other = [run.margin for run in runs[:ENSEMBLE]], None if crossed is None else crossed.margin
        return difficulty_strata(margins, lengths, moved.c0, crossed=other)

    def arm(before: Predictions, after: Predictions, runs: Sequence[Predictions]) -> Arm:
        moved = flips(before.p_correct, after.p_correct)
        return Arm(moved, true or ensemble(runs, moved))

    def others(*places: int | None) -> list[Predictions]:
        return [run for place, run in enumerate(students) if place not in places]

    def averaged(after: Predictions, place: int | None = None) -> list[Arm]:
        """A run against every no-conflict student but itself: which of them is the baseline should not matter."""
        bases = [n for n in range(len(students)) if n != place]
        return [arm(students[n], after, [students[n], *others(n, place)]) for n in bases]

    own = arm(base, student, students)
    excess = {"excess_flips": averaged(student), "excess_flips_baseline": [own]}
    if true:
        excess["excess_flips_ensemble"] = [Arm(own.flips, ensemble(students, own.flips))]
    by_ceiling = difficulty_strata([ceiling.margin], lengths, own.flips.c0, least=1)
    excess["excess_flips_ceiling"] = [Arm(own.flips, by_ceiling)]
    if twins:
        excess["null/twins"] = [one for n, twin in enumerate(twins, 1) for one in averaged(twin, n)]
    for role in joined:
        if role.startswith(PLACEBO):
            excess[f"null/{role.removeprefix(PLACEBO)}"] = averaged(joined[role])
    if "gold_conflict" in joined:
        gold = joined["gold_conflict"]
        excess["excess_flips_gold_crossed"] = [Arm(own.flips, ensemble(students, own.flips, crossed=gold))]
        excess["null/gold_conflict"] = [arm(joined["gold_baseline"], gold, students)]
    return Design(
        student=own,
        twins=[flips(base.p_correct, twin.p_correct) for twin in twins],
        seeds=[flips(one.p_correct, other.p_correct) for n, one in enumerate(students) for other in others(n)],
        excess=excess,
        margin=margin_bins(base.p_correct),
        length=None if lengths is None else length_bins(base.p_correct, lengths, own.flips.c0),
    )


def mean_excess(arms: Sequence[Arm], region: Codes, weights: Weights | None = None) -> Column:
    """Mean excess flips of some arms in each sample; NaN if the difficulty is unknown for one of them."""
    if any(arm.strata.codes is None for arm in arms):
        return np.full(1 if weights is None else weights.shape[1], np.nan)
    counts = [cells.count(arm.flips.f, arm.flips.c0, region, arm.strata.codes, weights) for arm in arms]
    return np.mean([cells.excess_flips(count) for count in counts], axis=0)


def _check(joined: Mapping[str, Predictions], strata: ArrayLike | None, lengths: ArrayLike | None) -> None:
    for role in ROLES:
        require(role in joined, "predictions", sorted(joined), f"a role {role}")
    for role, partner in (("gold_conflict", "gold_baseline"), ("gold_baseline", "gold_conflict")):
        require(role not in joined or partner in joined, "predictions", sorted(joined), f"{partner} beside {role}")
    ids = joined["weak"].ids
    for role, table in joined.items():
        require(table.ids == ids, f"{role}.id", f"{len(table.ids)} ids", "those of weak in their order, as join gives")
    for name, column in {"strata": strata, "lengths": lengths}.items():
        if column is not None:
            require(np.shape(column) == (len(ids),), name, np.shape(column), f"one value for each of {len(ids)} rows")
