"""Stage `label`: a teacher's raw predictions on a split. How they become targets is the student's supervision.

Every row of the split is labelled, of whatever facet and part, so that all arms of an experiment share one artifact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.pairs import TARGET, read
from w2sd.metrics.accuracy import accuracy
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.stages.evaluate import prepare, write


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet`; the accuracy is that of the labels that a student may be taught."""
    scored = prepare(task, read(task.params["data"]).split(task.params["split"]), {})
    engine.predict(task, scored.student, scored.loader)
    write(task, scored)
    about_target = np.array([example.facet == TARGET for example in scored.examples])
    p_correct = scored.student.predictions["p_correct"][about_target]
    return {"n/pairs": len(scored.examples), "accuracy": accuracy(p_correct)}
