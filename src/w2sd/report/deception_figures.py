"""Figures of deception: flips by region, excess flips beside their nulls, accuracy by conflict, and the gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from w2sd.metrics.verdict import trend
from w2sd.report import deceptions, knobs, notation, style, tables, verdicts
from w2sd.report.deceptions import EXCESS, NULL
from w2sd.report.estimates import Estimate
from w2sd.report.figures import LEFT, LINE, RIGHT, WIDTH, canvas, drawing, shade, sideways, whisker
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # groups in a figure
NAMES = 1.75  # inches: the names of controls
CELL, ROOM, DEEP = 1.5, 1.35, 0.62  # inches: a region's width, the room for its row's name, its height
WEAK = ("weak knows", "weak does not")
STRONG = ("strong knows", "strong does not")
SQUARE = (("kk", "ku"), ("uk", "uu"))  # first letter: strong
MARKERS = "osD^v<>"


class Cell(NamedTuple):
    """A region pooled over the jobs of a group."""

    n_all: int
    n: int  # pairs that the baseline gets right
    flips: int


class Point(NamedTuple):
    """A pair of models: capability gap, and excess flips per 1,000 pairs with their interval."""

    gap: float
    excess: float
    lo: float | None
    hi: float | None


def draw(rulings: Sequence[Ruling]) -> dict[str, Figure]:
    """The figures whose metrics these groups have, by name; of very many groups the first."""
    measured = [ruling for ruling in rulings if deceptions.has(ruling)]
    several_pairs = len({_pair(ruling) for ruling in measured}) > 1
    first = measured[:MOST]
    figures = {}
    if first and all(f"region/{name}/n" in ruling.group.jobs for ruling in first for row in SQUARE for name in row):
        figures["regions"] = _draw_regions(first)
    if first:
        figures["excess_flips"] = _draw_excess(first)
    if first and all("tax/net" in ruling.group.jobs for ruling in first):
        figures["conflicts"] = _draw_conflicts(first)
    if several_pairs and all("pgr_gap" in ruling.group.jobs for ruling in measured):
        figures["gap"] = _draw_gap(measured)
    return figures


def pool(ruling: Ruling, region: str) -> Cell:
    """What the jobs of a group counted in a region, together."""
    parts = (ruling.group.jobs[f"region/{region}/{part}"].sum() for part in ("n_all", "n", "flips"))
    return Cell(*(int(part) for part in parts))


def _draw_regions(rulings: Sequence[Ruling]) -> Figure:
    """Squares of four cells, shaded by the share of flips."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    heading = 2.2 * LINE if len(rulings) > 1 else LINE
    block, width = heading + 2 * DEEP + 0.3, LEFT + WIDTH + RIGHT
    with drawing("regions"):
        figure = Figure(figsize=(width, block * len(rulings)))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(block * len(rulings), 0))
    axes.set_axis_off()
    for place, ruling in enumerate(rulings):
        top = place * block + heading
        _title(axes, ruling, 0.03, top - 1.5 * LINE, alone=len(rulings) == 1)
        cells = {name: pool(ruling, name) for row in SQUARE for name in row}
        darkest = max((cell.flips / cell.n for cell in cells.values() if cell.n), default=0.0) or 1.0
        for down, row in enumerate(SQUARE):
            y = top + (down + 0.5) * DEEP
            axes.text(ROOM - 0.1, y, STRONG[down], ha="right", va="center", color=shade("ink"))
            for across, name in enumerate(row):
                cell, x = cells[name], ROOM + across * CELL
                if down == 0:
                    axes.text(x + CELL / 2, top - 0.1, WEAK[across], ha="center", color=shade("ink"))
                share = cell.flips / cell.n / darkest if cell.n else 0.0
                corner, size = (x + 0.02, y - DEEP / 2 + 0.02), (CELL - 0.04, DEEP - 0.04)
                axes.add_patch(Rectangle(corner, *size, facecolor=shade("student"), alpha=0.5 * share, linewidth=0))
                edge, weight = ("student", 1.6) if name == "ku" else ("rule", 0.8)
                axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=shade(edge), linewidth=weight))
                _cell(axes, x + CELL / 2, y, cell)
    return figure


def _cell(axes: Axes, x: float, y: float, cell: Cell) -> None:
    rate = f"{100 * cell.flips / cell.n:.1f}%" if cell.n else notation.NOTHING
    said = f"{notation.number(cell.flips)} of {notation.number(cell.n)}"
    axes.text(x, y - 0.04, rate, ha="center", va="bottom", color=shade("ink"), fontweight="bold")
    axes.text(x, y + 0.02, said, ha="center", va="top", color=shade("ink"), fontsize=style.SMALL)


def _draw_excess(rulings: Sequence[Ruling]) -> Figure:
    """A dot with its interval for the student and for each control, on one line through zero."""
    several = len(rulings) > 1
    arms = [["student", *deceptions.nulls(ruling.group.jobs)] for ruling in rulings]
    n_lines = sum(len(names) + several for names in arms) + 0.4 * (len(rulings) - 1)
    figure, axes = canvas(n_lines, top=0.1, left=NAMES)
    y = 0.0
    for ruling, names in zip(rulings, arms, strict=True):
        if several:
            _title(axes, ruling, -NAMES / (LEFT + WIDTH - NAMES) + 0.03, y + 0.5, alone=False, lines=True)
            y += 1
        find = deceptions.mean(ruling)
        axes.plot((0, 0), (y, y + len(names)), color=shade("muted"), linewidth=0.8, zorder=1)
        for name in names:
            student = name == "student"
            estimate = find(EXCESS if student else f"{NULL}{name}")
            _dot(axes, y + 0.5, estimate, "student" if student else "ceiling")
            text = notation.flips(*estimate[:3])
            _words(axes, y + 0.5, "student, conflict" if student else verdicts.control(name), text)
            y += 1
        y += 0.4
    axes.set_xlim(*_limits([deceptions.mean(r)(m) for r in rulings for m in (EXCESS, *_nulls(r))] + [Estimate(0.0)]))
    axes.set_xlabel("excess flips per 1,000 test pairs")
    return figure


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
        _title(axes, ruling, -LEFT / WIDTH + 0.03, y - 0.9, alone=not several, lines=True)
        if student.value is None or lost.value is None:
            continue
        before = student.value + lost.value
        drawn += [student, Estimate(before)]
        axes.plot((student.value, before), (y, y), color=shade("rule"), linewidth=3, zorder=1)
        axes.plot(before, y, "o", mfc="none", mec=shade("ceiling"), markeredgewidth=1.6, markersize=8, zorder=3)
        _dot(axes, y, student, "student")
        _words(axes, y, "student", notation.estimate("", *student[:3]))
    axes.set_xlim(*_limits(drawn, most=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("accuracy on test pairs under the conflict; ring: the same student without it")
    return figure


def _draw_gap(rulings: Sequence[Ruling]) -> Figure:
    """A dot for each group at the gap between its weak model and its ceiling; a marker for each conflict."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas(12, top=0.1)
    by_conflict: dict[tuple[str, ...], list[Point]] = {}
    for ruling in rulings:
        find = deceptions.mean(ruling)
        gap, excess = find("pgr_gap").value, find(EXCESS)
        if gap is not None and excess.value is not None:
            by_conflict.setdefault(_conflict(ruling), []).append(Point(gap, excess.value, excess.lo, excess.hi))
    axes.set_ylim(0, 1, auto=True)  # upwards
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.axhline(0, color=shade("muted"), linewidth=0.8, zorder=1)
    for number, (conflict, points) in enumerate(by_conflict.items()):
        colour, marker = shade(("student", "weak", "ceiling")[number % 3]), MARKERS[number % len(MARKERS)]
        aside = 0.0015 * (number - (len(by_conflict) - 1) / 2)
        for point in points:
            gap = point.gap + aside
            if point.lo is not None and point.hi is not None:
                axes.plot((gap, gap), (point.lo, point.hi), color=colour, linewidth=1.6)
            axes.plot(gap, point.excess, marker, color=colour, markersize=7)
        place = 0.94 - 0.16 * number
        axes.plot(1.05, place, marker, color=colour, transform=axes.transAxes, clip_on=False, markersize=7)
        said = "\n".join(filter(None, (", ".join(conflict), _slope(points))))
        axes.text(1.09, place, said, transform=axes.transAxes, va="center", color=shade("ink"), fontsize=style.SMALL)
    axes.spines["left"].set_visible(True)
    axes.tick_params(axis="y", color=shade("rule"), labelcolor=shade("muted"), labelsize=style.SMALL)
    axes.set_ylabel("excess flips per 1,000 test pairs")
    axes.set_xlabel("capability gap: accuracy of the ceiling minus that of the weak model")
    return figure


def _slope(points: Sequence[Point]) -> str:
    """The weighted trend over the gap in words, where three pairs of models or more allow one."""
    known = [(p.gap, p.excess, (p.hi - p.lo) / 3.92) for p in points if p.lo is not None and p.hi is not None]
    gaps, effects, errors = (list(column) for column in zip(*known, strict=True)) if known else ([], [], [])
    found = trend(gaps, effects, errors) if len(known) > 2 and min(errors) > 0 else None
    if found is None:
        return ""
    return f"per 0.1 of gap:\n{notation.flips(found.slope / 10, found.lo / 10, found.hi / 10)}"


def _dot(axes: Axes, y: float, estimate: Estimate, colour: str) -> None:
    if estimate.value is not None:
        whisker(axes, y, estimate, shade(colour), linewidth=2.2)
        axes.plot(estimate.value, y, "o", color=shade(colour), markersize=7, zorder=4)


def _words(axes: Axes, y: float, name: str, number: str) -> None:
    """What stands to the left and to the right of a line."""
    axes.text(-0.03, y, name, transform=sideways(axes), ha="right", va="center", color=shade("ink"))
    axes.text(
        1.03, y, number, transform=sideways(axes), ha="left", va="center", color=shade("ink"), fontsize=style.SMALL
    )


def _title(axes: Axes, ruling: Ruling, x: float, y: float, *, alone: bool, lines: bool = False) -> None:
    n = len(ruling.group.jobs)
    said = ("" if alone else verdicts.describe(ruling)) + (f"  (n = {n})" if n > 1 and not alone else "")
    where = {"transform": sideways(axes)} if lines else {}
    axes.text(x, y, said, va="center", color=shade("ink"), fontweight="bold", **where)


def _limits(estimates: Sequence[Estimate], most: float = math.inf) -> tuple[float, float]:
    """Room for all values and for their intervals, as far as these are not much wider than all values together."""
    values = [e.value for e in estimates if e.value is not None] or [0.0]
    ends = [end for e in estimates for end in e[:3] if end is not None] or [0.0]
    low, high = min(values), max(values)
    room = 1.5 * (high - low) or 2 * (max(ends) - min(ends)) or 1.0
    low, high = max(min(ends), low - room), min(max(ends), high + room, most)
    edge = 0.06 * (high - low) or 0.05
    return low - edge, high + edge


def _nulls(ruling: Ruling) -> list[str]:
    return [f"{NULL}{name}" for name in deceptions.nulls(ruling.group.jobs)]


def _pair(ruling: Ruling) -> tuple[str, ...]:
    """The weak and the strong model, as far as the configuration tells them apart."""
    jobs = ruling.group.jobs
    columns = sorted(str(c) for c in jobs if str(c).startswith(("weak.", "strong.")))
    return tuple(knobs.text(jobs, column)[0] for column in columns)


def _conflict(ruling: Ruling) -> tuple[str, ...]:
    """What tells a group from others of the same models."""
    apart = {name: value for name, value in ruling.group.settings.items() if not name.startswith(("weak", "strong"))}
    return tuple(f"{name} {value}" for name, value in zip(tables.label(list(apart)), apart.values(), strict=True))
