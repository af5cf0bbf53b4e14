"""The result in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from w2sd.report import knobs, notation, tables
from w2sd.report.estimates import HEADLINE, Estimate, Row, per_group, per_job


def result(frame: pd.DataFrame) -> str:
    """What these jobs found, in one sentence that a reader understands without the rest of the page."""
    if not set(HEADLINE) <= set(frame.attrs["metrics"]):
        return f"{notation.count(len(frame), 'job')} measured; see the table."
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


def _one(row: Row, student: str = "The student") -> str:
    pgr, weak, reached, ceiling, gain = (
        row.estimates[name] for name in ("pgr", "accuracy/weak", "accuracy/student", "accuracy/ceiling", "gain")
    )
    between = f"weak teacher ({notation.number(weak.value)}) and ceiling ({notation.number(ceiling.value)})"
    if pgr.value is None:
        gained = f"{student} gained {_interval(gain)} in accuracy over its weak teacher ({notation.number(weak.value)})"
        return f"{gained}. There is no PGR: {pgr.reason}."
    share = notation.percent(pgr.value, pgr.lo, pgr.hi)
    left_out = f" ({notation.count(pgr.n_null, 'job')} without a PGR left out)" if pgr.n_null else ""
    if pgr.value < 0:
        fell = f"{student} ({notation.number(reached.value)}) fell below its weak teacher"
        return f"{fell}: it recovered {share} of the gap between {between}{left_out}."
    beyond = " and went past the ceiling" if pgr.value > 1 else ""
    return f"{student} recovered {share} of the gap between {between}{beyond}{left_out}."


def _several(rows: Sequence[Row], over: str) -> str:
    known = sorted((row for row in rows if row.estimates["pgr"].value is not None), key=_pgr)
    if not known:
        reason = rows[0].estimates["pgr"].reason
        return f"{over}, there is no PGR: {reason}."
    low, high = known[0], known[-1]
    none = f"; {len(rows) - len(known)} have no PGR" if len(known) < len(rows) else ""
    ends = f"from {_share(low)} to {_share(high)}"
    return f"{over}, the student recovered {ends} of the gap between weak teacher and ceiling{none}."


def _share(row: Row) -> str:
    pgr = row.estimates["pgr"]
    assert pgr.value is not None
    return f"{notation.percent(pgr.value, pgr.lo, pgr.hi)} ({tables.describe(row)})"


def _pgr(row: Row) -> float:
    return row.estimates["pgr"].value or 0.0


def _interval(estimate: Estimate) -> str:
    return notation.estimate("", estimate.value, estimate.lo, estimate.hi)
