"""Stage `compare`: weak model, student and ceiling on the same pairs, every figure with its interval."""

from __future__ import annotations

from typing import Any

from w2sd.data.pairs import SPLITS, read
from w2sd.metrics.measurement import measure
from w2sd.metrics.predictions import Predictions, read_predictions
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Return the flat metrics of the job. Reads prediction files only, so that anybody can repeat it."""
    data = task.params["data"]
    predictions = {role: read_predictions(folder / "predictions.parquet") for role, folder in task.inputs.items()}
    if data.long == "drop":  # tokenizers differ in what they find too long: measure where all models have a score
        common = set.intersection(*(set(rows.ids) for rows in predictions.values()))
        predictions = {role: _only(rows, common) for role, rows in predictions.items()}
    table = read(data)
    counts = {f"data/n_{split}": len(table.rows(split)) for split in SPLITS}
    dropped = {f"data/dropped_{reason}": n for reason, n in table.dropped.items()}
    return {**measure(predictions), **counts, **dropped}


def _only(rows: Predictions, ids: set[str]) -> Predictions:
    keep = [n for n, id in enumerate(rows.ids) if id in ids]
    return Predictions(
        [rows.ids[n] for n in keep], [rows.clusters[n] for n in keep], rows.p_correct[keep], rows.margin[keep]
    )
