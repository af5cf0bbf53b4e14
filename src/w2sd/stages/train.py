"""Stage `train`: a student on the data's own labels (weak model, ceiling) or on a teacher's.

The objective decides what kind of student it is: a reward model, which begins as a language model without its head, or
a policy, which is one, and begins where its fine-tuning ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.conflicts.base import Conflict
from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import Loader, PairRows, Shuffled
from w2sd.data.pairs import coin, read
from w2sd.data.text import Encoded
from w2sd.errors import within
from w2sd.models.score import PolicyModel, RewardModel, silence_dropout
from w2sd.stages import lightning, reference
from w2sd.stages.encoding import encode_for
from w2sd.stages.lessons import Lessons, lessons
from w2sd.students.policy import PolicyStudent
from w2sd.students.reward import RewardStudent
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and, of a reward model, the head of the trained student."""
    params, fit = task.params, task.params["fit"]
    is_policy = params["objective"].student == "policy"
    with within("model"):
        model, tokenizer = begin(task, is_policy), params["model"].open_tokenizer()
    conflict = params["conflict"] or NoConflict()
    if not fit.dropout:
        silence_dropout(model.backbone)
    params["adapter"].apply(model, params["seed"])

    taught = lessons(task, read(params["data"]), conflict)
    encoded = encode_for(model.backbone.config, tokenizer, params["data"], taught.pairs, params.get("append_eos"))
    n_own = sum(place < taught.n_own for place in encoded.kept)  # responses that are too long may have been dropped
    rows = rows_of(task, taught, encoded, conflict)
    loader = Loader(rows, Shuffled(len(rows), fit.batch, params["seed"]))
    n_steps = fit.epochs * (-(-n_own // fit.batch) if conflict.match_steps else len(loader))
    kind = PolicyStudent if is_policy else RewardStudent
    student = kind(model, params["objective"], conflict, fit, n_steps, task.trainer.log_every)
    lightning.train(task, student, loader, fit, params["seed"], n_steps)
    counts = {
        "n/pairs": len(rows),
        "n/extra": len(rows) - n_own,
        "n/steps": student.global_step,
        "n/parameters": sum(weights.numel() for weights in model.parameters()),
        "n/trained": sum(weights.numel() for weights in model.parameters() if weights.requires_grad),
        "n/truncated_prompts": encoded.truncated_prompts,
        "n/dropped_long": encoded.dropped_long,
    }
    if task.rank == 0:
        params["adapter"].merge(model)  # after what was trained has been counted
        model.save(task.out, tokenizer)
    return counts


def rows_of(task: Task, taught: Lessons, encoded: Encoded, conflict: Conflict) -> PairRows:
    """The pairs in their slots, with what the student may know of them besides their tokens."""
    pairs, params = [taught.pairs[i] for i in encoded.kept], task.params
    swapped = np.array([coin(pair.id) for pair in pairs])
    truth = (~swapped).astype(np.float64) if conflict.reads_truth else None
    said = None
    if params["objective"].needs_reference:
        origin = reference.known_by(params["model"], task.inputs.get("base"))
        said = reference.join(task.inputs["reference"], origin, pairs, encoded)
    return PairRows(encoded, swapped, taught.targets[encoded.kept], task.trainer.micro_tokens, truth, said)


def begin(task: Task, is_policy: bool) -> RewardModel | PolicyModel:
    """The model before its training."""
    part, base = task.params["model"], task.inputs.get("base")
    if is_policy:
        return PolicyModel(part.open_language_model(base))
    return RewardModel(part.open_backbone(base), task.params["seed"])
