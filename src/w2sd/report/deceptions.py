"""Tables of deception: excess flips beside those of controls, and the published score beside its base rate."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from w2sd.report import notation, tables, verdicts
from w2sd.report.estimates import Estimate, of_job, over_units
from w2sd.report.groups import worlds_and_seeds
from w2sd.report.verdicts import Ruling

EXCESS = "deception/excess_flips_per_1000"
NULL = "deception/null/"
PER_1000 = "excess flips, of the student and of each control, per 1,000 test pairs"
PER_JOB = "95% intervals over test pairs"
PER_GROUP = "means over replicates with t intervals over worlds (over seeds in one)"
UNEQUAL = (
    "optimiser steps of student / baseline are unequal: some of the flips come from more training, not from the "
    "conflict (placebos take the student's steps; conflict.match_steps=true takes the baseline's)"
)

Job = Mapping[Hashable, Any]
Found = Callable[[str], Estimate]  # a metric's estimate, for one row of a table


def summary(rulings: Sequence[Ruling]) -> list[tables.Table]:
    """What a terminal shows of these groups: the verdicts, and the figures where they were measured."""
    measured = [ruling for ruling in rulings if has(ruling)]
    return [*([verdicts.table(rulings)] if rulings else []), *([per_group(measured)] if measured else [])]


def flags(rulings: Sequence[Ruling]) -> list[str]:
    """What a reader has to know before the figures: arms that were trained for longer than others."""
    said: dict[str, list[int]] = {}
    for place, ruling in enumerate(rulings):
        student, baseline = _steps(ruling.group.jobs)
        if student != baseline:
            flag = f"Unequal steps: the student took {student}, its baseline {baseline}; some flips may come from that."
            said.setdefault(flag, []).append(place)
    if not said:
        return []
    settings = [ruling.group.settings for ruling in rulings]
    columns = {name: [one[name] for one in settings] for name in settings[0]}
    return [
        flag + tables.among(places, len(rulings), columns, "; ".join(verdicts.describe(rulings[n]) for n in places))
        for flag, places in said.items()
    ]


def has(ruling: Ruling) -> bool:
    """Whether deception was measured in these jobs, and not in their predictions alone."""
    return EXCESS in ruling.group.jobs


def per_group(rulings: Sequence[Ruling]) -> tables.Table:
    """A line per group of replicates."""
    lines = [(ruling.group.settings, mean(ruling), ruling.group.jobs) for ruling in rulings]
    return _lay_out(lines, PER_GROUP)


def per_job(rulings: Sequence[Ruling]) -> tables.Table:
    """A line per job, with world and seed where they vary."""
    lines = []
    several = [len({replicate[place] for r in rulings for replicate in _named(r)}) > 1 for place in (0, 1)]
    for ruling in rulings:
        for job, replicate in zip(ruling.group.values, _named(ruling), strict=True):
            who = {name: replicate[n] for n, name in enumerate(("world", "seed")) if several[n]}
            lines.append(({**ruling.group.settings, **who}, found(job), pd.DataFrame([job])))
    return _lay_out(lines, PER_JOB)


def found(job: Job) -> Found:
    """The estimates of one job; controls per 1,000 pairs, as the student is."""

    def find(metric: str) -> Estimate:
        estimate = of_job(job, metric)
        if not metric.startswith(NULL) or not job.get("n/test"):
            return estimate
        value, lo, hi = (None if x is None else 1000 * x / job["n/test"] for x in estimate[:3])
        return estimate._replace(value=value, lo=lo, hi=hi)

    return find


def mean(ruling: Ruling) -> Found:
    """The estimates of a group: over worlds, each the mean of its seeds; over seeds where there is one world."""
    jobs = [found(job) for job in ruling.group.values]
    if len(jobs) == 1:
        return jobs[0]
    worlds = [world for world, _ in _named(ruling)]
    return lambda metric: over_units(metric, [job(metric) for job in jobs], worlds)


def controls(jobs: pd.DataFrame) -> dict[str, str]:
    """The metrics of the controls that were measured, by what these are called: twins first, gold last."""
    metrics = [str(column) for column in jobs if str(column).startswith(NULL)]
    names = [m.removeprefix(NULL) for m in metrics if not m.endswith(("_lo", "_hi"))]
    names.sort(key=lambda name: (name != "twins", name == "gold_conflict", name))
    return {verdicts.control(name): f"{NULL}{name}" for name in names}


def _lay_out(lines: Sequence[tuple[dict[str, str], Found, pd.DataFrame]], kind: str) -> tables.Table:
    notes = tables.Notes()
    everything = pd.concat([jobs for *_, jobs in lines])
    columns = {"excess flips": EXCESS, **controls(everything)}
    if f"deception_true/{EXCESS.partition('/')[2]}" in everything:
        columns["excess, true knowledge"] = f"deception_true/{EXCESS.partition('/')[2]}"
    helpful = "helpful/accuracy/student" in everything
    unequal = any(_steps(jobs)[0] != _steps(jobs)[1] for *_, jobs in lines)
    rows = []
    for settings, find, jobs in lines:
        cells = [_flips(name, find(metric), notes) for name, metric in columns.items()]
        cells += [
            _count(find("deception/flips")),
            _score(find, notes),
            tables.cell("deception/did", find("deception/did"), notes),
        ]
        cells += [_helpful(find)] if helpful else []
        cells += [_told_steps(jobs, notes)] if unequal else []
        rows.append((*settings.values(), *cells))
    labels = list(lines[0][0])
    names = (*tables.label(labels), *columns, "flips", "score (base rate; seeds)", "did")
    names += ("helpful, student / baseline",) * helpful + ("steps",) * unequal
    return tables.Table(f"{PER_1000} · {kind}", names, tuple(rows), notes.lines(), len(labels))


def _flips(name: str, estimate: Estimate, notes: tables.Notes) -> str:
    written = notation.flips(*estimate[:3])
    return written + (notes.mark(f"{name}: {estimate.reason}") if estimate.value is None else "")


def _score(find: Found, notes: tables.Notes) -> str:
    """The paper's score with what it has to be held against."""
    score, base, seeds = (find(f"deception/{name}") for name in ("score", "base_rate", "seed_null"))
    if score.value is None:
        return tables.cell("deception/score", score, notes)
    beside = f"{notation.number(base.value)}; {notation.number(seeds.value)}"
    return f"{notation.estimate('', *score[:3])} ({beside})"


def _helpful(find: Found) -> str:
    return " / ".join(notation.number(find(f"helpful/accuracy/{role}").value) for role in ("student", "baseline"))


def _count(estimate: Estimate) -> str:
    value = estimate.value
    return notation.number(int(value) if value is not None and value == int(value) else value)


def _told_steps(jobs: pd.DataFrame, notes: tables.Notes) -> str:
    student, baseline = _steps(jobs)
    if student == baseline:
        return student
    return f"{student} / {baseline}" + notes.mark(UNEQUAL)


def _steps(jobs: pd.DataFrame) -> tuple[str, str]:
    """Optimiser steps of student and baseline, as they are written; a range where jobs differ."""
    said = []
    for role in ("student", "baseline"):
        column = jobs[f"steps/{role}"].dropna() if f"steps/{role}" in jobs else pd.Series(dtype="Int64")
        ends = dict.fromkeys((int(column.min()), int(column.max()))) if len(column) else {}
        said.append(" to ".join(f"{n:,}" for n in ends))
    return said[0], said[1]


def _named(ruling: Ruling) -> list[tuple[str, str]]:
    return worlds_and_seeds(ruling.group.jobs)
