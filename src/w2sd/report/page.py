"""The result in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from w2sd.report import knobs, notation, provenance, samples, style, tables, verdicts
from w2sd.report.analyses import Analysis
from w2sd.report.elements import figure, is_broad, pair, section, table
from w2sd.report.estimates import HEADLINE, Estimate, Row, per_group, per_job
from w2sd.report.samples import Sampled
from w2sd.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · w2sd</title>
<style>{css}</style></head>
<body><main>
{body}
</main></body></html>
"""


class Deception(NamedTuple):
    """What a page says of jobs with a conflict: verdicts and flags in words, tables by title, figures by name."""

    sentences: Sequence[str]
    flags: Sequence[str]
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    findings: Mapping[str, str]  # what the numbers add to the caption of a figure


class Contents(NamedTuple):
    """All that there is to say of some jobs."""

    jobs: pd.DataFrame
    stages: pd.DataFrame  # of all of them
    flags: Sequence[str]  # what a reader has to know first
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    deception: Deception | None
    analyses: Sequence[Analysis]
    sampled: list[Sampled]

    def all_tables(self) -> dict[str, Table]:
        """By title."""
        return {
            **(self.deception.tables if self.deception else {}),
            **self.tables,
            **{analysis.title: analysis.table for analysis in self.analyses if analysis.table},
        }

    def all_figures(self) -> dict[str, Figure]:
        """By the names of their files."""
        return {
            **self.figures,
            **{analysis.name: analysis.figure for analysis in self.analyses if analysis.figure},
            **(self.deception.figures if self.deception else {}),
        }


def render(contents: Contents, drawings: Mapping[str, str]) -> str:
    """The page; `drawings` are its figures as inline SVG, by name."""
    jobs, stages, deception, sampled = contents.jobs, contents.stages, contents.deception, contents.sampled
    title = ", ".join(dict.fromkeys(jobs["name"]))
    one, unit = len(jobs) == 1, knobs.unit(jobs)
    figures = [figure(name, drawings[name], unit=unit) for name in contents.figures]
    first, *others = (section(name, table(rows)) for name, rows in contents.tables.items())
    if one:
        top, listed = pair(f"<section>{''.join(figures)}</section>", first), []
    else:
        listed = others[-1:]  # the jobs, below what was made of them
        top = "".join([first, pair(*(f"<section>{drawn}</section>" for drawn in figures)), *others[:-1]])
    parts = [
        _header(title, contents),
        _deception(deception, drawings) if deception else "",
        top,
        *(_analysis(analysis, drawings, unit) for analysis in contents.analyses),
        *listed,
        section(samples.TITLE, samples.render(sampled)) if sampled else "",
        pair(provenance.run(jobs, stages), provenance.data(jobs) + provenance.speed(stages)),
        provenance.everything(jobs) if one else "",
        provenance.config(jobs),
        provenance.machines(stages),
        f"<footer>Made by w2sd-report from {notation.count(len(jobs), 'job')} in the store{_left_out(jobs)}.</footer>",
    ]
    css = style.CSS + (style.DECEPTION if deception else "") + (style.SAMPLES if sampled else "")
    return PAGE.format(title=escape(title), css=css, body="\n".join(filter(None, parts)))


def _header(title: str, contents: Contents) -> str:
    jobs, deception = contents.jobs, contents.deception
    strong = re.sub(r"(−?[\d.,]+%?(?: \[[^\]]*\])|−?[\d,]+%)", r"<strong>\1</strong>", escape(result(jobs)))
    when = escape(f"w2sd · {notation.count(len(jobs), 'job')} · {max(jobs['finished'])[:10]}")
    said = ""
    if deception:
        lead = " lead" if len(deception.sentences) == 1 else ""
        said += "".join(f'<p class="verdict{lead}">{_verdict(verdict)}</p>' for verdict in deception.sentences)
    flags = [*contents.flags, *(deception.flags if deception else ())]
    said += "".join(f'<p class="flag">{escape(flag)}</p>' for flag in flags)
    return f'<header><p>{when}</p><h1>{escape(title)}</h1>{said}<p class="result">{strong}</p></header>'


def _verdict(said: str) -> str:
    """A verdict with its one word set off."""
    words = "|".join((*verdicts.WORDS.values(), verdicts.ALONE))
    return re.sub(rf": ({words}):", r": <strong>\1</strong>:", escape(said), count=1)


def _deception(deception: Deception, drawings: Mapping[str, str]) -> str:
    """Verdicts, figures and tables of jobs with a conflict."""
    sections = [section(name, table(rows)) for name, rows in deception.tables.items()]
    found = deception.findings
    figures = [f"<section>{figure(name, drawings[name], found.get(name, ''))}</section>" for name in deception.figures]
    pairs = [pair(*figures[place : place + 2]) for place in range(0, len(figures), 2)]
    return "".join([*sections[:1], *pairs, *sections[1:]])


def _analysis(analysis: Analysis, drawings: Mapping[str, str], unit: str) -> str:
    """A figure and its table: one below the other if it is broad, else side by side."""
    title, rows, svg = analysis.title, analysis.table, drawings.get(analysis.name, "")
    drawn = figure(analysis.name, svg, unit=unit) if svg else ""
    if drawn and rows and not is_broad(svg):
        return pair(f"<section>{drawn}</section>", section(title, table(rows, room=5)))
    return section(title, drawn + (table(rows) if rows else ""))


def _left_out(jobs: pd.DataFrame) -> str:
    n = jobs.attrs["missing"]
    return f"; {n} more left out, their results are no longer there" if n else ""
