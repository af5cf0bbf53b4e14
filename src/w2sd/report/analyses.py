"""What some jobs tell beyond accuracy and PGR: agreement with the teacher, curves, sizes of models, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from w2sd.report import curves, estimates, knobs, notation, scaling, tables
from w2sd.report.estimates import Row
from w2sd.report.figures import (
    BLOCK,
    LINE,
    MOST,
    canvas,
    first_of,
    put_heading,
    put_words,
    say_under,
    shade,
    whisker,
)
from w2sd.report.pairs_of_models import ModelPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Agreement with the weak teacher"
AGREEING = ("student", "ceiling")
PARTS = {"": "all", "/weak_right": "right", "/weak_wrong": "wrong"}  # of what the teacher says
METRICS = [f"agreement/{role}{part}" for role in AGREEING for part in PARTS]
NOTE = (
    "The share of test {unit} on which student, or ceiling, and weak teacher say the same: of all, of those where the "
    "teacher is right, of those where it is wrong (Burns et al. 2023, figure 8). The ceiling never saw the teacher: "
    "what it shares with it, a student would without imitating."
)
LEGAL = "legal/"  # what a data source says of answers, right or wrong: whether they could be given at all
ZERO_SHOT = "accuracy/zero_shot"  # of the strong model, asked before it is taught
REFINED = {  # labels, as the strong model sees them after a few of their kind
    "refined/accuracy": "right",
    "refined/kept": "as the teacher said",
    "refined/shown": "examples shown on average",
}
ROLES = ("weak", "student", "ceiling")


class Analysis(NamedTuple):
    """A table under its title, and a figure by its name; one of the two may be missing."""

    title: str
    table: tables.Table | None
    name: str = ""
    figure: Figure | None = None


def agreement_table(rows: Sequence[Row], by: Sequence[str], above: str, unit: str) -> tables.Table:
    """Three lines per row: all of what was tested, and where the teacher is right and where it is wrong."""
    notes = tables.Notes()
    lines = [
        (*row.settings.values(), name, *(_cell(row, f"agreement/{role}{part}", notes) for role in AGREEING))
        for row in rows
        for part, name in PARTS.items()
    ]
    columns = (*tables.label(by), "weak teacher", *AGREEING)
    return tables.Table(above, columns, tuple(lines), (*notes.lines(), NOTE.format(unit=unit)), len(by) + 1)


def draw_agreement(rows: Sequence[Row]) -> Figure:
    """Student and ceiling on one line where the teacher is right, and on one where it is wrong."""
    several = len(rows) > 1
    height = BLOCK - 1.0 if several else 2.0
    figure, axes = canvas(len(rows[:MOST]) * height, top=LINE if several else 0.06)
    for place, row in enumerate(rows[:MOST]):
        top = place * height
        if several:
            put_heading(axes, top + 0.5, row)
            top += 1.0
        for line, (part, said) in enumerate([*PARTS.items()][1:]):
            y = top + line + 0.5
            put_words(axes, y, f"if {said}", notation.estimate("", *row.estimates[f"agreement/student{part}"][:3]))
            axes.plot((0, 1), (y, y), color=shade("rule"), linewidth=3, solid_capstyle="butt", zorder=1)
            for role in reversed(AGREEING):
                of = row.estimates[f"agreement/{role}{part}"]
                if of.value is not None:
                    whisker(axes, y, of, shade(role), linewidth=2.2)
                    axes.plot(of.value, y, "o", color=shade(role), markersize=7, clip_on=False, zorder=4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share on which it says what the weak teacher says")
    return say_under(figure, first_of(len(rows), MOST, "rows"))


def make(frame: pd.DataFrame, store: Path, by: Sequence[str] | None, pairs: Sequence[ModelPair]) -> list[Analysis]:
    """All that these jobs allow, for groups of jobs by these settings, or for each job."""
    settings = knobs.telling(frame) if by is None else by
    found = []
    if pairs and (drawn := scaling.draw(pairs)):
        found.append(Analysis("Over the sizes of models", None, "scaling", drawn))
    if set(METRICS) <= set(frame.attrs["metrics"]):
        rows, above = _measure(frame, METRICS, settings, by is None)
        shown = agreement_table(rows, settings, above, knobs.unit(frame))
        found.append(Analysis(TITLE, shown, "agreement", draw_agreement(rows)))
    found += _table(frame, "Before any label", {ZERO_SHOT: "strong model"}, settings, by is None)
    found += _table(frame, "Refined labels", REFINED, settings, by is None)
    watched, seen = curves.read(frame, store)
    if seen:
        shown, drawn = curves.table(watched, settings), curves.draw(watched, seen, settings)
        found.append(Analysis(curves.TITLE, shown, "curves", drawn))
    judged = sorted((metric for metric in frame.attrs["metrics"] if metric.startswith(LEGAL)), key=_order)
    names = {metric: metric.removeprefix(LEGAL) for metric in judged}
    return [*found, *_table(frame, "Legal answers", names, settings, by is None)]


def _cell(row: Row, metric: str, notes: tables.Notes) -> str:
    return tables.cell(metric, row.estimates[metric], notes)


def _table(
    frame: pd.DataFrame, title: str, names: Mapping[str, str], settings: Sequence[str], each: bool
) -> list[Analysis]:
    """A table of those of these metrics that were measured, by their names; nothing where none was."""
    metrics = [metric for metric in names if metric in frame.attrs["metrics"]]
    if not metrics:
        return []
    rows, above = _measure(frame, metrics, settings, each)
    return [Analysis(title, tables.lay_out(rows, settings, metrics, above, names=names))]


def _measure(
    frame: pd.DataFrame, metrics: Sequence[str], settings: Sequence[str], each: bool
) -> tuple[list[estimates.Row], str]:
    """A row for each job or each group, and what stands above a table of them."""
    rows = (estimates.per_job if each else estimates.per_group)(frame, metrics, settings)
    return rows, tables.above(frame, tables.per_test(frame) if each else tables.PER_GROUP)


def _order(metric: str) -> tuple[int, str]:
    role = metric.removeprefix(LEGAL)
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)
