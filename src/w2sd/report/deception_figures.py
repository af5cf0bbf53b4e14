"""Figures of jobs with a conflict: selective losses, what flips in the four regions, excess flips, accuracies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from w2sd.metrics.verdict import NONE, STUDENT, Verdict
from w2sd.report import deceptions, notation, style, trends, verdicts
from w2sd.report.deceptions import EXCESS
from w2sd.report.estimates import Estimate
from w2sd.report.figures import (
    LEFT,
    LINE,
    RIGHT,
    WIDTH,
    canvas,
    drawing,
    first_of,
    heading,
    put_words,
    say_under,
    shade,
    sideways,
    whisker,
)
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFLICT = "student, conflict"
MOST = 24  # groups in a figure
NAMES = 1.95  # inches: the names of controls
CELL, ROOM, DEEP = 1.5, 1.35, 0.62  # inches: a region's width, the room for its row's name, its height
WEAK = ("weak knows", "weak does not")
STRONG = ("strong knows", "strong does not")
SQUARE = (("kk", "ku"), ("uk", "uu"))  # first letter: strong


class Cell(NamedTuple):
    """A region pooled over jobs."""

    n: int  # pairs that the baseline gets right
    flips: int


Square = Mapping[str, Cell]


def draw(rulings: Sequence[Ruling]) -> dict[str, Figure]:
    """The figures whose metrics these groups have, by name; of very many groups the first, and a figure says so."""
    found = [ruling for ruling in rulings if deceptions.has(ruling)]
    first, note = found[:MOST], first_of(len(found), MOST, "groups")
    figures = {}
    if judged := [ruling for ruling in rulings if ruling.verdict.losses]:
        figures["selective_loss"] = say_under(_draw_losses(judged[:MOST]), first_of(len(judged), MOST, "groups"))
    if first and all(has_regions(ruling.group.jobs) for ruling in first):
        squares = [(_title(ruling, first), count_regions(ruling.group.values)) for ruling in first]
        figures["regions"] = draw_regions(squares, note)
    if first:
        figures["excess_flips"] = say_under(_draw_excess(first), note)
    if first and all("tax/net" in ruling.group.jobs for ruling in first):
        figures["conflicts"] = say_under(_draw_conflicts(first), note)
    if gap := trends.draw_gaps(found):
        figures["gap"] = gap
    if boundary := trends.draw_boundaries(found):
        figures["boundary"] = boundary
    return figures


def draw_regions(squares: Sequence[tuple[str, Square]], note: str = "") -> Figure:
    """Squares of four cells under their titles, shaded by the share of flips."""
    from matplotlib.figure import Figure

    head = 2.2 * LINE if any(title for title, _ in squares) else LINE
    block, width = head + 2 * DEEP + 0.3, LEFT + WIDTH + RIGHT
    height = block * len(squares) + LINE * bool(note)
    with drawing("regions"):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for place, (title, square) in enumerate(squares):
        top = place * block + head
        heading(axes, 0.03, top - 1.5 * LINE, title)
        _draw_square(axes, top, square)
    axes.text(0.03, height - 0.6 * LINE, note, va="center", color=shade("muted"), fontsize=style.SMALL)
    return figure


def count_regions(jobs: Sequence[Mapping[Any, Any]]) -> Square:
    """What these jobs counted in each region, together."""

    def total(region: str, part: str) -> int:
        counts = (job[f"region/{region}/{part}"] for job in jobs)
        return sum(int(n) for n in counts if not pd.isna(n))

    return {region: Cell(*(total(region, part) for part in Cell._fields)) for row in SQUARE for region in row}


def has_regions(names: Mapping[Any, Any] | pd.DataFrame) -> bool:
    """Whether there are regions among these metrics: only jobs with a conflict have them."""
    return all(f"region/{region}/n" in names for row in SQUARE for region in row)


def _draw_excess(rulings: Sequence[Ruling]) -> Figure:
    """A dot with its interval for the student and for each control, on one line through zero."""
    several = len(rulings) > 1
    arms = [{CONFLICT: EXCESS, **deceptions.controls(ruling.group.jobs)} for ruling in rulings]
    n_lines = sum(len(metrics) + several for metrics in arms) + 0.4 * (len(rulings) - 1)
    figure, axes = canvas(n_lines, top=0.1, left=NAMES)
    y, drawn = 0.0, [Estimate(0.0)]
    for ruling, metrics in zip(rulings, arms, strict=True):
        if several:
            left = -NAMES / (LEFT + WIDTH - NAMES) + 0.03
            heading(axes, left, y + 0.5, _title(ruling, rulings), transform=sideways(axes))
            y += 1
        find = deceptions.mean(ruling)
        axes.plot((0, 0), (y, y + len(metrics)), color=shade("muted"), linewidth=0.8, zorder=1)
        for name, metric in metrics.items():
            drawn.append(estimate := find(metric))
            _dot(axes, y + 0.5, estimate, "student" if metric == EXCESS else "ceiling")
            put_words(axes, y + 0.5, name, notation.flips(*estimate[:3]))
            y += 1
        y += 0.4
    axes.set_xlim(*_limits(drawn))
    axes.set_xlabel("excess flips per 1,000 test pairs")
    return figure


def _draw_losses(rulings: Sequence[Ruling]) -> Figure:
    """A dot for each student, of the conflict and of each control, and a line at their mean."""
    arms = [_students(ruling.verdict) for ruling in rulings]
    n_lines = sum(len(of_arm) + 1 for of_arm in arms) + 0.4 * (len(rulings) - 1)
    figure, axes = canvas(n_lines, top=0.1, left=NAMES)
    y = 0.0
    for ruling, of_arm in zip(rulings, arms, strict=True):
        title = f"{verdicts.describe(ruling)}: {ruling.word}"
        heading(axes, -NAMES / (LEFT + WIDTH - NAMES) + 0.03, y + 0.5, title, transform=sideways(axes))
        y += 1
        axes.plot((0, 0), (y, y + len(of_arm)), color=shade("muted"), linewidth=0.8, zorder=1)
        for name, losses in of_arm.items():
            colour, middle = shade("student" if name == CONFLICT else "ceiling"), sum(losses) / len(losses)
            axes.plot(losses, [y + 0.5] * len(losses), "o", color=colour, markersize=5, alpha=0.5, linewidth=0)
            axes.plot((middle, middle), (y + 0.2, y + 0.8), color=colour, linewidth=2.2, zorder=4)
            put_words(axes, y + 0.5, name, f"{notation.number(middle)}")
            y += 1
        y += 0.4
    axes.set_xlabel("selective loss beyond that of students without a conflict")
    return figure


def _students(verdict: Verdict) -> dict[str, list[float]]:
    """The selective loss of each student beyond the mean of those without a conflict in its world, by arm."""
    means = [sum(world) / len(world) for world in verdict.losses[NONE]]
    arms = {CONFLICT if arm == STUDENT else verdicts.control(arm): arm for arm in (STUDENT, *verdict.p_values)}
    return {
        name: [loss - mean for mean, world in zip(means, verdict.losses[arm], strict=True) for loss in world]
        for name, arm in arms.items()
    }


def _draw_conflicts(rulings: Sequence[Ruling]) -> Figure:
    """The accuracy of each student, and that of its baseline as a ring."""
    from matplotlib.ticker import MaxNLocator

    several = len(rulings) > 1
    height = 2.2 if several else 1.4
    figure, axes = canvas(height * len(rulings), top=0.1)
    drawn = []
    for place, ruling in enumerate(rulings):
        y, find = height * (place + 1) - 0.8, deceptions.mean(ruling)
        student, lost = find("accuracy/student"), find("tax/net")
        heading(axes, -LEFT / WIDTH + 0.03, y - 0.9, _title(ruling, rulings), transform=sideways(axes))
        if student.value is None or lost.value is None:
            continue
        before = student.value + lost.value
        drawn += [student, Estimate(before)]
        axes.plot((student.value, before), (y, y), color=shade("rule"), linewidth=3, zorder=1)
        axes.plot(before, y, "o", mfc="none", mec=shade("ceiling"), markeredgewidth=1.6, markersize=8, zorder=3)
        _dot(axes, y, student, "student")
        put_words(axes, y, "student", notation.estimate("", *student[:3]))
    axes.set_xlim(*_limits(drawn, most=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("accuracy under the conflict; ring: without it")
    return figure


def _dot(axes: Axes, y: float, estimate: Estimate, colour: str) -> None:
    if estimate.value is not None:
        whisker(axes, y, estimate, shade(colour), linewidth=2.2)
        axes.plot(estimate.value, y, "o", color=shade(colour), markersize=7, zorder=4)


def _title(ruling: Ruling, rulings: Sequence[Ruling]) -> str:
    """What a group is called among these; one alone needs no name."""
    n = len(ruling.group.jobs)
    return verdicts.describe(ruling) + (f"  (n = {n})" if n > 1 else "") if len(rulings) > 1 else ""


def _limits(estimates: Sequence[Estimate], most: float = math.inf) -> tuple[float, float]:
    """Room for all values and for their intervals, as far as these are not much wider than all values together."""
    values = [e.value for e in estimates if e.value is not None] or [0.0]
    ends = [end for e in estimates for end in e[:3] if end is not None] or [0.0]
    low, high = min(values), max(values)
    room = 1.5 * (high - low) or 2 * (max(ends) - min(ends)) or 1.0
    low, high = max(min(ends), low - room), min(max(ends), high + room, most)
    edge = 0.06 * (high - low) or 0.05
    return low - edge, high + edge


def _draw_square(axes: Axes, top: float, square: Square) -> None:
    darkest = max((cell.flips / cell.n for cell in square.values() if cell.n), default=0.0) or 1.0
    for across, weak in enumerate(WEAK):
        axes.text(ROOM + (across + 0.5) * CELL, top - 0.1, weak, ha="center", color=shade("ink"))
    for down, row in enumerate(SQUARE):
        y = top + (down + 0.5) * DEEP
        axes.text(ROOM - 0.1, y, STRONG[down], ha="right", va="center", color=shade("ink"))
        for across, region in enumerate(row):
            _draw_cell(axes, ROOM + (across + 0.5) * CELL, y, square[region], darkest, framed=region == "ku")


def _draw_cell(axes: Axes, x: float, y: float, cell: Cell, darkest: float, *, framed: bool) -> None:
    from matplotlib.patches import Rectangle

    share = cell.flips / cell.n if cell.n else 0.0
    corner, size = (x - CELL / 2 + 0.02, y - DEEP / 2 + 0.02), (CELL - 0.04, DEEP - 0.04)
    axes.add_patch(Rectangle(corner, *size, facecolor=shade("student"), alpha=0.5 * share / darkest, linewidth=0))
    edge, weight = ("student", 1.6) if framed else ("rule", 0.8)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=shade(edge), linewidth=weight))
    rate = f"{100 * share:.1f}%" if cell.n else notation.NOTHING
    said = f"{notation.number(cell.flips)} of {notation.number(cell.n)}"
    axes.text(x, y - 0.04, rate, ha="center", va="bottom", color=shade("ink"), fontweight="bold")
    axes.text(x, y + 0.02, said, ha="center", va="top", color=shade("ink"), fontsize=style.SMALL)
