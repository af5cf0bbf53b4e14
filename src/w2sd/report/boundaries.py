"""Where flips happen on the scale of the weak model's confidence: a line for each group, on its training pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd

from w2sd.config import NOT_RECORDED
from w2sd.metrics.boundary import EDGES
from w2sd.report import verdicts
from w2sd.report.figures import LINE, canvas, dress, explain, first_of, say_under, shade, wrap
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES, ENTRY = 12, 0.95  # of text: the height of the axes, and of a line of the key above them
LEFT = 0.6  # inches
MARKERS = "osD^v<>PX*"
# A reward model on soft labels of the weak model itself, and a mask against the truth: no more is known.
CONDITIONS = {
    "conflict._target_": "Explicit",
    "conflict.mask": "truth",
    "objective._target_": "RewardBCE",
    "supervision._target_": "Soft",
    "chain._target_": "Direct",
}


def draw(rulings: Sequence[Ruling]) -> Figure | None:
    """Flip rates of the groups that were looked at on training pairs; dotted, where an explicit conflict should end."""
    lines = {verdicts.describe(ruling): rates(ruling.group.jobs) for ruling in rulings}
    found = [(ruling, name) for ruling, name in zip(rulings, lines, strict=True) if lines[name]]
    shown = found[: len(MARKERS)]
    if not shown:
        return None
    n_key = ENTRY * len(shown)
    figure, axes = canvas(LINES, top=(n_key + 0.5) * LINE, left=LEFT, right=0.1)
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
