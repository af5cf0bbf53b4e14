"""Figures of simulated theories, from the points of their curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from w2sd.report import style
from w2sd.report.estimates import Estimate, over_jobs
from w2sd.report.figures import drawing, dress, shade

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.3, 3.0  # inches
FAINTEST = 0.3  # the smallest n of several


def draw_transition(curves: pd.DataFrame, job: dict[Any, Any]) -> Figure:
    """Errors over u, a line for each n: the darker, the larger. Dashed: what is expected of the student."""
    figure, (axes,) = _canvas(1, right=1.9)
    ns = sorted(curves["n"].unique())
    shades = {n: FAINTEST + (1 - FAINTEST) * place / max(1, len(ns) - 1) for place, n in enumerate(ns)}
    for n in ns:
        _points(axes, curves[curves["n"] == n], "student", color=shade("student"), alpha=shades[n], n=n)
    means = curves.groupby(["n", "u"])[["weak", "ceiling", "expected_student"]].mean()
    for n in ns:
        weak, expected = means.loc[n]["weak"], means.loc[n]["expected_student"]
        axes.plot(expected.index, expected, "--", linewidth=0.9, color=shade("student"), alpha=shades[n])
        axes.plot(weak.index, weak, ":", color=shade("weak"), alpha=shades[n], label=f"weak model, n = {n}")
    ceiling = means.loc[ns[-1]]["ceiling"]
    axes.plot(ceiling.index, ceiling, color=shade("ceiling"), label=f"ceiling, n = {ns[-1]}")
    axes.axhline(0.5, color=shade("rule"), linewidth=0.8, zorder=0)
    for name, said in (("threshold/ours", "leading order"), ("threshold/transcribed", "as transcribed")):
        axes.axvline(job[name], color=shade("muted"), linewidth=0.8, zorder=0)
        axes.text(job[name], 0.61, said, ha="center", va="bottom", fontsize=style.SMALL, color=shade("muted"))
    axes.set_ylim(0, 0.6)
    axes.set_xlabel("u, of n^u pseudo-labels")
    axes.set_ylabel("error")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=style.SMALL)
    return figure


def draw_pythagoras(curves: pd.DataFrame, job: dict[Any, Any]) -> Figure:
    """The gain over the misfit of every student; and the slack over how long a penalised head is."""
    figure, (left, right) = _canvas(2)
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3, "markeredgewidth": 0, "alpha": 0.6}
    for sweep, colour, said in (("teachers", "student", "truth in the class"), ("outside", "weak", "truth outside")):
        own = curves[(curves["sweep"] == sweep) & ((sweep == "teachers") | (curves["x"] > 0))]
        left.plot(own["misfit"], own["risk_weak"] - own["risk_student"], color=shade(colour), label=said, **dot)
    most = float(curves["misfit"].max())
    left.plot((0, most), (0, most), color=shade("muted"), linewidth=0.8, zorder=0)
    left.set_xlabel("misfit")
    left.set_ylabel("gain: risk of weak model − of student")
    left.legend(loc="lower left", frameon=False, fontsize=style.SMALL)
    own = curves[curves["sweep"] == "ridges"]
    for colour, said, held in (
        ("student", "long enough", own["length"] >= 1),
        ("ceiling", "too short", own["length"] < 1),
    ):
        right.plot(own["length"][held], own["slack_own"][held], color=shade(colour), label=said, **dot)
    right.axhline(0, color=shade("muted"), linewidth=0.8, zorder=0)
    right.axvline(1, color=shade("muted"), linewidth=0.8, zorder=0)
    right.set_xlabel("length of a ridge head, over that of the truth's")
    right.set_ylabel("slack on its own rows")
    right.legend(loc="lower right", frameon=False, fontsize=style.SMALL)
    return figure


def _points(axes: Axes, own: pd.DataFrame, role: str, *, color: str, alpha: float, n: int) -> None:
    """The mean over replicates at each u, with its 95% t interval."""
    means = {u: over_jobs(f"error/{role}", [Estimate(value) for value in part[role]]) for u, part in own.groupby("u")}
    look: dict[str, Any] = {"color": color, "alpha": alpha}
    values = [mean.value or 0.0 for mean in means.values()]
    axes.plot(list(means), values, marker="o", markersize=3, linewidth=1.4, label=f"{role}, n = {n}", **look)
    for u, mean in means.items():
        if mean.lo is not None and mean.hi is not None:
            axes.plot((u, u), (mean.lo, mean.hi), linewidth=0.9, **look)


def _canvas(n_axes: int, right: float = 0.15) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side; inches to the right are for a legend."""
    from matplotlib.figure import Figure

    width = WIDTH + (n_axes - 1) * 2.0
    with drawing("canvas"):
        figure = Figure(figsize=(width, HEIGHT))
        found = [figure.add_subplot(1, n_axes, place + 1) for place in range(n_axes)]
        figure.subplots_adjust(left=0.6 / width, right=1 - right / width, bottom=0.5 / HEIGHT, top=0.9, wspace=0.35)
        for axes in found:
            dress(axes, length=3)
    return figure, found
