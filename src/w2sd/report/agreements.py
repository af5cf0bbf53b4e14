"""How far students say what their teacher says, where it is right and where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2sd.report import tables
from w2sd.report.estimates import Row
from w2sd.report.figures import (
    BLOCK,
    LINE,
    MOST,
    canvas,
    first_of,
    put_heading,
    put_number,
    say_under,
    shade,
    sideways,
    whisker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Agreement with the weak teacher"
ROLES = ("student", "ceiling")
PARTS = {"": "all", "/weak_right": "right", "/weak_wrong": "wrong"}  # of what the teacher says
METRICS = [f"agreement/{role}{part}" for role in ROLES for part in PARTS]
NOTE = (
    "The share of test {unit} on which student, or ceiling, and weak teacher say the same: of all, of those where the "
    "teacher is right, of those where it is wrong (Burns et al. 2023, figure 8). The ceiling never saw the teacher: "
    "what it shares with it, a student would without imitating."
)


def table(rows: Sequence[Row], by: Sequence[str], above: str, unit: str) -> tables.Table:
    """Three lines per row: all of what was tested, and where the teacher is right and where it is wrong."""
    notes = tables.Notes()
    lines = [
        (*row.settings.values(), said, *(_cell(row, f"agreement/{role}{part}", notes) for role in ROLES))
        for row in rows
        for part, said in PARTS.items()
    ]
    columns = (*tables.label(by), "weak teacher", *ROLES)
    return tables.Table(above, columns, tuple(lines), (*notes.lines(), NOTE.format(unit=unit)), len(by) + 1)


def draw(rows: Sequence[Row]) -> Figure:
    """Student and ceiling on one line where the teacher is right, and on one where it is wrong."""
    several = len(rows) > 1
    height = BLOCK - 1.0 if several else 2.0
    figure, axes = canvas(len(rows[:MOST]) * height, top=LINE if several else 0.06)
    for place, row in enumerate(rows[:MOST]):
        top = place * height
        if several:
            put_heading(axes, top + 0.5, row)
            top += 1.0
        for line, (part, said) in enumerate([*PARTS.items()][1:]):
            y = top + line + 0.5
            axes.text(-0.03, y, f"if {said}", transform=sideways(axes), ha="right", va="center", color=shade("ink"))
            put_number(axes, y, "", row.estimates[f"agreement/student{part}"])
            axes.plot((0, 1), (y, y), color=shade("rule"), linewidth=3, solid_capstyle="butt", zorder=1)
            for role in reversed(ROLES):
                of = row.estimates[f"agreement/{role}{part}"]
                if of.value is not None:
                    whisker(axes, y, of, shade(role), linewidth=2.2)
                    axes.plot(of.value, y, "o", color=shade(role), markersize=7, clip_on=False, zorder=4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share on which it says what the weak teacher says")
    return say_under(figure, first_of(len(rows), MOST, "rows"))


def _cell(row: Row, metric: str, notes: tables.Notes) -> str:
    return tables.cell(metric, row.estimates[metric], notes)
