"""What a student is taught: which pairs, and how likely the first answer of each is to be the better one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from w2sd.conflicts.base import COIN, OWN, Conflict, Extra
from w2sd.data.pairs import Pair, Table, coin, digest
from w2sd.errors import StageFailed, within
from w2sd.metrics.predictions import read_predictions
from w2sd.stages import features
from w2sd.supervision import Lesson
from w2sd.worker import Task


class Lessons(NamedTuple):
    """Pairs to be trained on: a student's own, and after them those that a conflict adds."""

    pairs: list[Pair]
    targets: np.ndarray  # [n] P(first slot is better)
    n_own: int


def lessons(task: Task, table: Table, conflict: Conflict) -> Lessons:
    """What a stage that trains has to read, as its supervision and its conflict have it."""
    pairs, targets = supervised(task, table.rows(task.params["split"], part=task.params["part"]))
    extra = conflict.extra(table, len(pairs))
    labels = extra_targets(task, extra)
    added = [pair for pair in extra.pairs if pair.id in labels]
    return Lessons(pairs + added, np.concatenate([targets, [labels[pair.id] for pair in added]]), len(pairs))


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
    if supervision.needs_features:
        seen = set(features.ids_in(task.inputs["probed"]))
        pairs = [pair for pair in pairs if pair.id in seen]
    lesson = taught(pairs, teacher if supervision.needs_teacher else dict.fromkeys((pair.id for pair in pairs), 0.5))
    if supervision.reads_truth:
        length = [len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs]
        lesson = lesson._replace(truth=np.array([truth(pair) for pair in pairs]), length=np.array(length, dtype=float))
    if supervision.needs_ceiling:
        lesson = lesson._replace(p_ceiling=np.array([ceiling[pair.id] for pair in pairs]))
    if supervision.needs_features:
        lesson = lesson._replace(features=features.vectors_of(task.inputs["probed"], [pair.id for pair in pairs]))
    with within("supervision"):
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
    is_about_own = supervision.reads_truth or supervision.needs_features  # rows, of which these are none
    targets = lesson.p_first if is_about_own else supervision.targets(lesson)
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
