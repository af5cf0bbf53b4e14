"""Stage `zero_shot`: a classifier with a head of words, as it begins. What it says, its language model knew before."""

from __future__ import annotations

from typing import Any

from w2sd.errors import within
from w2sd.pipeline.stage import Task
from w2sd.stages.train import begin
from w2sd.students.student import ClassStudent


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and its head, as a training would that has no steps."""
    with within("model"):
        model = begin(task, ClassStudent)
    if task.rank == 0:
        model.save(task.out, task.params["model"].open_tokenizer())
    return {"n/steps": 0, "n/parameters": sum(weights.numel() for weights in model.parameters())}
