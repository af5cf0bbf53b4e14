"""Stage `train`: a reward model on the data's own labels (weak model, ceiling) or on a teacher's (student)."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.conflicts.base import COIN, OWN, Extra
from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import Loader, PairRows, Shuffled
from w2sd.data.pairs import Pair, coin, digest, read
from w2sd.errors import StageFailed, within
from w2sd.metrics.predictions import read_predictions
from w2sd.models.score import RewardModel, silence_dropout
from w2sd.stages import lightning
from w2sd.stages.encoding import encode_for
from w2sd.students.reward import RewardStudent
from w2sd.supervision import Lesson
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
    pairs, targets = supervised(task, table.rows(params["split"], part=params["part"]))
    n_own = len(pairs)
    extra = conflict.extra(table, n_own)
    labels = extra_targets(task, extra)
    pairs = pairs + [pair for pair in extra.pairs if pair.id in labels]
    targets = np.concatenate([targets, [labels[pair.id] for pair in pairs[n_own:]]])
    encoded = encode_for(backbone.config, tokenizer, params["data"], pairs)
    swapped, targets = np.array([coin(pair.id) for pair in pairs])[encoded.kept], targets[encoded.kept]
    n_own = sum(place < n_own for place in encoded.kept)  # responses that are too long may have been dropped
    truth = (~swapped).astype(np.float64) if conflict.reads_truth else None
    rows = PairRows(encoded, swapped, targets, task.trainer.micro_tokens, truth)

    loader = Loader(rows, Shuffled(len(rows), fit.batch, params["seed"]))
    n_steps = fit.epochs * (-(-n_own // fit.batch) if conflict.match_steps else len(loader))
    student = RewardStudent(model, params["objective"], conflict, fit, n_steps, task.trainer.log_every)
    lightning.train(task, student, loader, fit, params["seed"], n_steps)
    model.save(task.out, tokenizer)
    return {
        "n/pairs": len(rows),
        "n/extra": len(rows) - n_own,
        "n/steps": student.global_step,
        "n/parameters": sum(weights.numel() for weights in model.parameters()),
        "n/trained": sum(weights.numel() for weights in model.parameters() if weights.requires_grad),
        "n/truncated_prompts": encoded.truncated_prompts,
        "n/dropped_long": encoded.dropped_long,
    }


def supervised(task: Task, pairs: list[Pair]) -> tuple[list[Pair], np.ndarray]:
    """The pairs that are trained on, and P(first slot is better) for each, as the supervision has it."""
    supervision = task.params["supervision"]
    if supervision is None:  # the data's own labels: weak model and ceiling
        return pairs, np.array([truth(pair) for pair in pairs])
    if supervision.needs_teacher:  # its context may have been too short for some
        teacher = confidences(task, "labels")
        pairs = [pair for pair in pairs if pair.id in teacher]
    if supervision.needs_ceiling:
        ceiling = confidences(task, "ceiling_labels")
        pairs = [pair for pair in pairs if pair.id in ceiling]
    lesson = taught(pairs, teacher if supervision.needs_teacher else dict.fromkeys((pair.id for pair in pairs), 0.5))
    if supervision.reads_truth:
        length = [len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs]
        lesson = lesson._replace(truth=np.array([truth(pair) for pair in pairs]), length=np.array(length, dtype=float))
    if supervision.needs_ceiling:
        lesson = lesson._replace(p_ceiling=np.array([ceiling[pair.id] for pair in pairs]))
    targets = np.asarray(supervision.targets(lesson), dtype=np.float64)
    kept = ~np.isnan(targets)
    if kept.sum() < 2:
        raise StageFailed(f"supervision leaves {kept.sum()} of {len(kept)} rows to train on; lower its threshold")
    return [pair for pair, keep in zip(pairs, kept, strict=True) if keep], targets[kept]


def extra_targets(task: Task, extra: Extra) -> dict[str, float]:
    """P(first slot is better) for the rows that a conflict adds, by id."""
    if extra.labels == OWN:
        return {pair.id: truth(pair) for pair in extra.pairs}
    if extra.labels == COIN:
        return {pair.id: float(int(digest("coin", pair.id), 16) % 2) for pair in extra.pairs}
    if "labels" not in task.inputs:  # under the truth, the truth is the teacher
        return {pair.id: truth(pair) for pair in extra.pairs}
    supervision, teacher = task.params["supervision"], confidences(task, "labels")
    pairs = [pair for pair in extra.pairs if pair.id in teacher]
    lesson = taught(pairs, teacher)
    targets = lesson.p_first if supervision.reads_truth else supervision.targets(lesson)
    targets = np.where(np.isnan(targets), lesson.p_first, targets)  # no row is left out: the dose is the arm's
    return dict(zip((pair.id for pair in pairs), targets.tolist(), strict=True))


def taught(pairs: list[Pair], teacher: dict[str, float]) -> Lesson:
    """What a supervision sees of these pairs that does not take the truth."""
    return Lesson(
        p_first=np.array([in_slots(pair, teacher[pair.id]) for pair in pairs]),
        noise=np.array([int(digest("noise", pair.id), 16) / 2**64 for pair in pairs]),
    )


def confidences(task: Task, role: str) -> dict[str, float]:
    """What a model thinks of the better answer of each w2s row, by id."""
    predictions = read_predictions(task.inputs[role] / "predictions.parquet")
    return dict(zip(predictions.ids, predictions.p_correct.tolist(), strict=True))


def truth(pair: Pair) -> float:
    """1 where the better answer is in the first slot."""
    return in_slots(pair, 1.0)


def in_slots(pair: Pair, p_correct: float) -> float:
    """A confidence in the better answer as one in the first slot."""
    return 1 - p_correct if coin(pair.id) else p_correct
