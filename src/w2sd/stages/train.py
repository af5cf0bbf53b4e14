"""Stage `train`: a student, and what `sft` shares with it: a model made ready, its rows, and counts of its training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from w2sd.atomic import read_json
from w2sd.conflicts.base import Conflict, NoConflict
from w2sd.data.batch import AnswerRows, ItemRows, PairRows
from w2sd.data.loader import Loader, Shuffled
from w2sd.data.pairs import classes_of, coin, read
from w2sd.data.text import Ids
from w2sd.errors import Refused, StageFailed, within
from w2sd.models.heads import HeadedModel, PolicyModel, Probe, RewardModel
from w2sd.models.prepare import checkpoint_layers, compile_layers, silence_dropout
from w2sd.parts.fit import Fit
from w2sd.parts.stopping import Stopping
from w2sd.pipeline.checks import check_holdout, check_threshold
from w2sd.pipeline.stage import Task
from w2sd.stages import engine, reference
from w2sd.stages.callbacks import EarlyStopping
from w2sd.stages.encoding import can_pack, encode_for, rows_for
from w2sd.stages.features import states_of, width_of
from w2sd.stages.training_targets import hinted, lessons, right_option
from w2sd.students.learner import Learner
from w2sd.students.student import ClassStudent, PolicyStudent, RewardStudent, Student


class Training(NamedTuple):
    """A model that is ready to be trained, and the examples that it can read: its own, and after them a conflict's."""

    model: HeadedModel | PolicyModel | Probe
    tokenizer: Any
    conflict: Conflict
    examples: list[Any]  # pairs or items
    targets_NK: np.ndarray  # how likely each option is to be right: each slot of a pair, each class of an item
    encoded: Any  # of those pairs (Encoded) or items (EncodedItems)
    is_packed: bool
    n_own: int
    fit: Fit

    @property
    def n_steps(self) -> int:
        """How many steps the optimiser takes."""
        n = self.n_own if self.conflict.match_steps else len(self.examples)
        return self.fit.epochs * -(-n // self.fit.batch)

    def pick(self, places: Sequence[int]) -> Training:
        """Some of the examples."""
        examples, n_own = [self.examples[n] for n in places], sum(n < self.n_own for n in places)
        targets_NK, encoded = self.targets_NK[places], self.encoded.pick(places)
        return self._replace(examples=examples, targets_NK=targets_NK, encoded=encoded, n_own=n_own)


def prepare(task: Task, model: HeadedModel | PolicyModel | Probe, tokenizer: Any) -> Training:
    """Freeze, add to, silence and checkpoint what is to be, and read the lessons."""
    params, fit = task.params, task.params["fit"]
    conflict = params["conflict"] or NoConflict()
    if "like" in task.inputs:
        conflict = replace(conflict, rate=rate_of(task.inputs["like"]))
    if isinstance(model, Probe):
        config = params["model"].open_config()
    else:
        config = model.backbone.config
        if not fit.dropout:
            silence_dropout(model.backbone)
        if task.trainer.checkpointing:
            checkpoint_layers(model.backbone)
        params["adapter"].apply(model, task.stream)

    examples, targets_NK, n_own = lessons(task, read(params["data"]), conflict)
    hint = params.get("hint")
    _, shown = hinted(task, hint, "labels", examples)
    kept = task.tokens if hint is None else None  # there are the rows as they are without one
    encoded = encode_for(config, tokenizer, params["data"], shown, params.get("append_eos"), kept)
    examples, targets_NK = [examples[i] for i in encoded.kept], targets_NK[encoded.kept]
    drops = fit.dropout or any(isinstance(part, nn.Dropout) and part.p for part in model.modules())
    # dropout would strike what answers share alike
    is_packed = not isinstance(model, Probe) and not drops and can_pack(task, model, encoded, fit.precision)
    if task.trainer.compile and not isinstance(model, Probe):
        compile_layers(model.backbone)
    n_own = sum(place < n_own for place in encoded.kept)  # responses that are too long may have been dropped
    return Training(model, tokenizer, conflict, examples, targets_NK, encoded, is_packed, n_own, fit)


def rate_of(student: Path) -> float:
    """How often a trained student was pulled at by its conflict's loss: the share of rows, as a mean over its steps."""
    figures = read_json(student / "metrics.json")
    if "pulled" not in figures:
        raise StageFailed(f"{student.name} was trained before w2sd counted how often; train it again: force=[train]")
    return figures["pulled"]


def hold_out(training: Training, stopping: Stopping, split: str) -> tuple[Training, Training]:
    """What is trained on, and the part of a student's own examples that is held out: whole clusters."""
    n_rows = len(training.examples)
    out = [n for n, example in enumerate(training.examples[: training.n_own]) if stopping.holds_out(example.cluster)]
    rest = sorted(set(range(n_rows)) - set(out))
    with _too_few():
        check_holdout(stopping, len(out), n_rows, split)
    return training.pick(rest), training.pick(out)


@contextmanager
def _too_few() -> Iterator[None]:
    """A refusal of the rows that are left is a failure here: the stage has started."""
    try:
        yield
    except Refused as refusal:
        raise StageFailed(str(refusal)) from refusal


def finish(
    task: Task,
    training: Training,
    learner: Learner,
    rows: PairRows | AnswerRows | ItemRows,
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, Any]:
    """Train on these rows, write `model/` (and a head), and say how much was read and trained."""
    model, loader = training.model, Loader(rows, Shuffled(len(rows), training.fit.batch, task.stream))
    engine.train(task, learner, loader, callbacks)
    is_probe = isinstance(model, Probe)
    below = read_json(task.inputs["features"] / "metrics.json")["n/parameters"] if is_probe else 0  # the transformer
    counts: dict[str, Any] = {
        "n/extra": len(rows) - training.n_own,
        "n/steps": learner.global_step,
        "n/parameters": below + sum(weights.numel() for weights in model.parameters()),
        "n/trained": sum(weights.numel() for weights in model.parameters() if weights.requires_grad),
        "n/truncated_prompts": training.encoded.truncated_prompts,
        "n/dropped_long": training.encoded.dropped_long,
    }
    if learner.pulled is not None:
        counts["pulled"] = learner.pulled / learner.global_step
    if task.rank == 0:
        if training.conflict.weight_noise:
            _add_noise(model, training.conflict.weight_noise, task.stream)
        if not is_probe:
            task.params["adapter"].merge(model)  # after what was trained has been counted
        model.save(task.out, training.tokenizer)
    return counts


@torch.no_grad()
def _add_noise(model: nn.Module, share: float, seed: int) -> None:
    """Add normal noise to every trained weight, with `share` of its tensor's root mean square as standard deviation."""
    draws = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        if weights.requires_grad:
            noise = torch.randn(weights.shape, generator=draws)
            weights.add_((share * weights.square().mean().sqrt() * noise).to(weights))


def n_ended(answers: Iterable[Ids], tokenizer: Any) -> int:
    """How many answers end in the tokenizer's end token: with `append_eos=auto` all, or none where it has none."""
    return sum(int(ids[-1]) == tokenizer.eos_token_id for ids in answers)


def run(task: Task) -> dict[str, Any]:
    """Write `model/` and, of all but policies, the head of the trained student."""
    params, log_every = task.params, task.trainer.log_every
    kind = kind_of(params["objective"], params["data"])
    with within("model"):
        model, tokenizer = begin(task, kind), params["model"].open_tokenizer()
    training, watch = prepare(task, model, tokenizer), None
    if stopping := params.get("stopping"):
        training, held = hold_out(training, stopping, params["split"])
        right = np.eye(held.targets_NK.shape[1])[[right_option(each) for each in held.examples]]
        every = max(1, round(stopping.every * training.n_steps / params["fit"].epochs))
        watch = EarlyStopping(rows_of(task, held), held.targets_NK, right, stopping, every, training.n_steps)
    rows = rows_of(task, training)
    with _too_few():
        check_threshold(params["objective"], len(rows), training.targets_NK.shape[1], params["split"])
    student = kind(model, params["objective"], training.conflict, params["fit"], training.n_steps, log_every)
    counts = {"n/pairs": len(rows)}
    if kind is PolicyStudent:
        counts["n/end_token"] = n_ended(training.encoded.chosen + training.encoded.rejected, tokenizer)
    if watch is None:
        return counts | finish(task, training, student, rows)
    counts |= finish(task, training, student, rows, [watch]) | {"n/held_out": len(watch.rows)}
    return counts | watch.conclude(task)


def kind_of(objective: Any, data: Any) -> type[Student]:
    """What an objective trains on these data."""
    if objective.student == "policy":
        return PolicyStudent
    return ClassStudent if classes_of(data) else RewardStudent


def rows_of(task: Task, training: Training) -> PairRows | ItemRows:
    """The examples with their targets, and what else the student may know of them besides their tokens."""
    params, examples, encoded = task.params, training.examples, training.encoded
    known: dict[str, Any] = {"is_packed": training.is_packed}
    if params["adapter"].reads_features:
        known["states_NAD"] = states_of(task.inputs["features"], [each.id for each in examples])
    if classes_of(params["data"]):
        return rows_for(task, encoded, examples, targets_NC=training.targets_NK, **known)
    if training.conflict.reads_truth:
        known["truth"] = np.array([1.0 - coin(pair.id) for pair in examples])
    if training.conflict.reads_draws:
        known["draws"] = np.array([task.draw(pair.id) for pair in examples])
    if params["objective"].needs_reference:
        origin = reference.known_by(params["model"], task.inputs.get("base"))
        known["references"] = reference.join(task.inputs["reference"], origin, examples, encoded)
    return rows_for(task, encoded, examples, targets=training.targets_NK[:, 0], **known)


def begin(task: Task, kind: type[Student]) -> HeadedModel | PolicyModel | Probe:
    """The model before its training."""
    part, base = task.params["model"], task.inputs.get("base")
    if kind is PolicyStudent:
        return PolicyModel(part.open_language_model(base))
    if task.params["adapter"].reads_features:
        return Probe(width_of(task.inputs["features"]), len(classes_of(task.params["data"]) or "1"), task.stream)
    if kind is ClassStudent:
        classes = classes_of(task.params["data"]) or ()
        if head := task.params.get("head"):
            words = head.tokens(part.open_tokenizer(), classes)
            return HeadedModel.of_words(part.open_language_model(base), words, task.stream)
        return HeadedModel(part.open_backbone(base), task.stream, len(classes))
    return RewardModel(part.open_backbone(base), task.stream)
