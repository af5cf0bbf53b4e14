"""What `sft` and `train` share: a model made ready, the lessons that fit into it, and what is told of its training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from w2sd.conflicts.base import Conflict
from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import AnswerRows, Loader, PairRows, Shuffled
from w2sd.data.pairs import Pair, read
from w2sd.data.text import Encoded, Ids
from w2sd.models.checkpointing import checkpoint_layers
from w2sd.models.probe import Probe
from w2sd.models.score import PolicyModel, RewardModel, silence_dropout
from w2sd.stages import lightning
from w2sd.stages.encoding import can_pack, encode_for
from w2sd.stages.lessons import lessons
from w2sd.students.base import Learner
from w2sd.worker import Task


class Training(NamedTuple):
    """A model that is ready to be trained, and the pairs that it can read: its own, and after them a conflict's."""

    model: RewardModel | PolicyModel | Probe
    tokenizer: Any
    conflict: Conflict
    pairs: list[Pair]
    targets: np.ndarray  # [n] P(first slot is better)
    encoded: Encoded
    is_packed: bool
    n_own: int
    n_steps: int


def prepare(task: Task, model: RewardModel | PolicyModel | Probe, tokenizer: Any) -> Training:
    """Freeze, add to, silence and checkpoint what is to be, and read the lessons."""
    params, fit = task.params, task.params["fit"]
    conflict = params["conflict"] or NoConflict()
    if isinstance(model, Probe):
        config = params["model"].open_config()
    else:
        config = model.backbone.config
        if not fit.dropout:
            silence_dropout(model.backbone)
        if task.trainer.checkpointing:
            checkpoint_layers(model.backbone)
        params["adapter"].apply(model, params["seed"])

    taught = lessons(task, read(params["data"]), conflict)
    encoded = encode_for(config, tokenizer, params["data"], taught.pairs, params.get("append_eos"))
    pairs, targets = [taught.pairs[i] for i in encoded.kept], taught.targets[encoded.kept]
    drops = fit.dropout or any(isinstance(part, nn.Dropout) and part.p for part in model.modules())
    reads_tokens = not isinstance(model, Probe)
    is_packed = reads_tokens and not drops and can_pack(task, model, encoded)  # dropout would strike what is shared
    n_own = sum(place < taught.n_own for place in encoded.kept)  # responses that are too long may have been dropped
    n_steps = fit.epochs * -(-(n_own if conflict.match_steps else len(pairs)) // fit.batch)
    return Training(model, tokenizer, conflict, pairs, targets, encoded, is_packed, n_own, n_steps)


def finish(task: Task, training: Training, learner: Learner, rows: PairRows | AnswerRows) -> dict[str, Any]:
    """Train on these rows, write `model/` (and a head), and say how much was read and trained."""
    model, fit, seed = training.model, task.params["fit"], task.params["seed"]
    loader = Loader(rows, Shuffled(len(rows), fit.batch, seed))
    lightning.train(task, learner, loader, fit, seed, training.n_steps)
    counts = {
        "n/extra": len(rows) - training.n_own,
        "n/steps": learner.global_step,
        "n/parameters": sum(weights.numel() for weights in model.parameters()),
        "n/trained": sum(weights.numel() for weights in model.parameters() if weights.requires_grad),
        "n/truncated_prompts": training.encoded.truncated_prompts,
        "n/dropped_long": training.encoded.dropped_long,
    }
    if task.rank == 0:
        task.params["adapter"].merge(model)  # after what was trained has been counted
        model.save(task.out, training.tokenizer)
    return counts


def n_ended(answers: Iterable[Ids], tokenizer: Any) -> int:
    """How many answers end in the tokenizer's end token: with `append_eos=auto` all, or none where it has none."""
    return sum(int(ids[-1]) == tokenizer.eos_token_id for ids in answers)
