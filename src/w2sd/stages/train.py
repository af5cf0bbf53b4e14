"""Stage `train`: a reward model on the data's own labels (weak model, ceiling) or on a teacher's (student)."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import Loader, PairRows, Shuffled
from w2sd.data.pairs import Pair, coin, read
from w2sd.errors import within
from w2sd.metrics.predictions import read_predictions
from w2sd.models.score import RewardModel, silence_dropout
from w2sd.stages import lightning
from w2sd.stages.encoding import encode_for
from w2sd.students.reward import RewardStudent
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and the head of the trained student."""
    params, fit = task.params, task.params["fit"]
    base = task.inputs.get("base")
    with within("model"):
        backbone = params["model"].open_backbone(base)
        tokenizer = params["model"].open_tokenizer()
    conflict = params["conflict"] or NoConflict()
    model = RewardModel(backbone, params["seed"])
    if not fit.dropout:
        silence_dropout(backbone)
    params["adapter"].apply(model)

    table = read(params["data"])
    pairs, targets = labelled(task, table.rows(params["split"]))
    extra = conflict.rows(table)
    encoded = encode_for(backbone.config, tokenizer, params["data"], [*pairs, *extra])
    swapped = np.array([coin(pair.id) for pair in [*pairs, *extra]])
    targets = np.concatenate([targets, ~swapped[len(pairs) :]])[encoded.kept]
    rows = PairRows(encoded, swapped[encoded.kept], targets, task.trainer.micro_tokens)

    loader = Loader(rows, Shuffled(len(rows), fit.batch, params["seed"]))
    student = RewardStudent(model, params["objective"], conflict, fit, fit.epochs * len(loader), task.trainer.log_every)
    lightning.train(task, student, loader, fit, params["seed"])
    model.save(task.out, tokenizer)
    return {
        "n/pairs": len(rows),
        "n/steps": student.global_step,
        "n/parameters": sum(weights.numel() for weights in model.parameters()),
        "n/trained": sum(weights.numel() for weights in model.parameters() if weights.requires_grad),
        "n/truncated_prompts": encoded.truncated_prompts,
        "n/dropped_long": encoded.dropped_long,
    }


def labelled(task: Task, pairs: list[Pair]) -> tuple[list[Pair], np.ndarray]:
    """The pairs that have a label, and P(first slot is better) for each: the truth, or a teacher's word for it."""
    if "labels" not in task.inputs:
        return pairs, np.array([not coin(pair.id) for pair in pairs], dtype=np.float64)
    predictions = read_predictions(task.inputs["labels"] / "predictions.parquet")
    p_correct = dict(zip(predictions.ids, predictions.p_correct, strict=True))
    pairs = [pair for pair in pairs if pair.id in p_correct]  # the teacher's context may have been too short for some
    p_first = np.array([1 - p_correct[pair.id] if coin(pair.id) else p_correct[pair.id] for pair in pairs])
    return pairs, np.asarray(task.params["supervision"].targets(p_first))
