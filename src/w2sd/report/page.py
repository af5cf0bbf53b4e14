"""The page, and everything else that a report writes: tables and figures, each file complete or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from filelock import FileLock

from w2sd.atomic import beside
from w2sd.report import (
    analyses,
    deception_figures,
    deceptions,
    figures,
    knobs,
    notation,
    pairs_of_models,
    results,
    sections,
    sentences,
    style,
    tables,
    trends,
    verdicts,
)
from w2sd.report.analyses import Analysis
from w2sd.report.estimates import per_group, per_job
from w2sd.report.pairs_of_models import ModelPair
from w2sd.report.results import HEADLINE
from w2sd.report.sections import Sampled
from w2sd.report.style import figure, is_broad, pair, section, table
from w2sd.report.tables import Table
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """What a page says of jobs with a conflict: verdicts in words, tables by title, figures by name."""

    sentences: Sequence[str]
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


@contextmanager
def turn(out: Path) -> Iterator[None]:
    """The right to write in this folder; waits for whoever has it."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        yield


def write(
    frame: pd.DataFrame,
    store: Path,
    out: Path,
    *,
    by: Sequence[str] | None,
    metrics: Sequence[str] | None,
    rulings: Sequence[Ruling],
) -> Path:
    """Write `index.html, results.csv, table.md, figures/` for this frame, and `groups.csv` where jobs are grouped."""
    pairs = pairs_of_models.find(frame)
    asked = by is not None or metrics is not None
    metrics = HEADLINE if metrics is None else metrics
    by = tables.repetitions(frame) if by is None else by
    shown = arrange(frame, by, metrics, pairs, asked=asked)
    rows, varying = per_job(frame, HEADLINE, knobs.telling(frame)), None
    if by is not None:
        varying = [column for column in by if len(set(knobs.text(frame, column))) > 1]
        rows = per_group(frame, HEADLINE, varying)
        groups = per_group(frame, metrics, by)
        _replace(out / "groups.csv", tables.to_csv(groups, metrics).encode())
    else:
        (out / "groups.csv").unlink(missing_ok=True)  # of an earlier report
    damages = frame.attrs["damages"]
    contents = Contents(
        jobs=frame,
        stages=results.stages(store, *frame["id"], damages=damages),
        tables=shown,
        figures=figures.draw(rows, knobs.unit(frame)),
        deception=_deception(rulings),
        analyses=analyses.make(frame, store, varying, pairs),
        sampled=sections.read_samples(frame, store),
        flags=[*damages.lines(), *sentences.flags(frame), *deceptions.flags(rulings)],  # when all has been read
    )
    _replace(out / "results.csv", _to_csv(frame).encode())
    written = (f"### {title}\n\n{tables.to_markdown(table)}" for title, table in contents.all_tables().items())
    _replace(out / "table.md", "\n".join(written).encode())
    _replace(out / "index.html", render(contents, _write_figures(contents.all_figures(), out)).encode())
    return out / "index.html"


def arrange(
    frame: pd.DataFrame,
    by: Sequence[str] | None,
    metrics: Sequence[str],
    pairs: Sequence[ModelPair],
    *,
    asked: bool,
) -> dict[str, Table]:
    """The tables by title: means first where there are any, then the jobs.

    Pairs of models come before them, and stand for the means where these are the same and nobody asked for others.
    """
    shown = {}
    if pairs:
        shown[pairs_of_models.TITLE] = pairs_of_models.table(pairs, frame)
        shown[pairs_of_models.MEDIANS] = pairs_of_models.medians(pairs)
    if by is not None and (asked or not pairs_of_models.are_groups(pairs, frame, by)):
        title = f"Means by {', '.join(tables.label(by))}" if by else "Means over jobs"
        shown[title] = tables.grouped(frame, by, metrics)
    shown["Result" if len(frame) == 1 else "Jobs"] = tables.headline(frame, metrics)
    return shown


def render(contents: Contents, drawings: Mapping[str, str]) -> str:
    """The page; `drawings` are its figures as inline SVG, by name."""
    jobs, stages, deception = contents.jobs, contents.stages, contents.deception
    title = ", ".join(dict.fromkeys(jobs["name"]))
    one, unit = len(jobs) == 1, knobs.unit(jobs)
    shown = [figure(name, drawings[name], unit=unit) for name in contents.figures]
    first, *others = (section(name, table(rows)) for name, rows in contents.tables.items())
    if one:
        top, listed = pair(f"<section>{''.join(shown)}</section>", first), []
    else:
        listed = others[-1:]  # the jobs, below what was made of them
        top = "".join([first, pair(*(f"<section>{drawn}</section>" for drawn in shown)), *others[:-1]])
    parts = [
        _header(title, contents),
        _render_deception(deception, drawings) if deception else "",
        top,
        *(_analysis(analysis, drawings, unit) for analysis in contents.analyses),
        *listed,
        sections.samples(contents.sampled),
        pair(sections.run(jobs, stages), sections.data(jobs) + sections.speed(stages)),
        sections.everything(jobs) if one else "",
        sections.config(jobs),
        sections.machines(stages),
        f"<footer>Made by w2sd-report from {notation.count(len(jobs), 'job')} in the store{_left_out(jobs)}.</footer>",
    ]
    css = style.CSS + (style.DECEPTION if deception else "") + (style.SAMPLES if contents.sampled else "")
    return PAGE.format(title=escape(title), css=css, body="\n".join(filter(None, parts)))


def _header(title: str, contents: Contents) -> str:
    jobs, deception = contents.jobs, contents.deception
    strong = re.sub(r"(−?[\d.,]+%?(?: \[[^\]]*\])|−?[\d,]+%)", r"<strong>\1</strong>", escape(sentences.result(jobs)))
    when = escape(f"w2sd · {notation.count(len(jobs), 'job')} · {max(jobs['finished'])[:10]}")
    ruled = deception.sentences if deception else ()
    lead = " lead" if len(ruled) == 1 else ""
    above = [f'<p class="verdict{lead}">{_verdict(sentence)}</p>' for sentence in ruled]
    above += [f'<p class="flag">{escape(flag)}</p>' for flag in contents.flags]
    return f'<header><p>{when}</p><h1>{escape(title)}</h1>{"".join(above)}<p class="result">{strong}</p></header>'


def _verdict(sentence: str) -> str:
    """A verdict with its one word set off."""
    words = "|".join((*verdicts.WORDS.values(), verdicts.ALONE))
    return re.sub(rf": ({words}):", r": <strong>\1</strong>:", escape(sentence), count=1)


def _render_deception(deception: Deception, drawings: Mapping[str, str]) -> str:
    """Verdicts, figures and tables of jobs with a conflict."""
    shown = [section(name, table(rows)) for name, rows in deception.tables.items()]
    found = deception.findings
    figures = [f"<section>{figure(name, drawings[name], found.get(name, ''))}</section>" for name in deception.figures]
    pairs = [pair(*figures[place : place + 2]) for place in range(0, len(figures), 2)]
    return "".join([*shown[:1], *pairs, *shown[1:]])


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


def _deception(rulings: Sequence[Ruling]) -> Deception | None:
    """What there is to say of jobs with a conflict, if there are any."""
    if not rulings:
        return None
    measured = [ruling for ruling in rulings if deceptions.has(ruling)]
    shown = {"Verdict on deception": verdicts.table(rulings)}
    if measured:
        several = sum(len(ruling.group.jobs) for ruling in measured) > len(measured)
        shown |= {"Deception by group": deceptions.per_group(measured)} if several else {}
        shown |= {"Deception by job": deceptions.per_job(measured)}
    drawn, findings = deception_figures.draw(rulings), {"gap": trends.caption(rulings)}
    return Deception(verdicts.sentences(rulings), shown, drawn, findings)


def _write_figures(drawn: Mapping[str, Figure], out: Path) -> dict[str, str]:
    """Write each figure as SVG and PNG; return them as they stand in a page."""
    drawings = {}
    for name, drawing in drawn.items():
        svg = figures.to_svg(name, drawing)
        drawings[name] = figures.inline(name, svg)
        vector, image = (out / "figures" / f"{name}.{form}" for form in ("svg", "png"))
        if not (image.is_file() and vector.is_file() and vector.read_bytes() == svg.encode()):
            _replace(image, figures.to_png(name, drawing))  # before the drawing, which vouches for it from then on
            _replace(vector, svg.encode())
    return drawings


def _to_csv(frame: pd.DataFrame) -> str:
    return frame.assign(overrides=frame["overrides"].map(" ".join)).to_csv(index=False, lineterminator="\n")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path, durable=False) as part:
        part.write_bytes(content)
