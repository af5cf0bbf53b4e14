"""What a report says in words: the result in one sentence, and what a reader has to know first."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from w2sd.report import knobs, notation, tables
from w2sd.report.estimates import Row, per_group, per_job
from w2sd.report.results import HEADLINE

SURE = 0.01  # the standard error of an accuracy above which a reader is told
LONG = {"data/dropped_long": "test", "data/dropped_long_training": "training"}
ERRORS = [f"accuracy/{role}_se" for role in ("weak", "student", "ceiling")]


def result(frame: pd.DataFrame) -> str:
    """What these jobs found, in one sentence that a reader understands without the rest of the page."""
    if len(frame) == 1:
        return _one(per_job(frame, HEADLINE, ())[0])
    by = tables.repetitions(frame)
    if by is None:
        rows = per_job(frame, HEADLINE, knobs.telling(frame))
        return _several(rows, f"Over {notation.count(len(rows), 'job')}")
    rows = per_group(frame, HEADLINE, by)
    if len(rows) == 1:
        return _one(rows[0], f"On average over {notation.count(len(frame), 'job')}, the student")
    return _several(rows, f"Over {notation.count(len(rows), 'setting')} ({notation.count(len(frame), 'job')})")


def flags(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which some of these jobs need care, with which jobs."""
    told: dict[str, list[int]] = {}
    for place, oracle in enumerate(frame["reads_truth"]):
        if oracle:
            told.setdefault(f"Reads the truth: {oracle}. No supervisor could do this without labels.", []).append(place)
    errors = frame.reindex(columns=ERRORS).astype(float)
    largest = errors.max(axis=1).to_numpy()
    if unsure := [place for place, error in enumerate(largest) if error > SURE]:
        most = 100 * max(largest[place] for place in unsure)
        told[f"Tested on few rows or clusters: the standard error of an accuracy is up to {most:.1f} points."] = unsure
    if unknown := [place for place, measured in enumerate(errors.notna().any(axis=1)) if not measured]:
        told["Tested on so few rows or clusters that no accuracy has a standard error."] = unknown
    for metric, which in LONG.items():
        counts = frame[metric].fillna(0).to_list() if metric in frame else []
        if some := [place for place, n in enumerate(counts) if n > 0]:
            most = notation.number(int(max(counts)))
            told[f"Dropped because a response was too long: up to {most} {which} pairs of a model (data.long)."] = some
    return [f"{sentence}{_among(places, frame)}" for sentence, places in told.items()]


def _one(row: Row, student: str = "The student") -> str:
    pgr, weak, reached, ceiling, gain = (
        row.estimates[name] for name in ("pgr", "accuracy/weak", "accuracy/student", "accuracy/ceiling", "gain")
    )
    between = f"weak teacher ({notation.number(weak.value)}) and ceiling ({notation.number(ceiling.value)})"
    if pgr.value is None:
        more = notation.estimate("", *gain[:3])
        gained = f"{student} gained {more} in accuracy over its weak teacher ({notation.number(weak.value)})"
        return f"{gained}. There is no PGR: {pgr.reason}."
    share = notation.percent(pgr.value, pgr.lo, pgr.hi)
    left_out = f" ({notation.count(pgr.n_null, 'job')} without a PGR left out)" if pgr.n_null else ""
    if pgr.value < 0:
        fell = f"{student} ({notation.number(reached.value)}) fell below its weak teacher"
        return f"{fell}: it recovered {share} of the gap between {between}{left_out}."
    beyond = " and went past the ceiling" if pgr.value > 1 else ""
    return f"{student} recovered {share} of the gap between {between}{beyond}{left_out}."


def _several(rows: Sequence[Row], over: str) -> str:
    known = [(pgr.value, row) for row in rows if (pgr := row.estimates["pgr"]).value is not None]
    if not known:
        return f"{over}, there is no PGR: {rows[0].estimates['pgr'].reason}."
    known.sort(key=lambda each: each[0])
    low, high = (
        f"{notation.percent(value, *row.estimates['pgr'][1:3])} ({tables.describe(row)})"
        for value, row in (known[0], known[-1])
    )
    none = f"; {len(rows) - len(known)} have no PGR" if len(known) < len(rows) else ""
    return f"{over}, the student recovered from {low} to {high} of the gap between weak teacher and ceiling{none}."


def _among(places: Collection[int], frame: pd.DataFrame) -> str:
    columns = {name: knobs.text(frame, name) for name in knobs.telling(frame) if not knobs.is_seed(name)}
    return tables.among(places, len(frame), columns, f"{len(places)} of {len(frame)} jobs")
