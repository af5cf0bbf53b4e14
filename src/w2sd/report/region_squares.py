"""The four regions as squares: what flips where, by what the strong and the weak model know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from w2sd.report import notation, style
from w2sd.report.figures import LEFT, LINE, RIGHT, WIDTH, drawing, heading, shade

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, ROOM, DEEP = 1.5, 1.35, 0.62  # inches: a region's width, the room for its row's name, its height
WEAK = ("weak knows", "weak does not")
STRONG = ("strong knows", "strong does not")
SQUARE = (("kk", "ku"), ("uk", "uu"))  # first letter: strong


class Cell(NamedTuple):
    """A region pooled over jobs."""

    n_all: int
    n: int  # pairs that the baseline gets right
    flips: int


Square = Mapping[str, Cell]


def measured(names: Mapping[Any, Any] | pd.DataFrame) -> bool:
    """Whether there are regions among these metrics: only jobs with a conflict have them."""
    return all(f"region/{region}/n" in names for row in SQUARE for region in row)


def count(jobs: Sequence[Mapping[Any, Any]]) -> Square:
    """What these jobs counted in each region, together."""

    def total(region: str, part: str) -> int:
        counts = (job[f"region/{region}/{part}"] for job in jobs)
        return sum(int(n) for n in counts if not pd.isna(n))

    return {region: Cell(*(total(region, part) for part in Cell._fields)) for row in SQUARE for region in row}


def draw(squares: Sequence[tuple[str, Square]], note: str = "") -> Figure:
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
        _draw(axes, top, square)
    axes.text(0.03, height - 0.6 * LINE, note, va="center", color=shade("muted"), fontsize=style.SMALL)
    return figure


def _draw(axes: Axes, top: float, square: Square) -> None:
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
