"""Stage `train`: a student on the data's own labels (weak model, ceiling) or on a teacher's.

Objective and data decide what kind of student it is: a reward model or a classifier, which begin as a language model
without its head, or a policy, which is one, and begins where its fine-tuning ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.batch import ItemRows, PairRows
from w2sd.data.pairs import classes_of, coin, draw
from w2sd.data.states import StateItems, StatePairs
from w2sd.errors import StageFailed, within
from w2sd.models.probe import Probe
from w2sd.models.score import HeadedModel, PolicyModel, RewardModel
from w2sd.stages import reference
from w2sd.stages.features import states_of, width_of
from w2sd.stages.lessons import right_option
from w2sd.stages.training import Training, finish, hold_out, n_ended, prepare, random_seed
from w2sd.stages.watching import Watch
from w2sd.students.base import Student
from w2sd.students.classifier import ClassStudent
from w2sd.students.policy import PolicyStudent
from w2sd.students.reward import RewardStudent
from w2sd.task import Task


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and, of all but policies, the head of the trained student."""
    params, log_every = task.params, task.trainer.log_every
    kind = kind_of(params["objective"], params["data"])
    with within("model"):
        model, tokenizer = begin(task, kind, random_seed(params)), params["model"].open_tokenizer()
    training, held = prepare(task, model, tokenizer), None
    rows_of = item_rows if kind is ClassStudent else pair_rows
    if stopping := params.get("stopping"):
        training, held = hold_out(training, stopping, params["fit"])
    rows = rows_of(task, training)
    least = getattr(params["objective"], "min_rows", 0) if training.targets_NK.shape[1] == 2 else 0
    if len(rows) < least:  # of more classes than two there is no threshold
        raise StageFailed(f"{len(rows)} rows to train on have no threshold; lower objective.min_rows ({least})")
    student = kind(model, params["objective"], training.conflict, params["fit"], training.n_steps, log_every)
    counts = {"n/pairs": len(rows)}
    if kind is PolicyStudent:
        counts["n/end_token"] = n_ended(training.encoded.chosen + training.encoded.rejected, tokenizer)
    if stopping is None or held is None:
        return counts | finish(task, training, student, rows)
    labels, right = held.targets_NK, np.eye(held.targets_NK.shape[1])[[right_option(each) for each in held.examples]]
    every = max(1, round(stopping.every * training.n_steps / params["fit"].epochs))
    watch = Watch(rows_of(task, held), labels, right, stopping, every, training.n_steps)
    counts |= finish(task, training, student, rows, [watch]) | {"n/held_out": len(right)}
    return counts | watch.conclude(task)


def kind_of(objective: Any, data: Any) -> type[Student]:
    """What an objective trains on these data."""
    if objective.student == "policy":
        return PolicyStudent
    return ClassStudent if classes_of(data) else RewardStudent


def pair_rows(task: Task, training: Training) -> PairRows:
    """The pairs in their slots, with what the student may know of them besides their tokens."""
    params, pairs, encoded = task.params, training.examples, training.encoded
    swapped = np.array([coin(pair.id) for pair in pairs])
    given: dict[str, Any] = {"micro_tokens": task.trainer.micro_tokens, "targets": training.targets_NK[:, 0]}
    if training.conflict.reads_truth:
        given["truth"] = (~swapped).astype(np.float64)
    if training.conflict.reads_draws:
        given["draws"] = np.array([draw(str(params["seed"]), pair.id) for pair in pairs])
    if params["objective"].needs_reference:
        origin = reference.known_by(params["model"], task.inputs.get("base"))
        given["references"] = reference.join(task.inputs["reference"], origin, pairs, encoded)
    if params["adapter"].reads_features:
        states_NAD = states_of(task.inputs["features"], [pair.id for pair in pairs])
        return StatePairs(encoded, swapped, states_NAD=states_NAD, **given)
    return PairRows(encoded, swapped, is_packed=training.is_packed, **given)


def item_rows(task: Task, training: Training) -> ItemRows:
    """The items with their targets."""
    texts, budget, targets_NK = training.encoded.texts, task.trainer.micro_tokens, training.targets_NK
    if task.params["adapter"].reads_features:
        states_NAD = states_of(task.inputs["features"], [item.id for item in training.examples])
        return StateItems(texts, budget, states_NAD=states_NAD, targets_NC=targets_NK)
    return ItemRows(texts, budget, targets_NC=targets_NK, is_packed=training.is_packed)


def begin(task: Task, kind: type[Student], seed: int) -> HeadedModel | PolicyModel | Probe:
    """The model before its training."""
    part, base = task.params["model"], task.inputs.get("base")
    if kind is PolicyStudent:
        return PolicyModel(part.open_language_model(base))
    if task.params["adapter"].reads_features:
        return Probe(width_of(task.inputs["features"]), len(classes_of(task.params["data"]) or "1"), seed)
    if kind is ClassStudent:
        classes = classes_of(task.params["data"]) or ()
        if head := task.params.get("head"):
            words = head.tokens(part.open_tokenizer(), classes)
            return HeadedModel.of_words(part.open_language_model(base), words, seed)
        return HeadedModel(part.open_backbone(base), seed, len(classes))
    return RewardModel(part.open_backbone(base), seed)
