"""Simulated theories: their figures in a table and a drawing, in a section of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from w2sd.pipeline.store import Store
from w2sd.report import knobs, tables, theory_figures
from w2sd.report.estimates import per_job

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS = "theory._target_"  # the column that says which theory a job simulates
MOST = 4  # jobs of a theory whose curves are drawn
REPLICATES = "95% intervals over replicates"


class Kind(NamedTuple):
    """How a theory is shown: its figures by what a reader calls them, and its curves."""

    title: str
    metrics: Mapping[str, str]
    draw: Callable[[pd.DataFrame, dict[Any, Any]], Figure] | None = None
    caption: str = ""


class Drawn(NamedTuple):
    """The curves of one job, and what is to be seen in them."""

    figure: Figure
    caption: str


class Section(NamedTuple):
    """What a page says of all jobs of one theory."""

    title: str
    commands: list[str]
    table: tables.Table
    drawn: dict[str, Drawn]  # by the name of a file


KINDS = {
    "w2sd.theory.benign_overfitting.BenignOverfitting": Kind(
        "Benign overfitting",
        {
            "error/weak": "error, weak model (largest n)",
            "error/student": "error, student (largest n and u)",
            "error/ceiling": "error, ceiling (the same rows, true labels)",
            "transition/measured": "u where the student's error falls below ¼",
            "transition/expected": "the same to leading order",
            "threshold/ours": "u of the threshold, leading order",
            "threshold/transcribed": "u of the threshold, as transcribed (unverified)",
            "between/u": "u between these two",
            "between/change": "change of the error there, smallest to largest n",
            "exponent/weak": "weak model: power of n in signal over noise",
            "exponent/expected": "the same to leading order, at these n",
            "exponent/limit": "the same to leading order, in the limit",
            "exponent/transcribed": "the same as transcribed (unverified)",
        },
        theory_figures.draw_transition,
        "Error on new rows over how many rows the weak model labels: means over replicates with 95% t intervals, the "
        "darker the larger n. Dashed: leading order. Past a threshold the error falls with n, before it rises.",
    ),
    "w2sd.theory.misfit.Misfit": Kind(
        "Misfit",
        {
            "projection/gain": "gain of students over their teachers",
            "projection/misfit": "misfit",
            "projection/slack": "slack on new rows",
            "projection/slack_own": "slack on own rows, largest",
            "ridge/holds_long": "ridge heads that are long enough: inequality holds",
            "ridge/holds_short": "ridge heads that are too short: inequality holds",
            "ridge/slack_largest": "slack on own rows, largest penalty",
            "outside/slack": "truth outside of the class: slack",
            "outside/expected": "the same, expected",
            "outside/gain": "truth outside of the class: gain",
            "rank/weak_risk": "ranking teachers by their risk",
            "rank/difference": "ranking teachers by risk − misfit",
            "rank/student_risk": "ranking teachers by their student's risk",
        },
        theory_figures.draw_pythagoras,
        "Left: what a student gains over its misfit, one dot per student; on the line the two are equal. Right: slack "
        "of ridge heads over their length; with a head as long as the truth's or longer the inequality is sure.",
    ),
}


def summary(simulated: pd.DataFrame) -> dict[str, tables.Table]:
    """A table for each theory by its title: a line per figure of one job, or a line per job of several."""
    return {_kind(name, jobs).title: _table(_kind(name, jobs), jobs) for name, jobs in _by_theory(simulated)}


def read(simulated: pd.DataFrame, store: Path) -> list[Section]:
    """A section for each theory, with the curves of its first jobs."""
    sections = []
    for name, jobs in _by_theory(simulated):
        kind = _kind(name, jobs)
        file, drawn = kind.title.lower().replace(" ", "_"), {}
        for place, job in enumerate(jobs.to_dict("records")[:MOST], start=1):
            if kind.draw is None:
                break
            curves = pd.read_csv(Store(store).file("simulate", job["compare"], "curves.csv"))
            which = f" ({_settings(jobs, place - 1)})" if len(jobs) > 1 else ""
            drawn[f"{file}_{place}" if place > 1 else file] = Drawn(kind.draw(curves, job), kind.caption + which)
        sections.append(Section(kind.title, [*dict.fromkeys(jobs["command"])], _table(kind, jobs), drawn))
    return sections


def _by_theory(simulated: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if not len(simulated):
        return []
    return [(name, simulated[simulated[CLASS] == name]) for name in dict.fromkeys(simulated[CLASS])]


def _kind(name: str, jobs: pd.DataFrame) -> Kind:
    """How a theory is shown; one of somebody else's by all that it measured, without a figure."""
    measured = {metric: metric for metric in jobs.attrs["metrics"] if jobs[metric].notna().any()}
    return KINDS.get(name) or Kind(name.rpartition(".")[2], measured)


def _table(kind: Kind, jobs: pd.DataFrame) -> tables.Table:
    metrics = list(kind.metrics)
    if len(jobs) > 1:
        by = knobs.telling(jobs)
        return tables.lay_out(per_job(jobs, metrics, by), by, metrics, f"{kind.title} · {REPLICATES}")
    (row,) = per_job(jobs, metrics, ())
    notes = tables.Notes()
    cells = tuple((said, tables.cell(metric, row.estimates[metric], notes)) for metric, said in kind.metrics.items())
    return tables.Table(f"{kind.title} · {REPLICATES}", ("", "value [95% interval]"), cells, notes.lines())


def _settings(jobs: pd.DataFrame, place: int) -> str:
    by = knobs.telling(jobs)
    said = dict(zip(tables.label(by), (knobs.text(jobs, column)[place] for column in by), strict=True))
    return ", ".join(f"{name} {value}" for name, value in said.items())
