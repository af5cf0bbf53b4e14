"""The analyses of weak-to-strong generalisation (Burns et al. 2023), where the jobs have what each needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from w2sd.report import agreements, curves, estimates, knobs, scaling, tables
from w2sd.report.pairs_of_models import ModelPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGAL = "legal/"  # what a data source says of answers, right or wrong: whether they could be given at all
ZERO_SHOT = "accuracy/zero_shot"  # of the strong model, asked before it is taught
REFINED = {  # labels, as the strong model sees them after a few of their kind
    "refined/accuracy": "right",
    "refined/kept": "as the teacher said",
    "refined/shown": "examples shown on average",
}
ROLES = ("weak", "student", "ceiling")


class Analysis(NamedTuple):
    """A table under its title, and a figure by its name; one of the two may be missing."""

    title: str
    table: tables.Table | None
    name: str = ""
    figure: Figure | None = None


def make(frame: pd.DataFrame, store: Path, by: Sequence[str] | None, pairs: Sequence[ModelPair] = ()) -> list[Analysis]:
    """All that these jobs allow, for groups of jobs by these settings, or for each job."""
    settings = knobs.telling(frame) if by is None else by
    found = []
    if pairs and (drawn := scaling.draw(pairs)):
        found.append(Analysis("Over the sizes of models", None, "scaling", drawn))
    if set(agreements.METRICS) <= set(frame.attrs["metrics"]):
        rows, above = _measure(frame, agreements.METRICS, settings, by is None)
        shown = agreements.table(rows, settings, above, knobs.unit(frame))
        found.append(Analysis(agreements.TITLE, shown, "agreement", agreements.draw(rows)))
    if ZERO_SHOT in frame.attrs["metrics"]:
        rows, above = _measure(frame, [ZERO_SHOT], settings, by is None)
        names = {ZERO_SHOT: "strong model"}
        found.append(Analysis("Before any label", tables.lay_out(rows, settings, [ZERO_SHOT], above, names=names)))
    if refined := [metric for metric in REFINED if metric in frame.attrs["metrics"]]:
        rows, above = _measure(frame, refined, settings, by is None)
        found.append(Analysis("Refined labels", tables.lay_out(rows, settings, refined, above, names=REFINED)))
    watched, seen = curves.read(frame, store)
    if seen:
        shown, drawn = curves.table(watched, settings), curves.draw(watched, seen, settings)
        found.append(Analysis(curves.TITLE, shown, "curves", drawn))
    if judged := [metric for metric in frame.attrs["metrics"] if metric.startswith(LEGAL)]:
        names = {metric: metric.removeprefix(LEGAL) for metric in sorted(judged, key=_order)}
        rows, above = _measure(frame, list(names), settings, by is None)
        found.append(Analysis("Legal answers", tables.lay_out(rows, settings, list(names), above, names=names)))
    return found


def _measure(
    frame: pd.DataFrame, metrics: Sequence[str], settings: Sequence[str], each: bool
) -> tuple[list[estimates.Row], str]:
    """A row for each job or each group, and what stands above a table of them."""
    rows = (estimates.per_job if each else estimates.per_group)(frame, metrics, settings)
    return rows, tables.above(frame, tables.per_test(frame) if each else tables.PER_GROUP)


def _order(metric: str) -> tuple[int, str]:
    role = metric.removeprefix(LEGAL)
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)
