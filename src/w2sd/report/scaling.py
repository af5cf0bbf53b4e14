"""What a student makes of its teacher, over the sizes of models: a line per weak model, a row of panels per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from w2sd.report import curves, notation, tables
from w2sd.report.curves import Entry
from w2sd.report.figures import FURTHEST, first_of, shade
from w2sd.report.groups import MODELS
from w2sd.report.pairs_of_models import AGREEMENT, ModelPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRONG = AGREEMENT[1]
MARKERS = "osD^v<>P"  # one for each line: of more models the first
MOST = 6  # methods
STUDENT = "accuracy/student"
PANELS = {STUDENT: "accuracy", "pgr": "PGR", WRONG: "agreement where the weak model is wrong"}
ASIDE = 1.02  # lines at one size stand a little apart
TICKS = 6  # sizes that are named below a panel


class Point(NamedTuple):
    """A pair of models in a panel."""

    size: float
    value: float
    lo: float | None
    hi: float | None
    hollow: bool


def draw(pairs: Sequence[ModelPair]) -> Figure | None:
    """Accuracy, PGR and agreement with the teacher's errors; None where no two sizes are known.

    Over the strong models' sizes, a line for each weak model; over the weak ones' where there is one strong model.
    """
    known = [pair for pair in pairs if None not in pair.sizes]
    along = _along(known)
    if along is None:
        return None
    lines = {_name(pair, 1 - along): pair.sizes[1 - along] for pair in known}
    names = sorted(lines, key=lambda name: (lines[name] or 0, name))[: len(MARKERS)]
    methods = list(dict.fromkeys(tuple(pair.method.items()) for pair in known))
    metrics = [metric for metric in PANELS if metric in known[0].row.estimates]
    key = [Entry(_look(names, name), f"{MODELS[1 - along]} model {name}") for name in names]
    figure, axes = curves.lay_out(len(metrics) * len(methods[:MOST]), len(metrics), key)
    for place, each in enumerate(axes):
        row, column = divmod(place, len(metrics))
        members = [pair for pair in known if tuple(pair.method.items()) == methods[row]]
        of_method = tables.phrase(dict(methods[row]))
        curves.title(each, f"{PANELS[metrics[column]]}{of_method and ', '}{of_method}")
        for name in names:
            line = [pair for pair in members if _name(pair, 1 - along) == name]
            aside = ASIDE ** (names.index(name) - (len(names) - 1) / 2)
            _draw_line(each, line, metrics[column], along, _look(names, name), aside)
        _scale(each, metrics[column], members, along)
    notes = (first_of(len(methods), MOST, "methods"), first_of(len(lines), len(MARKERS), "models"))
    for each in axes[-len(metrics) :]:
        each.set_xlabel(f"parameters of the {MODELS[along]} model")
    curves.say(axes[-1], *notes)
    return figure


def _along(pairs: Sequence[ModelPair]) -> int | None:
    """Whose sizes are gone along: the strong models' (1), or the weak ones' (0) where there is one strong model."""
    for role in (1, 0):
        if len({pair.sizes[role] for pair in pairs}) > 1:
            return role
    return None


def _draw_line(
    axes: Axes, pairs: Sequence[ModelPair], metric: str, along: int, look: dict[str, Any], aside: float
) -> None:
    """The student, its intervals, and in the panel of accuracies its teacher and ceiling."""
    points = [point._replace(size=point.size * aside) for point in _points(pairs, metric, along)]
    axes.plot([point.size for point in points], [point.value for point in points], **look)
    for point in points:
        if point.lo is not None and point.hi is not None:
            ends = (point.lo, point.hi)
            axes.plot((point.size, point.size), ends, color=look["color"], alpha=0.35, linewidth=1.0, zorder=1)
        if point.hollow:
            hollow = {**look, "mfc": shade("paper"), "alpha": 1.0, "linewidth": 0, "zorder": 5}
            axes.plot(point.size, point.value, **hollow)
    if metric == STUDENT:
        for role, dashes in (("weak", ":"), ("ceiling", "--")):
            beside = _points(pairs, f"accuracy/{role}", along)
            sizes, values = [point.size for point in beside], [point.value for point in beside]
            axes.plot(sizes, values, linestyle=dashes, linewidth=1.0, color=shade(role), zorder=1)


def _points(pairs: Sequence[ModelPair], metric: str, along: int) -> list[Point]:
    """The pairs that have a value, by size."""
    found = []
    for pair in pairs:
        size, of = pair.sizes[along], pair.row.estimates[metric]
        if size is not None and of.value is not None:
            found.append(Point(size, of.value, of.lo, of.hi, bool(pair.excluded)))
    return sorted(found, key=lambda point: point.size)


def _scale(axes: Axes, metric: str, pairs: Sequence[ModelPair], along: int) -> None:
    """Limits that the values set and not their intervals, and the sizes that there are."""
    shown = [metric, "accuracy/weak", "accuracy/ceiling"] if metric == STUDENT else [metric]
    values = [point.value for name in shown for point in _points(pairs, name, along)]
    if metric == "pgr":
        values = [min(max(value, 1 - FURTHEST), FURTHEST) for value in values] + [0, 1]
        for mark in (0, 1):
            axes.axhline(mark, color=shade("muted"), linewidth=0.8, zorder=0)
    low, high = min(values, default=0), max(values, default=1)
    axes.set_ylim(low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1))
    sizes = sorted({size for pair in pairs if (size := pair.sizes[along]) is not None})
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    named = sizes[:: -(-len(sizes) // TICKS)]
    axes.set_xticks(named, [notation.parameters(size) for size in named])
    axes.set_xticks([], minor=True)


def _look(names: Sequence[str], name: str) -> dict[str, Any]:
    """How a line is drawn: the larger its model, the darker."""
    place = names.index(name)
    strength = 0.35 + 0.65 * (place + 1) / len(names)
    return {
        "color": shade("student"),
        "alpha": strength,
        "marker": MARKERS[place],
        "markersize": 5,
        "linewidth": 1.4,
    }


def _name(pair: ModelPair, role: int) -> str:
    return (pair.weak, pair.strong)[role]
