"""Stage `train`: a student on the data's own labels (weak model, ceiling) or on a teacher's.

The objective decides what kind of student it is: a reward model, which begins as a language model without its head, or
a policy, which is one, and begins where its fine-tuning ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.batch import PairRows
from w2sd.data.pairs import coin
from w2sd.data.states import StateRows
from w2sd.errors import within
from w2sd.models.probe import Probe
from w2sd.models.score import PolicyModel, RewardModel
from w2sd.stages import reference
from w2sd.stages.features import states_of, width_of
from w2sd.stages.training import Training, finish, n_ended, prepare
from w2sd.students.policy import PolicyStudent
from w2sd.students.reward import RewardStudent
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and, of a reward model, the head of the trained student."""
    params, log_every = task.params, task.trainer.log_every
    is_policy = params["objective"].student == "policy"
    with within("model"):
        model, tokenizer = begin(task, is_policy), params["model"].open_tokenizer()
    training = prepare(task, model, tokenizer)
    rows = rows_of(task, training)
    kind = PolicyStudent if is_policy else RewardStudent
    student = kind(model, params["objective"], training.conflict, params["fit"], training.n_steps, log_every)
    counts = {"n/pairs": len(rows)}
    if is_policy:
        counts["n/end_token"] = n_ended(training.encoded.chosen + training.encoded.rejected, tokenizer)
    return counts | finish(task, training, student, rows)


def rows_of(task: Task, training: Training) -> PairRows:
    """The pairs in their slots, with what the student may know of them besides their tokens."""
    params, pairs, encoded = task.params, training.pairs, training.encoded
    swapped = np.array([coin(pair.id) for pair in pairs])
    truth = (~swapped).astype(np.float64) if training.conflict.reads_truth else None
    said = None
    if params["objective"].needs_reference:
        origin = reference.known_by(params["model"], task.inputs.get("base"))
        said = reference.join(task.inputs["reference"], origin, pairs, encoded)
    known = (encoded, swapped, training.targets, task.trainer.micro_tokens, truth, said)
    if params["adapter"].reads_features:
        return StateRows(states_of(task.inputs["features"], [pair.id for pair in pairs]), *known)
    return PairRows(*known, training.is_packed)


def begin(task: Task, is_policy: bool) -> RewardModel | PolicyModel | Probe:
    """The model before its training."""
    part, base = task.params["model"], task.inputs.get("base")
    if task.params["adapter"].reads_features:
        return Probe(width_of(task.inputs["features"]), task.params["seed"])
    if is_policy:
        return PolicyModel(part.open_language_model(base))
    return RewardModel(part.open_backbone(base), task.params["seed"])
