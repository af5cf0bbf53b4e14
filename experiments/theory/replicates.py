"""Shared by the scripts of this folder: flags, intervals over replicates, the table, the style of figures."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from w2sd.errors import Refused
from w2sd.metrics.statistics import Mean

Values = NDArray[np.float64]
Toy = TypeVar("Toy")

WEAK, STUDENT, CEILING, MUTED, RULE = "#d9a441", "#2473c2", "#8b97a4", "#66707c", "#dfe3e7"
SMALL = 8.5  # points: the size of small print


def from_command_line(toy: Callable[..., Toy], script: str, about: str | None) -> tuple[Toy, int, Path]:
    """Return the toy that the flags ask for, the seed, and the path of the figure.

    Each field of the toy's dataclass is a flag. The figure lies beside the script unless `--figure` says otherwise.
    """
    parser = argparse.ArgumentParser(
        description=(about or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for field in dataclasses.fields(toy):  # type: ignore[arg-type]
        several = isinstance(field.default, tuple)
        kind = type(field.default[0] if several else field.default)
        flag, nargs = f"--{field.name.replace('_', '-')}", "+" if several else None
        parser.add_argument(flag, type=kind, nargs=nargs, default=field.default, help=" ")
    parser.add_argument("--seed", type=int, default=0, help=" ")
    parser.add_argument("--figure", type=Path, default=Path(script).with_suffix(".png"), help="where the PNG goes")
    flags = vars(parser.parse_args())
    seed, figure = flags.pop("seed"), flags.pop("figure")
    try:
        sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
        return toy(**sizes), seed, figure
    except Refused as error:
        parser.error(str(error))


def over_resamples(figure: Callable[..., float], *arrays_R: Values, n_resamples: int = 500) -> Mean:
    """Return a figure of all replicates with its 95% bootstrap interval over replicates, the first axis.

    There is no interval where the figure is undefined (NaN) in more than one resample of twenty.
    """
    value, n, rng = figure(*arrays_R), len(arrays_R[0]), np.random.default_rng(0)
    picks = (rng.integers(n, size=n) for _ in range(n_resamples))
    draws = np.array([figure(*(array[pick] for array in arrays_R)) for pick in picks])
    defined = draws[~np.isnan(draws)]
    if n < 2 or len(defined) < 0.95 * n_resamples or math.isnan(value):
        return Mean(value)
    lo, hi = np.quantile(defined, [0.025, 0.975])
    return Mean(value, float(lo), float(hi))


def show(table: Mapping[str, Mean | str]) -> None:
    """Print the table, a line for each entry."""
    width = max(map(len, table))
    for name, cell in table.items():
        print(f"{name:<{width}}  {cell if isinstance(cell, str) else _in_words(cell)}")


def report_progress(done: int, total: int) -> None:
    """Print on a terminal how many replicates are done."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} replicates", end="" if done < total else "\n", file=sys.stderr)


def canvas(n_axes: int, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes side by side; `legend` is the room to the right of them, in inches."""
    width, height = 5.3 + 2.0 * (n_axes - 1), 3.0
    style: Any = {"font.size": 9.0, "axes.edgecolor": RULE, "axes.labelcolor": MUTED, "axes.labelsize": SMALL}
    style |= {f"{axis}tick.{part}": value for axis in "xy" for part, value in TICKS.items()}
    with mpl.rc_context({**style, "axes.spines.right": False, "axes.spines.top": False, "legend.fontsize": SMALL}):
        figure = Figure(figsize=(width, height))
        axes = [figure.add_subplot(1, n_axes, place + 1) for place in range(n_axes)]
        right = 1 - max(legend, 0.15) / width
        figure.subplots_adjust(left=0.6 / width, right=right, bottom=0.5 / height, top=0.9, wspace=0.35)
    return figure, axes


TICKS = {"color": RULE, "labelcolor": MUTED, "labelsize": SMALL, "major.size": 3.0}


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and say where."""
    figure.savefig(path, dpi=192, metadata={"Software": None})
    print(f"figure: {path}")


def _in_words(mean: Mean) -> str:
    interval = "" if mean.lo is None or mean.hi is None else f" [{_number(mean.lo)}, {_number(mean.hi)}]"
    return _number(mean.value) + interval


def _number(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.0005 else f"{value:.0e}"
