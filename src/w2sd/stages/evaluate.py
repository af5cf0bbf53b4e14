"""Stage `evaluate`: a trained model on the test split, measured by torchmetrics beside its weak model and ceiling."""

from __future__ import annotations

import math
from typing import Any

from w2sd.stages import lightning, scoring
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet`; return what the student's own metrics say (`pgr` where references are given)."""
    references = {role: folder for role, folder in task.inputs.items() if role != "model"}
    scored = scoring.prepare(task, references)
    logged = lightning.test(task, scored.student, scored.loader, scored.student.fit)
    scoring.write(task, scored)
    return {
        "n/pairs": len(scored.pairs),
        **{name: None if math.isnan(value) else value for name, value in logged.items()},
    }
