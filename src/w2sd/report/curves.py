"""Students while they were trained, a panel for each group; and how figures of several panels are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from w2sd.pipeline.store import Store
from w2sd.predictions import Column
from w2sd.report import estimates, knobs, notation, style, tables
from w2sd.report.estimates import Row
from w2sd.report.figures import LEFT, LINE, RIGHT, WIDTH, drawing, dress, first_of, shade, wrap
from w2sd.report.records import curve, read_jobs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW, BROAD = LEFT + WIDTH + RIGHT, 9.6  # inches: half a page, all of it
LINES, HEAD, FOOT = 8, 2.3, 1.7  # of text: a panel's axes, what stands above and below them
ENTRY = 0.95  # of a line: an entry of the key
LETTERS = 13  # of bold small print in an inch
MARGIN, SIDE = 0.6, 0.12  # inches: to the left and to the right of axes
TITLE = "Students while they were trained, on held-out rows"
MOST, COLUMNS = 12, 3  # panels
METRICS = {
    "curve/kept": "kept at epoch",
    "curve/kept_truth": "right, kept",
    "curve/truth": "right, last",
    "curve/best": "right, best look",
    "curve/labels": "as its labels, last",
    "curve/gap": "gap, last",
}
NOTE = (
    "Right: the share of held-out rows where the student is right; the best look after the first is chosen by the "
    "truth, among noisy looks, and no stopping that anyone could do. Gap: agreement with its labels minus the share "
    "right, at the end; that of a student that says what its labels say is the share of them that is wrong."
)
LOOKS = {"labels": ("weak", "agrees with its labels"), "truth": ("student", "is right")}


class Entry(NamedTuple):
    """A line of the key: how something is drawn, and what it is."""

    drawn: dict[str, Any]
    said: str


class Curve(NamedTuple):
    """What was seen of one student."""

    epochs: Column
    labels: Column
    truth: Column
    kept: float  # the epoch whose weights are the student's


def lay_out(n: int, columns: int, key: Sequence[Entry]) -> tuple[Figure, list[Axes]]:
    """A figure and the axes of `n` panels, row by row; broad where there are several columns."""
    from matplotlib.figure import Figure

    rows, width = -(-n // columns), BROAD if columns > 1 else NARROW
    panel, top = (HEAD + LINES + FOOT) * LINE, (ENTRY * len(key) + 0.3) * LINE
    height, across = top + rows * panel, width / columns
    with drawing("canvas"):
        figure = Figure(figsize=(width, height))
        axes = []
        for place in range(n):
            row, column = divmod(place, columns)
            bottom = height - top - row * panel - (HEAD + LINES) * LINE
            inner = (across - MARGIN - SIDE) / width
            axes.append(
                figure.add_axes(((column * across + MARGIN) / width, bottom / height, inner, LINES * LINE / height))
            )
        for each in axes:
            dress(each, 5)
    for place, entry in enumerate(key):
        _draw_entry(figure, width, height, place, entry)
    return figure, axes


def title(axes: Axes, said: str, finding: str = "") -> None:
    """What a panel is about, in bold above it, and below that what is found there."""
    above: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "color": shade("ink")}
    room = round(LETTERS * axes.bbox.width / axes.figure.dpi)
    axes.text(0, 1 + 0.25 / LINES, finding, fontsize=style.SMALL, **above)
    start = 1 + (0.95 if finding else 0.25) / LINES
    axes.text(0, start, wrap(said, room), fontweight="bold", fontsize=style.SMALL, **above)


def say(axes: Axes, *notes: str) -> None:
    """Notes after the name of the axis across."""
    axes.set_xlabel(" ".join(filter(None, (axes.get_xlabel(), *notes))))


def read(frame: pd.DataFrame, store: Path) -> tuple[pd.DataFrame, dict[str, Curve]]:
    """The jobs whose student was watched, with what their curves say as metrics; and the curves by job."""
    if "stopping/step" not in frame or "fit.epochs" not in frame:
        return frame.iloc[:0], {}
    damages = frame.attrs["damages"]
    records = {job.id: job for job in read_jobs(store, damages)}
    found = {}
    for job in frame.to_dict("records"):
        looks = curve(records[job["id"]], Store(store), damages)
        if looks and looks[-1].step:
            per_step = float(job["fit.epochs"]) / looks[-1].step
            epochs, labels, truth = (np.array(column, dtype=float) for column in zip(*looks, strict=True))
            found[job["id"]] = Curve(epochs * per_step, labels, truth, float(job["stopping/step"]) * per_step)
    there = frame[frame["id"].isin(found)]
    curves = [found[job] for job in there["id"]]
    said = {
        "curve/kept": [one.kept for one in curves],
        "curve/kept_truth": there["stopping/truth"],
        "curve/truth": [one.truth[-1] for one in curves],
        "curve/best": [one.truth[1:].max() for one in curves],  # the first has learnt nothing
        "curve/labels": [one.labels[-1] for one in curves],
        "curve/gap": [one.labels[-1] - one.truth[-1] for one in curves],
    }
    return there.copy().assign(**said), found


def rows(watched: pd.DataFrame, by: Sequence[str]) -> list[Row]:
    """A row per combination of these settings: means over its jobs."""
    return estimates.per_group(watched, list(METRICS), by)


def table(watched: pd.DataFrame, by: Sequence[str]) -> tables.Table:
    """Where each group's students ended, what was kept, and how far apart labels and truth are."""
    above = tables.above(watched, tables.PER_GROUP)
    found = rows(watched, by)
    if len(found) == 1:
        return tables.upright(found[0], METRICS, above).noting(NOTE)
    return tables.lay_out(found, by, list(METRICS), above, count=True, names=METRICS).noting(NOTE)


def draw(watched: pd.DataFrame, curves: Mapping[str, Curve], by: Sequence[str]) -> Figure:
    """A panel per group: means over its jobs, from the lowest to the highest job, and a dot for each kept student."""
    found = rows(watched, by)
    settings = list(zip(*(knobs.text(watched, column) for column in by), strict=True)) if by else [()] * len(watched)
    of_job = dict(zip(watched["id"], settings, strict=True))
    key = [Entry({"color": shade(colour), "linewidth": 1.6}, f"the student {said}") for colour, said in LOOKS.values()]
    shown = found[:MOST]
    figure, axes = lay_out(len(shown), _columns(len(shown)), key)
    for row, each in zip(shown, axes, strict=True):
        members = [curves[job] for job, values in of_job.items() if values == tuple(row.settings.values())]
        _draw_group(each, members)
        gap = row.estimates["curve/gap"]
        said = notation.estimate("", gap.value, gap.lo, gap.hi)
        title(each, tables.describe(row), f"gap at the end {said}")
    low = min(min(one.labels.min(), one.truth.min()) for one in curves.values())
    for each in axes:
        each.set_ylim(low - 0.03, 1.0)
    for each in axes[-_columns(len(shown)) :]:
        each.set_xlabel("epochs")
    say(axes[-1], first_of(len(found), MOST, "groups"))
    return figure


def _draw_entry(figure: Figure, width: float, height: float, place: int, entry: Entry) -> None:
    """An entry of the key, at the top of the figure: a stretch of its line with its marker, and what it is."""
    from matplotlib.lines import Line2D

    y = 1 - (place + 0.6) * ENTRY * LINE / height
    ends = (MARGIN / width, (MARGIN + 0.35) / width)
    figure.add_artist(
        Line2D([ends[0], sum(ends) / 2, ends[1]], [y] * 3, markevery=[1], transform=figure.transFigure, **entry.drawn)
    )
    figure.text((MARGIN + 0.45) / width, y, entry.said, va="center", color=shade("ink"), fontsize=style.SMALL)


def _columns(n: int) -> int:
    return n if n < COLUMNS else 2 if n == 4 else COLUMNS


def _draw_group(axes: Axes, members: Sequence[Curve]) -> None:
    """Both means and bands, on the looks of the job that has most of them."""
    epochs = max((one.epochs for one in members), key=len)
    for name, (colour, _) in LOOKS.items():
        lines = np.array([np.interp(epochs, one.epochs, getattr(one, name)) for one in members])
        axes.plot(epochs, lines.mean(axis=0), color=shade(colour), linewidth=1.6, zorder=3)
        if len(members) > 1:
            axes.fill_between(
                epochs, lines.min(axis=0), lines.max(axis=0), color=shade(colour), alpha=0.18, linewidth=0, zorder=1
            )
        kept = [float(np.interp(one.kept, one.epochs, getattr(one, name))) for one in members]
        axes.plot([one.kept for one in members], kept, "o", color=shade(colour), markersize=4, clip_on=False, zorder=4)
