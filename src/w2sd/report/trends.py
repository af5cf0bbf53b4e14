"""Deception along a scale: over the capability gap of pairs of models, and over the weak model's confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from w2sd.config import NOT_RECORDED
from w2sd.metrics.robustness import EDGES
from w2sd.metrics.statistics import t_quantile
from w2sd.metrics.verdict import Trend, trend
from w2sd.report import deceptions, notation, tables, verdicts
from w2sd.report.estimates import Estimate
from w2sd.report.figures import LINE, canvas, dress, explain, first_of, say_under, shade, wrap
from w2sd.report.groups import worlds_and_seeds
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 12  # of text: the height of the axes
ENTRY, FAMILY = 0.95, 1.8  # of a line, and of a family, in the key above them
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
LEAST = 3  # pairs of models: fewer have no trend
CONTROLS = "hollow: the largest mean of its controls"
COLOURS = ("student", "weak", "ceiling")


class Point(NamedTuple):
    """A pair of models; flips per 1,000 test pairs."""

    gap: float  # accuracy of the ceiling minus that of the weak model, mean over jobs
    excess: float
    lo: float | None
    hi: float | None
    error: float | None  # standard error of the excess
    control: float | None  # the largest mean of the controls


def draw_gaps(rulings: Sequence[Ruling]) -> Figure | None:
    """The figure of every family of groups with three pairs of models or more, where there is one."""
    found = families(rulings)
    if not found:
        return None
    n_key = FAMILY * len(found) + 1
    figure, axes = canvas(LINES, top=(n_key + 0.5) * LINE, right=0.1)
    axes.set_ylim(0, 1, auto=True)  # upwards
    dress(axes, 6)
    axes.axhline(0, color=shade("muted"), linewidth=0.8, zorder=1)
    for number, (name, points) in enumerate(found.items()):
        colour, marker = shade(COLOURS[number % len(COLOURS)]), MARKERS[number % len(MARKERS)]
        _draw_family(axes, points, colour, marker, aside=number - (len(found) - 1) / 2)
        said = "\n".join(filter(None, (wrap(name), _slope(points))))
        height = 1 + (n_key - FAMILY * (number + 0.5)) / LINES
        explain(axes, height, said, marker=marker, markersize=7, color=colour, linestyle="")
    hollow = {"mfc": "none", "mec": shade("muted")}
    explain(axes, 1 + 0.5 / LINES, CONTROLS, marker="o", markersize=6, linestyle="", **hollow)
    axes.set_ylabel("excess flips per 1,000 test pairs")
    axes.set_xlabel("capability gap: accuracy of the ceiling minus that of the weak model")
    return figure


def caption(rulings: Sequence[Ruling]) -> str:
    """The trend of each family, for below the figure."""
    slopes = [f"{name}: {slope}" for name, points in families(rulings).items() if (slope := _slope(points))]
    taken = "Pairs of models are taken for independent, though they share rungs and worlds"
    return f"Slopes: {'; '.join(slopes)}. {taken}." if slopes else ""


def families(rulings: Sequence[Ruling]) -> Mapping[str, list[Point]]:
    """The pairs of models of each conflict, by what tells it from the others, where there are enough."""
    found: dict[str, list[Point]] = {}
    for ruling in filter(deceptions.has, rulings):
        find = deceptions.mean(ruling)
        gap, excess = find("pgr_gap").value, find(deceptions.EXCESS)
        if gap is not None and excess.value is not None:
            means = [find(metric).value for metric in deceptions.controls(ruling.group.jobs).values()]
            largest = max((mean for mean in means if mean is not None), default=None)
            point = Point(gap, excess.value, excess.lo, excess.hi, _error(excess, ruling), largest)
            found.setdefault(tables.phrase(ruling.group.family), []).append(point)
    return {name: sorted(points, key=lambda point: point.gap) for name, points in found.items() if len(points) >= LEAST}


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


def _error(excess: Estimate, ruling: Ruling) -> float | None:
    """The standard error behind an interval, which is one of t over worlds (over seeds in one), or of pairs alone."""
    if excess.lo is None or excess.hi is None:
        return None
    n = len({world for world, _ in worlds_and_seeds(ruling.group.jobs)})
    n = n if n > 1 else len(ruling.group.jobs) - excess.n_null
    return (excess.hi - excess.lo) / 2 / (t_quantile(n - 1) if n > 1 else 1.96)


def _draw_family(axes: Axes, points: Sequence[Point], colour: str, marker: str, aside: float) -> None:
    """Points, a little aside from those of other conflicts at the same gap, and the trend through them."""
    step = 0.025 * aside * (points[-1].gap - points[0].gap)
    for point in points:
        gap = point.gap + step
        if point.lo is not None and point.hi is not None:
            axes.plot((gap, gap), (point.lo, point.hi), color=colour, linewidth=1.6)
        axes.plot(gap, point.excess, marker, color=colour, markersize=7, zorder=4)
        if point.control is not None:
            axes.plot(gap, point.control, marker, mfc=shade("paper"), mec=colour, markersize=6, zorder=3)
    if found := _trend(points):
        gaps, effects, errors = _known(points)
        weights = np.asarray(errors) ** -2
        middle, level = np.average(gaps, weights=weights), np.average(effects, weights=weights)
        ends = [points[0].gap, points[-1].gap]
        axes.plot(ends, [level + found.slope * (end - middle) for end in ends], color=colour, linewidth=0.9, zorder=2)


def _slope(points: Sequence[Point]) -> str:
    """The trend in words, where there is one."""
    found = _trend(points)
    if found is None:
        return ""
    tenth = notation.flips(found.slope / 10, found.lo / 10, found.hi / 10)
    return f"{tenth} per 0.1 of gap, {notation.p_value(found.p)}, {len(_known(points)[0])} pairs of models"


def _trend(points: Sequence[Point]) -> Trend | None:
    gaps, effects, errors = _known(points)
    return trend(gaps, effects, errors) if len(gaps) >= LEAST and min(errors) > 0 else None


def _known(points: Sequence[Point]) -> tuple[list[float], list[float], list[float]]:
    """Gaps, effects and standard errors of the points that have an interval."""
    known = [(p.gap, p.excess, p.error) for p in points if p.error is not None]
    gaps, effects, errors = ([row[place] for row in known] for place in range(3))
    return gaps, effects, errors
