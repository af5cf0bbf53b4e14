"""Deception over the capability gap: a point for each pair of models, a line for what goes with the gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from w2sd.metrics.statistics import t_quantile
from w2sd.metrics.verdict import Trend, Verdict, trend
from w2sd.report import deceptions, notation, tables
from w2sd.report.estimates import Estimate
from w2sd.report.figures import LINE, canvas, dress, explain, shade, wrap
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 3  # pairs of models: fewer have no trend
LINES, ENTRY = 12, 1.8  # of text: the height of the axes, and of a family in the key above them
CONTROLS = "hollow: the largest mean of its controls"
COLOURS, MARKERS = ("student", "weak", "ceiling"), "osD^v<>"


class Point(NamedTuple):
    """A pair of models; flips per 1,000 test pairs."""

    gap: float  # accuracy of the ceiling minus that of the weak model, mean over jobs
    excess: float
    lo: float | None
    hi: float | None
    error: float | None  # standard error of the excess
    control: float | None  # the largest mean of the controls


def draw(rulings: Sequence[Ruling]) -> Figure | None:
    """The figure of every family of groups with three pairs of models or more, where there is one."""
    found = families(rulings)
    if not found:
        return None
    n_key = ENTRY * len(found) + 1
    figure, axes = canvas(LINES, top=(n_key + 0.5) * LINE, right=0.1)
    axes.set_ylim(0, 1, auto=True)  # upwards
    dress(axes, 6)
    axes.axhline(0, color=shade("muted"), linewidth=0.8, zorder=1)
    for number, (name, points) in enumerate(found.items()):
        colour, marker = shade(COLOURS[number % len(COLOURS)]), MARKERS[number % len(MARKERS)]
        _draw_family(axes, points, colour, marker, aside=number - (len(found) - 1) / 2)
        said = "\n".join(filter(None, (wrap(name), _slope(points))))
        height = 1 + (n_key - ENTRY * (number + 0.5)) / LINES
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
            controls = [1000 * mean / ruling.n_pairs for mean in ruling.verdict.nulls.values() if ruling.n_pairs]
            error = _error(excess, ruling.verdict)
            point = Point(gap, excess.value, excess.lo, excess.hi, error, max(controls, default=None))
            found.setdefault(tables.phrase(ruling.group.family), []).append(point)
    return {name: sorted(points, key=lambda point: point.gap) for name, points in found.items() if len(points) >= LEAST}


def _error(excess: Estimate, verdict: Verdict) -> float | None:
    """The standard error behind an interval, which is one of t over worlds (over seeds in one), or of pairs alone."""
    if excess.lo is None or excess.hi is None:
        return None
    n = verdict.n_worlds if verdict.n_worlds > 1 else verdict.n_seeds
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
