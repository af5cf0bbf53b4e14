"""Is there deception beyond the nulls? A verdict on each group of replicates, from the predictions behind its jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from w2sd.errors import Refused
from w2sd.metrics.predictions import Predictions, join, length_difference, read_predictions, select
from w2sd.metrics.replicates import Replicate
from w2sd.metrics.verdict import Verdict, judge
from w2sd.report import conflicts, knobs, notation, tables
from w2sd.report.conflicts import Group

WORDS = {"shown": "shown", "not_shown": "not shown", "not_testable": "not testable here"}
ROLES = ("weak", "ceiling", "baseline", "student", "gold_baseline", "gold_conflict")
CONTROLS = {"twins": "seed twins", "gold_conflict": "gold + conflict"}
FLIPS = "flips per student; the verdict rests on the interval over pairs, seeds and worlds and on the margin"


class Ruling(NamedTuple):
    """A group of replicates and what its predictions say."""

    group: Group
    verdict: Verdict
    n_pairs: float  # test pairs per student


def rule(frame: pd.DataFrame, store: Path) -> list[Ruling]:
    """A verdict for every group of replicates with a conflict and a baseline; none for frames without."""
    return [
        Ruling(group, _judge(group, store), float(group.jobs["n/test"].mean()) if "n/test" in group.jobs else 0.0)
        for group in conflicts.groups(frame, store)
    ]


def replicates(group: Group, store: Path) -> list[Replicate]:
    """The predictions behind each job of a group; every file is read once."""
    known: dict[str, Predictions] = {}
    tables_of = []
    for inputs in group.inputs:
        arms = {named: key for role, key in inputs.items() if (named := _role(role))}
        for key in arms.values():
            if key not in known:
                known[key] = read_predictions(store / "artifacts" / f"evaluate-{key}" / "predictions.parquet")
        tables_of.append({role: known[key] for role, key in arms.items()})
    who = conflicts.replicates(group.jobs)
    if "data.long" in group.jobs and "drop" in knobs.text(group.jobs, "data.long"):
        tables_of = _in_common(tables_of, [world for world, _ in who])
    return [_replicate(world, seed, arms) for (world, seed), arms in zip(who, tables_of, strict=True)]


def table(rulings: Sequence[Ruling], above: str = "") -> tables.Table:
    """A line per group: the verdict and the figures that it rests on; why, and what to run, stands below."""
    notes = tables.Notes()
    labels = list(rulings[0].group.settings)
    columns = (*tables.label(labels), "deception beyond the nulls", "excess flips [95% interval]", "floor")
    columns += ("over the largest control", "t (needed)", "flips", "worlds", "seeds")
    rows = []
    for group, verdict, _ in rulings:
        needs = f"; to run: {verdict.needs}" if verdict.needs else ""
        said = WORDS[verdict.result] + notes.mark(_typeset(f"{verdict.reason}{needs}"))
        t = notation.NOTHING if verdict.t is None else f"{verdict.t:.2f} ({verdict.t_needed:.2f})".replace("-", "−")
        cells = (
            notation.flips(verdict.excess_flips, verdict.excess_flips_lo, verdict.excess_flips_hi),
            notation.flips(verdict.floor),
            notation.flips(verdict.margin, verdict.margin_lo, verdict.margin_hi),
            t,
            notation.flips(verdict.flips),
            *(str(n) if n else notation.NOTHING for n in (verdict.n_worlds, verdict.n_seeds)),
        )
        rows.append((*group.settings.values(), said, *cells))
    return tables.Table(" · ".join(filter(None, (above, FLIPS))), columns, tuple(rows), notes.lines(), len(labels) + 1)


def sentences(rulings: Sequence[Ruling]) -> list[str]:
    """Each verdict in words, for readers of nothing else."""
    return [_sentence(ruling, alone=len(rulings) == 1) for ruling in rulings]


def control(name: str) -> str:
    """A control in words: `placebo/` was taken off its role where it became the name of a null."""
    return CONTROLS.get(name) or f"placebo: {name.replace('_', ' ')}"


def _sentence(ruling: Ruling, *, alone: bool) -> str:
    verdict, said = ruling.verdict, WORDS[ruling.verdict.result]
    where = "" if alone else f", {describe(ruling)}"
    needs = f" To run: {verdict.needs}." if verdict.needs else ""
    return _typeset(f"Deception beyond the nulls{where}: {said}: {verdict.reason}.{needs}")


def _typeset(text: str) -> str:
    """The text with minus signs before its negative numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def describe(ruling: Ruling) -> str:
    """What tells a group from the others, in a phrase."""
    settings = ruling.group.settings
    named = zip(tables.label(list(settings)), settings.values(), strict=True)
    return ", ".join(f"{name} {value}" for name, value in named)


def _judge(group: Group, store: Path) -> Verdict:
    """The verdict; predictions that are gone or do not fit together allow none, and say so."""
    try:
        return judge(replicates(group, store))
    except Refused as refusal:
        return Verdict("not_testable", str(refusal), "these jobs again, for what they left in the store")


def _replicate(world: str, seed: str, arms: Mapping[str, Predictions]) -> Replicate:
    joined = join(arms)
    weak = joined["weak"]  # strata and lengths as `compare` takes them
    return Replicate(world, seed, joined, weak.stratum, length_difference(joined["baseline"]))


def _role(role: str) -> str | None:
    """The role of a measurement for that of a plan; None for an input that is no arm."""
    if role.startswith("placebo_"):
        return f"placebo/{role.removeprefix('placebo_')}"
    return role if role in ROLES or role.startswith("twin_") else None


def _in_common(tables_of: Sequence[Mapping[str, Predictions]], worlds: Sequence[str]) -> list[dict[str, Predictions]]:
    """Only the pairs that all models of a world have a score for: tokenizers differ in what they find too long."""
    common: dict[str, set[str]] = {}
    for world, arms in zip(worlds, tables_of, strict=True):
        ids = set.intersection(*(set(rows.ids) for rows in arms.values()))
        common[world] = common.get(world, ids) & ids
    return [
        {role: select(rows, [n for n, id in enumerate(rows.ids) if id in common[world]]) for role, rows in arms.items()}
        for world, arms in zip(worlds, tables_of, strict=True)
    ]
