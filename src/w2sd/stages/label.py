"""Stage `label`: a teacher's raw predictions on a split. How they become targets is the student's supervision."""

from __future__ import annotations

from typing import Any

from w2sd.metrics.functional import accuracy
from w2sd.stages import lightning, scoring
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet`."""
    scored = scoring.prepare(task, {})
    lightning.predict(task, scored.student, scored.loader, scored.student.fit)
    scoring.write(task, scored)
    return {"n/pairs": len(scored.pairs), "accuracy": accuracy(scored.student.p_correct)}
