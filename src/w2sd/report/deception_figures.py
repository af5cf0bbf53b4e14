"""Where flips happen on the scale of the weak model's confidence: a line for each group, on its training pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd

from w2sd.config import NOT_RECORDED
from w2sd.metrics.robustness import EDGES
from w2sd.report import deceptions, gaps, notation, region_squares, style, verdicts
from w2sd.report.deceptions import EXCESS, NULL
from w2sd.report.estimates import Estimate
from w2sd.report.figures import (
    LEFT,
    LINE,
    WIDTH,
    canvas,
    dress,
    explain,
    first_of,
    heading,
    say_under,
    shade,
    sideways,
    whisker,
    wrap,
)
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES, ENTRY = 12, 0.95  # of text: the height of the axes, and of a line of the key above them
BOUNDARY_LEFT = 0.6  # inches
MARKERS = "osD^v<>PX*"
# A reward model on soft labels of the weak model itself, and a mask against the truth: no more is known.
CONDITIONS = {
    "conflict._target_": "Explicit",
    "conflict.mask": "truth",
    "objective._target_": "RewardBCE",
    "supervision._target_": "Soft",
    "chain._target_": "Direct",
}


def draw_boundaries(rulings: Sequence[Ruling]) -> Figure | None:
    """Flip rates of the groups that were looked at on training pairs; dotted, where an explicit conflict should end."""
    lines = {verdicts.describe(ruling): rates(ruling.group.jobs) for ruling in rulings}
    found = [(ruling, name) for ruling, name in zip(rulings, lines, strict=True) if lines[name]]
    shown = found[: len(MARKERS)]
    if not shown:
        return None
    n_key = ENTRY * len(shown)
    figure, axes = canvas(LINES, top=(n_key + 0.5) * LINE, left=BOUNDARY_LEFT, right=0.1)
    for place, (ruling, name) in enumerate(shown):
        strength = 0.25 + 0.75 * (place + 1) / len(shown)
        how: dict[str, Any] = {"color": shade("student"), "alpha": strength, "marker": MARKERS[place], "markersize": 5}
        axes.plot(list(lines[name]), list(lines[name].values()), linewidth=1.4, **how)
        if (ends := boundary(ruling.group.jobs)) is not None:
            axes.axvline(ends, color=shade("student"), alpha=strength, linewidth=0.9, linestyle=":")
        height = 1 + (n_key - ENTRY * (place + 0.5)) / LINES
        explain(axes, height, wrap(name) + ("" if ends is None else f"; dotted at {ends:.2f}"), **how)
    axes.set_ylim(0, 1.08 * max(rate for _, name in shown for rate in lines[name].values()) or 1)
    dress(axes, 6)
    axes.set_ylabel("flip rate on training pairs")
    axes.set_xlabel("weak model's confidence in the truth (leftmost: below .5)")
    return say_under(figure, first_of(len(found), len(MARKERS), "groups"))


def rates(jobs: pd.DataFrame) -> Mapping[float, float]:
    """The share of training pairs that flip, all jobs together, by the middle of the weak confidence's bin."""
    found = {}
    for low, high in pairwise(EDGES):
        counts, shares = (f"boundary/training/{part}/{low:.2f}" for part in ("n", "rate"))
        if counts not in jobs or not (n := jobs[counts].sum()):
            continue
        middle = (low + high) / 2 if low else EDGES[1] - (high - low) / 20  # what is below .5 stands beside it
        found[middle] = float((jobs[shares].fillna(0) * jobs[counts]).sum() / n)
    return found


def boundary(jobs: pd.DataFrame) -> float | None:
    """(1 + α) / 2 where all jobs have one explicit conflict under the conditions of docs/concepts.md."""
    for part, name in CONDITIONS.items():
        if part not in jobs or {str(value).rpartition(".")[2] for value in jobs[part]} != {name}:
            return None
    strengths = {*jobs["conflict.alpha"]}
    return (1 + float(strengths.pop())) / 2 if len(strengths) == 1 and NOT_RECORDED not in strengths else None


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
    if boundary := draw_boundaries(found):
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
