"""Figures with intervals: accuracies as bars from chance, PGR on the line from weak teacher to ceiling."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from w2sd.report import notation, style, tables
from w2sd.report.estimates import Estimate, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = 0.5
BARS = {"accuracy/weak": "weak", "accuracy/student": "student", "accuracy/ceiling": "ceiling"}
LEFT, WIDTH, RIGHT = 0.85, 2.9, 1.55  # inches: names, axes, numbers
LINE = 0.27  # inches: the height of a line of text, and of a bar with its gap
BLOCK = 4.4  # lines for one of several rows, in every figure: a heading, three bars, a gap
LONG, SMALL_LONG = 60, 72  # letters that a line has room for: a heading in bold, small print
MOST = 48  # rows in a figure: more is a table's work
FURTHEST = 2.0  # a PGR beyond -1 or 2 is drawn as an arrow: its number stands beside it


def draw(rows: Sequence[Row], unit: str) -> dict[str, Figure]:
    """The figures of accuracy and PGR, by name; of very many rows the first.

    `unit` is what was tested: of pairs it is known what chance gets right.
    """
    drawn = {"accuracy": _draw_accuracy(rows[:MOST], unit), "pgr": _draw_pgr(rows[:MOST])}
    return {name: say_under(figure, first_of(len(rows), MOST, "rows")) for name, figure in drawn.items()}


def to_svg(name: str, figure: Figure) -> str:
    """The figure as a document of its own, the same bytes for the same numbers."""
    with drawing(name):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue().decode()


def to_png(name: str, figure: Figure) -> bytes:
    """The figure as an image at twice the usual resolution."""
    with drawing(name):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=192, metadata={"Software": None})
    return file.getvalue()


def inline(name: str, svg: str) -> str:
    """The drawing for use inside a page: ids of its own, and colours that follow the page's theme."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, (light, _) in style.COLOURS.items():
        body = body.replace(f": {light}", f": var(--{colour})")
    return body.replace("<svg ", '<svg aria-hidden="true" ', 1).strip()


def _draw_accuracy(rows: Sequence[Row], unit: str) -> Figure:
    start, called = (CHANCE, "chance") if unit == "pairs" else (0.0, "zero")
    ends = [x for row in rows for metric in BARS for x in row.estimates[metric][:2] if x is not None]
    lowest = min([start, *ends])
    several = len(rows) > 1
    height = BLOCK if several else len(BARS)
    figure, axes = canvas(len(rows) * height, top=LINE if several else 0.06)
    for place, row in enumerate(rows):
        top = place * height
        if several:
            put_heading(axes, top + 0.5, row)
            top += 1.0
        for line, (metric, role) in enumerate(BARS.items()):
            estimate, y = row.estimates[metric], top + line + 0.5
            put_words(axes, y, role, notation.estimate(metric, *estimate[:3]))
            axes.plot((start, start), (y - 0.5, y + 0.5), color=shade("muted"), linewidth=0.8, zorder=2)
            if estimate.value is not None:
                axes.barh(y, estimate.value - start, left=start, height=0.62, color=shade(role))
                whisker(axes, y, estimate, shade("ink"))
    axes.set_xlim(start if lowest == start else lowest - 0.03, 1.0)
    axes.set_xlabel(f"accuracy on test {unit}; bars start at {called}")
    return figure


def _draw_pgr(rows: Sequence[Row]) -> Figure:
    several = len(rows) > 1
    height = BLOCK if several else 2.0
    figure, axes = canvas(len(rows) * height, top=LINE)
    ends = [x for row in rows for x in row.estimates["pgr"][:3] if x is not None]
    axes.set_xlim(max(1 - FURTHEST, min(-0.08, *ends, 0) - 0.04), min(FURTHEST, max(1.08, *ends, 1) + 0.04))
    for mark, meaning in ((0, "weak teacher"), (1, "ceiling")):
        axes.annotate(
            meaning, (mark, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", color=shade("muted"), fontsize=style.SMALL,
        )  # fmt: skip
    for place, row in enumerate(rows):
        y = place * height + (1.9 if several else 1.0)
        if several:
            put_heading(axes, place * height + 0.5, row)
        axes.plot((0, 1), (y, y), color=shade("rule"), linewidth=3, solid_capstyle="butt", zorder=1)
        for mark in (0, 1):
            axes.plot((mark, mark), (y - 0.5, y + 0.5), color=shade("muted"), linewidth=0.8, zorder=2)
        put_words(axes, y, "" if several else "PGR", notation.estimate("pgr", *row.estimates["pgr"][:3]))
        _point(axes, y, row)
    axes.set_xlabel("share of the performance gap recovered")
    return figure


def _point(axes: Axes, y: float, row: Row) -> None:
    """A dot with its interval, the jobs behind a mean as small dots; what lies outside the axes is an arrow."""
    low, high = axes.get_xlim()
    behind = [job["pgr"].value for job in row.jobs if job["pgr"].value is not None]
    if len(behind) > 1:
        axes.plot(
            behind,
            [y + 0.55] * len(behind),
            ".",
            color=shade("student"),
            alpha=0.55,
            markersize=7.5,
            markeredgewidth=0,
        )
    estimate = row.estimates["pgr"]
    if estimate.value is None:
        return
    whisker(axes, y, estimate, shade("student"), linewidth=2.2)
    shown = min(max(estimate.value, low), high)
    marker = "o" if shown == estimate.value else ("<" if shown == low else ">")
    axes.plot(shown, y, marker, color=shade("student"), markersize=8, clip_on=False, zorder=4)


def first_of(n: int, most: int, things: str) -> str:
    """What a figure says that shows only some of what there is; else nothing."""
    return f"(the first {most} of {n} {things})" if n > most else ""


def say_under(figure: Figure, note: str) -> Figure:
    """The figure with a note after the name of its axis."""
    axes = figure.axes[0]
    axes.set_xlabel(f"{axes.get_xlabel()} {note}".strip())
    return figure


def whisker(axes: Axes, y: float, estimate: Estimate, colour: str, linewidth: float = 1.1) -> None:
    """The interval of an estimate as a line, if it has one."""
    if estimate.lo is not None and estimate.hi is not None:
        axes.plot((estimate.lo, estimate.hi), (y, y), color=colour, linewidth=linewidth, zorder=3)


def put_words(axes: Axes, y: float, name: str, number: str) -> None:
    """What stands to the left and to the right of a line."""
    look = {"transform": sideways(axes), "va": "center", "color": shade("ink")}
    axes.text(-0.03, y, name, ha="right", **look)
    axes.text(1.03, y, number, ha="left", fontsize=style.SMALL, **look)


def put_heading(axes: Axes, y: float, row: Row) -> None:
    """What tells a row from the others, in bold above it."""
    n = f"  (n = {row.n})" if row.jobs else ""
    heading(axes, -LEFT / WIDTH + 0.03, y, tables.describe(row) + n, transform=sideways(axes))


def heading(axes: Axes, x: float, y: float, said: str, **where: Any) -> None:
    """What a part of a figure is about: one line, or two small ones."""
    if len(said) > LONG:
        where |= {"fontsize": style.SMALL}
        said = wrap(said)
    axes.text(x, y, said, va="center", color=shade("ink"), fontweight="bold", **where)


def wrap(said: str, width: int = SMALL_LONG) -> str:
    """Small print in two lines at most, of so many letters."""
    return textwrap.fill(said, width, max_lines=2, placeholder=" …")


def canvas(n_lines: float, top: float, left: float = LEFT, right: float = RIGHT) -> tuple[Figure, Axes]:
    """A figure and its axes, measured in lines from the top; inches to the left are for names, to the right numbers."""
    from matplotlib.figure import Figure

    bottom, inner = 0.5, n_lines * LINE
    width, height = LEFT + WIDTH + RIGHT, top + inner + bottom
    with drawing("canvas"):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, inner / height))
    axes.set_ylim(n_lines, 0)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure, axes


def dress(axes: Axes, most: int) -> None:
    """An upright scale to the left, in muted small print, with about `most` numbers; nothing above or to the right."""
    from matplotlib.ticker import MaxNLocator

    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(side == "left")
    axes.yaxis.set_major_locator(MaxNLocator(most))
    axes.tick_params(axis="y", color=shade("rule"), labelcolor=shade("muted"), labelsize=style.SMALL)


def explain(axes: Axes, y: float, said: str, **drawn: Any) -> None:
    """An entry of a key above the axes, at a height in fractions of them: a marker, and what it is."""
    axes.plot(0.02, y, transform=axes.transAxes, clip_on=False, **drawn)
    axes.text(0.05, y, said, transform=axes.transAxes, va="center", color=shade("ink"), fontsize=style.SMALL)


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """The style of all figures, and ids in their SVG that depend on `salt` alone."""
    import matplotlib

    parameters: Any = {**style.MATPLOTLIB, "svg.hashsalt": salt}
    with matplotlib.rc_context(parameters):
        yield


def sideways(axes: Axes) -> Any:
    """Across in fractions of the axes, down in lines."""
    return axes.get_yaxis_transform()


def shade(colour: str) -> str:
    """A colour of the palette on light ground, which `inline` turns into that of the page's theme."""
    return style.COLOURS[colour][0]
