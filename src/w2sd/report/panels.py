"""Figures of several panels, each with axes of its own, under one key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from w2sd.report import style
from w2sd.report.figures import LEFT, LINE, RIGHT, WIDTH, drawing, dress, shade, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW, BROAD = LEFT + WIDTH + RIGHT, 9.6  # inches: half a page, all of it
LINES, HEAD, FOOT = 8, 2.3, 1.7  # of text: a panel's axes, what stands above and below them
ENTRY = 0.95  # of a line: an entry of the key
LETTERS = 13  # of bold small print in an inch
MARGIN, SIDE = 0.6, 0.12  # inches: to the left and to the right of axes


class Entry(NamedTuple):
    """A line of the key: how something is drawn, and what it is."""

    drawn: dict[str, Any]
    said: str


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


def _draw_entry(figure: Figure, width: float, height: float, place: int, entry: Entry) -> None:
    """An entry of the key, at the top of the figure: a stretch of its line with its marker, and what it is."""
    from matplotlib.lines import Line2D

    y = 1 - (place + 0.6) * ENTRY * LINE / height
    ends = (MARGIN / width, (MARGIN + 0.35) / width)
    figure.add_artist(
        Line2D([ends[0], sum(ends) / 2, ends[1]], [y] * 3, markevery=[1], transform=figure.transFigure, **entry.drawn)
    )
    figure.text((MARGIN + 0.45) / width, y, entry.said, va="center", color=shade("ink"), fontsize=style.SMALL)
