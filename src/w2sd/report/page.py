"""One self-contained page: the result in a sentence, the numbers, and everything needed to get them again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from w2sd.report import knobs, notation, provenance, samples, sentence, style, tables, verdicts
from w2sd.report.elements import captioned, figure, is_broad, pair, section, table
from w2sd.report.samples import Sampled

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · w2sd</title>
<style>{css}</style></head>
<body><main>
{body}
</main></body></html>
"""


class Part(NamedTuple):
    """A table under its title, and a figure as inline SVG; one of the two may be missing."""

    title: str
    table: tables.Table | None
    name: str = ""  # of the figure
    drawing: str = ""


class Deception(NamedTuple):
    """What a page says of jobs with a conflict: verdicts and flags in words, tables by title, figures by name."""

    sentences: Sequence[str]
    flags: Sequence[str]
    tables: Mapping[str, tables.Table]
    drawings: Mapping[str, str]
    findings: Mapping[str, str]  # what the numbers add to the caption of a figure


class Theory(NamedTuple):
    """What a page says of a simulated theory: figures as captions and inline SVG."""

    title: str
    commands: Sequence[str]
    table: tables.Table
    figures: Sequence[tuple[str, str]]


def render(
    jobs: pd.DataFrame,
    stages: pd.DataFrame,
    drawings: Mapping[str, str],
    shown: Mapping[str, tables.Table],
    deception: Deception | None = None,
    sampled: list[Sampled] | None = None,
    analysed: Sequence[Part] = (),
    flags: Sequence[str] = (),
    theories: Sequence[Theory] = (),
) -> str:
    """The page over these jobs: `stages` of all of them, figures as inline SVG by name, tables by title.

    `flags` are what a reader has to know first.
    """
    title = ", ".join(dict.fromkeys(jobs["name"]))
    one, unit = len(jobs) == 1, knobs.unit(jobs)
    figures = [figure(name, svg, unit=unit) for name, svg in drawings.items()]
    first, *others = [section(name, table(rows)) for name, rows in shown.items()] or [""]
    if one and first:
        top, listed = pair(f"<section>{''.join(figures)}</section>", first), []
    else:
        listed = others[-1:]  # the jobs, below what was made of them
        top = "".join([first, pair(*(f"<section>{drawn}</section>" for drawn in figures)), *others[:-1]])
    parts = [
        _header(title, jobs, deception, flags),
        _deception(deception),
        top,
        *(_part(part, unit) for part in analysed),
        *listed,
        section(samples.TITLE, samples.render(sampled)) if sampled else "",
        *map(_theory, theories),
        pair(provenance.run(jobs, stages), provenance.data(jobs) + provenance.speed(stages)),
        provenance.everything(jobs) if one else "",
        provenance.config(jobs),
        provenance.machines(stages),
        f"<footer>Made by w2sd-report from {notation.count(len(jobs), 'job')} in the store{_left_out(jobs)}.</footer>",
    ]
    css = style.CSS + (style.DECEPTION if deception else "") + (style.SAMPLES if sampled else "")
    return PAGE.format(title=escape(title), css=css, body="\n".join(filter(None, parts)))


def _header(title: str, jobs: pd.DataFrame, deception: Deception | None, flags: Sequence[str]) -> str:
    strong = re.sub(r"(−?[\d.,]+%?(?: \[[^\]]*\])|−?[\d,]+%)", r"<strong>\1</strong>", escape(sentence.result(jobs)))
    when = escape(f"w2sd · {notation.count(len(jobs), 'job')} · {max(jobs['finished'])[:10]}")
    said = ""
    if deception:
        lead = " lead" if len(deception.sentences) == 1 else ""
        said += "".join(f'<p class="verdict{lead}">{_verdict(verdict)}</p>' for verdict in deception.sentences)
    known = [*flags, *(deception.flags if deception else ())]
    said += "".join(f'<p class="flag">{escape(flag)}</p>' for flag in known)
    return f'<header><p>{when}</p><h1>{escape(title)}</h1>{said}<p class="result">{strong}</p></header>'


def _verdict(said: str) -> str:
    """A verdict with its one word set off."""
    words = "|".join((*verdicts.WORDS.values(), verdicts.ALONE))
    return re.sub(rf": ({words}):", r": <strong>\1</strong>:", escape(said), count=1)


def _deception(deception: Deception | None) -> str:
    """Verdicts, figures and tables of jobs with a conflict."""
    if deception is None:
        return ""
    sections = [section(name, table(rows)) for name, rows in deception.tables.items()]
    found = deception.findings
    figures = [
        f"<section>{figure(name, svg, found.get(name, ''))}</section>" for name, svg in deception.drawings.items()
    ]
    pairs = [pair(*figures[place : place + 2]) for place in range(0, len(figures), 2)]
    return "".join([*sections[:1], *pairs, *sections[1:]])


def _part(part: Part, unit: str) -> str:
    """A figure and its table: one below the other if it is broad, else side by side."""
    drawn = figure(part.name, part.drawing, unit=unit) if part.drawing else ""
    shown = table(part.table) if part.table else ""
    if drawn and part.table and not is_broad(part.drawing):
        return pair(f"<section>{drawn}</section>", section(part.title, table(part.table, room=5)))
    return section(part.title, drawn + shown)


def _theory(theory: Theory) -> str:
    """The command, the curves and the figures of one theory: broad ones above the curves, else side by side."""
    said = "".join(f"<pre>{escape(command)}</pre>" for command in theory.commands if command)
    figures, shown = "".join(captioned(caption, svg) for caption, svg in theory.figures), table(theory.table)
    broad = any(is_broad(svg) for _, svg in theory.figures)
    return section(f"Theory: {theory.title}", said + (figures + shown if broad else pair(figures, shown)))


def _left_out(jobs: pd.DataFrame) -> str:
    n = jobs.attrs["missing"]
    return f"; {n} more left out, their results are no longer there" if n else ""
