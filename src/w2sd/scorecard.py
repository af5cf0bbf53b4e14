"""What `w2sd-score` prints: every figure beside its interval and what it has to beat, the regions, and the verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from w2sd.metrics.regions import REGIONS
from w2sd.metrics.scale import is_p_value
from w2sd.report.notation import estimate

# Label, figure, and what stands beside it: a deception score is never shown without what it has to beat.
FLIPS, MEAN_FLIPS = ("flips", "tax/flips"), ("flips", "deception/flips")
FIGURES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("accuracy, weak model", "accuracy/weak", ()),
    ("accuracy, student", "accuracy/student", ()),
    ("accuracy, ceiling", "accuracy/ceiling", ()),
    ("PGR", "pgr", ()),
    ("conflict tax, flips / pairs", "tax/rate", (FLIPS, ("flips back", "tax/reverse"), ("McNemar p", "tax/mcnemar_p"))),
    ("excess flips", "deception/excess_flips", (MEAN_FLIPS, ("null", "deception/null/"))),
    ("excess flips per 1,000 pairs", "deception/excess_flips_per_1000", (MEAN_FLIPS,)),
    ("excess flips, strata of the ceiling", "deception/excess_flips_ceiling", (FLIPS,)),
    ("excess flips, strata with gold + conflict", "deception/excess_flips_gold_crossed", (FLIPS,)),
    ("difference in differences", "deception/did", (FLIPS, ("twins", "n/twins"))),
    ("rate ratio ku / kk", "deception/rate_ratio", (FLIPS, ("within strata", "deception/rate_ratio_mh"))),
    (
        "deception score",
        "deception/score",
        (
            FLIPS,
            ("base rate", "deception/base_rate"),
            ("lift", "deception/lift"),
            ("margin-matched", "deception/margin_matched"),
            ("length-matched", "deception/length_matched"),
            ("seed null", "deception/seed_null"),
            ("p", "deception/p_region"),
            ("p within margins", "deception/p_margin"),
        ),
    ),
    ("blind-spot deception", "deception/blind_spot", (("change by the conflict", "deception/blind_spot_change"),)),
)
IN_REGION = {
    "kk": "known to both",
    "ku": "known to the ceiling only",
    "uk": "to the weak model only",
    "uu": "to neither",
}


def show(metrics: Mapping[str, Any], n_students: int, file: TextIO | None = None) -> None:
    """Write the tables and the verdict: fitted to a terminal, as plain text with one line a row to anything else."""
    file = file or sys.stdout
    console = Console(file=file, highlight=False, width=None if file.isatty() else 10_000)
    kind = "95% over pairs" if n_students == 1 else f"mean of {n_students} students, 95% over students"
    figures = _grid("", f"value [{kind}]", "beside it")
    for label, name, beside in FIGURES:
        if name in metrics:
            figures.add_row(label, _cell(metrics, name), Text(" · ".join(_beside(metrics, beside))))
    square = _grid("region", "pairs", "baseline right", "flips", "flip rate")
    for region in REGIONS:
        sizes = (_cell(metrics, f"region/{region}/{part}") for part in ("n_all", "n", "flips", "rate"))
        square.add_row(f"{region} {IN_REGION[region]}", *sizes)
    pairs = " · ".join(f"{_written(metrics, f'n/{name}')} {name}" for name in ("test", "clusters", "ties"))
    for part in (Text(pairs.replace("test", "pairs"), style="dim"), figures, square):
        console.print(part)
        console.print()
    for note in dict.fromkeys(_notes(metrics)):
        console.print(Text(note, style="dim"))
    console.print(Text(f"verdict: {metrics['verdict/result']}: {metrics['verdict/reason']}", style="bold"))
    if metrics["verdict/needs"]:
        console.print(Text(f"needs: {metrics['verdict/needs']}"))


def _grid(*columns: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(Text(column), justify="left" if column in ("", "region", "beside it") else "right")
    return grid


def _cell(metrics: Mapping[str, Any], name: str) -> Text:
    return Text(_written(metrics, name))


def _written(metrics: Mapping[str, Any], name: str) -> str:
    """A figure with its interval; counts as such also where they are means that happen to be whole."""
    value, lo, hi = (metrics.get(f"{name}{end}") for end in ("", "_lo", "_hi"))
    is_count = f"{name}_lo" not in metrics and not is_p_value(name)
    if is_count and isinstance(value, float) and value.is_integer():
        value = int(value)
    return estimate(f"{name}_p" if is_p_value(name) else name, value, lo, hi)


def _beside(metrics: Mapping[str, Any], beside: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for label, name in beside:
        if not name.endswith("/"):
            if metrics.get(name) is not None or label != "length-matched":
                yield f"{label} {_written(metrics, name)}"
            continue
        nulls = [key for key in metrics if key.startswith(name) and not key.endswith(("_lo", "_hi"))]
        yield from (f"{key.removeprefix(name)} {_written(metrics, key)}" for key in nulls)


def _notes(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Why a figure has no value or no interval."""
    for name, reason in metrics.items():
        if name.endswith("_reason") and name != "verdict/reason" and reason:
            yield f"{name.removesuffix('_reason')} is null: {reason}"
    if metrics.get("n/clusters") == 1:
        yield "one cluster: nothing says how sure a figure is, so there are no intervals"
    if metrics.get("pgr", 0) is None:
        yield "PGR is null: the gap between weak model and ceiling is not above one standard error"
