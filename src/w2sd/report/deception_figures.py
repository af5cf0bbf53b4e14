"""Figures of deception: excess flips beside their nulls, accuracy by conflict; the others from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2sd.report import boundaries, deceptions, gaps, notation, region_squares, style, verdicts
from w2sd.report.deceptions import EXCESS, NULL
from w2sd.report.estimates import Estimate
from w2sd.report.figures import LEFT, WIDTH, canvas, first_of, heading, say_under, shade, sideways, whisker
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24  # groups in a figure
NAMES = 1.95  # inches: the names of controls


def draw(rulings: Sequence[Ruling]) -> dict[str, Figure]:
    """The figures whose metrics these groups have, by name; of very many groups the first, and a figure says so."""
    found = [ruling for ruling in rulings if deceptions.has(ruling)]
    first, note = found[:MOST], first_of(len(found), MOST, "groups")
    figures = {}
    if first and all(region_squares.measured(ruling.group.jobs) for ruling in first):
        squares = [(_title(ruling, first), region_squares.count(ruling.group.values)) for ruling in first]
        figures["regions"] = region_squares.draw(squares, note)
    if first:
        figures["excess_flips"] = say_under(_draw_excess(first), note)
    if first and all("tax/net" in ruling.group.jobs for ruling in first):
        figures["conflicts"] = say_under(_draw_conflicts(first), note)
    if gap := gaps.draw(found):
        figures["gap"] = gap
    if boundary := boundaries.draw(found):
        figures["boundary"] = boundary
    return figures


def _draw_excess(rulings: Sequence[Ruling]) -> Figure:
    """A dot with its interval for the student and for each control, on one line through zero."""
    several = len(rulings) > 1
    arms = [["student", *deceptions.nulls(ruling.group.jobs)] for ruling in rulings]
    n_lines = sum(len(names) + several for names in arms) + 0.4 * (len(rulings) - 1)
    figure, axes = canvas(n_lines, top=0.1, left=NAMES)
    y = 0.0
    for ruling, names in zip(rulings, arms, strict=True):
        if several:
            left = -NAMES / (LEFT + WIDTH - NAMES) + 0.03
            heading(axes, left, y + 0.5, _title(ruling, rulings), transform=sideways(axes))
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
        heading(axes, -LEFT / WIDTH + 0.03, y - 0.9, _title(ruling, rulings), transform=sideways(axes))
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
    axes.set_xlabel("accuracy under the conflict; ring: without it")
    return figure


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


def _nulls(ruling: Ruling) -> list[str]:
    return [f"{NULL}{name}" for name in deceptions.nulls(ruling.group.jobs)]
