"""Stage `compare`: all models of a job on the same pairs, every figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2sd.atomic import read_json, write_json
from w2sd.data.pairs import SPLITS, Table, drops_long, read
from w2sd.metrics import robustness
from w2sd.metrics.measurement import compare
from w2sd.metrics.saliency import saliency
from w2sd.pipeline.plan import SALIENCY, SAMPLES, TRAINING
from w2sd.pipeline.stage import Task
from w2sd.predictions import PREDICTIONS, Predictions, join, read_predictions, select
from w2sd.stages.features import ids_in, states_of
from w2sd.stages.training_targets import opinions, right_option

# What people read: the content of `metrics.json`, each with `_lo` and `_hi` where it has them.
HEADLINES = (
    *(f"accuracy/{role}" for role in ("weak", "student", "ceiling", "baseline")),
    "pgr",
    *("tax/flips", "tax/rate"),
    *("deception/score", "deception/base_rate", "deception/excess_flips"),
    "n/test",
)


def run(task: Task) -> dict[str, Any]:
    """Return the headline figures of the job, and write all others to `diagnostics.json`."""
    figures = _figures(task)
    names = [f"{name}{end}" for name in HEADLINES for end in ("", "_lo", "_hi")]
    headlines = {name: figures.pop(name) for name in names if name in figures}
    write_json(task.out / "diagnostics.json", figures)
    return headlines


def _figures(task: Task) -> dict[str, Any]:
    """All flat metrics of the job. What is measured comes from prediction files alone; the data give counts."""
    data = task.params["data"]
    aside = (TRAINING, SALIENCY, SAMPLES)
    folders = {role: folder for role, folder in task.inputs.items() if not role.startswith(aside)}
    # Where long responses are dropped, tokenizers differ in what they find too long.
    joined = _join({role.replace("placebo_", "placebo/"): at for role, at in folders.items()}, drops_long(data))
    metrics: dict[str, Any] = compare(joined)
    if f"{TRAINING}student" in task.inputs:
        before, after, weak = (task.inputs[TRAINING + role] for role in ("baseline", "student", "weak"))
        seen = _join({"before": before, "after": after, "weak": weak}, True)  # the teacher labelled all rows of w2s
        metrics |= robustness.locate(seen["before"], seen["after"], seen["weak"], "training")
    table = read(data)
    if f"{SALIENCY}features" in task.inputs:
        metrics |= _saliency(task, table)
    metrics |= {f"data/n_{split}": len(table.rows(split)) for split in SPLITS}
    metrics |= {f"data/dropped_{reason}": n for reason, n in table.dropped.items()}
    for role, folder in folders.items():
        own = read_json(folder / "metrics.json")
        for count in ("dropped_long", "truncated_prompts", "equal_tokens"):  # on the test split, by the worst-off model
            metrics[f"data/{count}"] = max(metrics.get(f"data/{count}", 0), own.get(f"n/{count}", 0))
        metrics[f"steps/{role}"] = own["n/steps"]  # arms with unequal steps are told apart from equal ones
        metrics |= {f"{name.removeprefix('judged/')}/{role}": own[name] for name in own if name.startswith("judged/")}
        if "helpful/accuracy" in own:
            metrics[f"helpful/accuracy/{role}"] = own["helpful/accuracy"]
    return metrics | _generation(task.inputs)


def _saliency(task: Task, table: Table[Any]) -> dict[str, float | None]:
    """How plain truth and weak labels are in the features of the rows that the student was trained on."""
    folder, own = task.inputs[f"{SALIENCY}features"], table.rows("w2s")
    teacher, there = opinions(task, f"{SALIENCY}labels", own), set(ids_in(folder))
    rows = [row for row in own if row.id in there and row.id in teacher]
    states_NAD, weak_NK = states_of(folder, [row.id for row in rows]), [teacher[row.id] for row in rows]
    figures = saliency(states_NAD, [right_option(row) for row in rows], weak_NK, [row.cluster for row in rows])
    return {f"saliency/{name}": value for name, value in figures.items()}


def _generation(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """The signs of degeneration in what each policy wrote, by figure and role."""
    return {
        f"{figure}/{role.removeprefix(SAMPLES)}": value
        for role, folder in inputs.items()
        if role.startswith(SAMPLES)
        for figure, value in read_json(folder / "metrics.json").items()
        if figure.startswith("generation/")
    }


def _join(folders: Mapping[str, Path], only_common: bool) -> dict[str, Predictions]:
    """The predictions of several models by id, of all pairs or only of those that every model has a score for."""
    tables = {role: read_predictions(folder / PREDICTIONS) for role, folder in folders.items()}
    if only_common:
        common = set.intersection(*(set(rows.ids) for rows in tables.values()))
        tables = {
            role: select(rows, [n for n, id in enumerate(rows.ids) if id in common]) for role, rows in tables.items()
        }
    return join(tables)
