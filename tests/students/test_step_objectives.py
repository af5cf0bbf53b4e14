"""Objectives of a step: what they know of a global batch does not depend on how memory cuts it up."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.builders import refused
from tests.students.test_classifier import TEXTS
from tests.students.test_classifier import N as N_ITEMS
from tests.students.test_classifier import model as classifier
from tests.students.test_memory import PLENTY, Memory
from tests.students.test_memory import reward as limited
from tests.students.test_reward import BATCHES, FIT, TARGETS, by_hand, distance, reward_model, rows, train
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import ItemRows, PairBatch
from w2sd.data.loader import Loader, Shuffled
from w2sd.models.heads import RewardModel
from w2sd.objectives.base import Moment, Objective
from w2sd.objectives.imitation import ConfidenceWindow
from w2sd.objectives.logconf import Entropy, Hardened, LogConf
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import PairScores
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.student import ClassStudent, RewardStudent

N = len(TARGETS)
LOGCONF = LogConf(alpha=0.75, warmup_steps=1, min_rows=4)
SITUATED = [LOGCONF, replace(LOGCONF, threshold="mean_label"), Entropy(warmup_steps=2), ConfidenceWindow()]
each_objective = pytest.mark.parametrize("objective", SITUATED, ids=["half", "mean_label", "entropy", "midweak"])


def curve(at: Task) -> list[float]:
    with (at.logs / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


class Watched(LogConf):
    """Notes what it is told."""

    seen: list[tuple[Moment, Tensor, Tensor]]

    def fixed(self, moment: Moment, logits_BC: Tensor | None, targets: Tensor) -> Hardened:
        assert logits_BC is not None
        assert not logits_BC.requires_grad
        self.seen.append((moment, logits_BC, targets))
        return super().fixed(moment, logits_BC, targets)


def watched(**knobs: Any) -> Watched:
    objective = Watched(min_rows=4, **knobs)
    object.__setattr__(objective, "seen", [])  # it is frozen
    return objective


class Passes:
    """Counts how often a model reads, and how often it does so for a gradient."""

    def __init__(self, model: RewardModel) -> None:
        self.with_gradient: list[bool] = []
        model.register_forward_hook(self._note)

    def _note(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.with_gradient.append(output.requires_grad)


# --- memory -----------------------------------------------------------------------------------------------------------


@each_objective
@pytest.mark.parametrize("micro_tokens", [1, 50])
def test_memory_never_changes_a_step(objective: Any, micro_tokens: int, task: Callable[..., Task]) -> None:
    whole, cut_up = reward_model(), reward_model()
    train(one := task("one"), whole, FIT, objective=objective)
    train(other := task("other", micro_tokens=micro_tokens), cut_up, FIT, objective=objective)
    assert min(len(rows(micro_tokens)[batch]) for batch in BATCHES) > 1
    assert curve(other) == pytest.approx(curve(one), abs=1e-5, rel=0)
    assert distance(whole, cut_up) < 1e-6
    imitating = reward_model()
    train(task("plain"), imitating, FIT)
    assert distance(whole, imitating) > 1e-5


@pytest.mark.parametrize("n_classes", [2, 3])
@each_objective
def test_memory_never_changes_a_step_of_a_classifier(objective: Any, n_classes: int, task: Callable[..., Task]) -> None:
    if n_classes > 2 and getattr(objective, "threshold", "half") != "half":
        with refused("objective.threshold", accepted="half 3"):
            objective.check(FIT, n_classes)
        return
    targets_NC = np.random.default_rng(0).dirichlet(np.ones(n_classes), size=N_ITEMS)
    curves, weights = [], []
    for micro_tokens in (12, 10**6):
        items = ItemRows(TEXTS, micro_tokens, targets_NC=targets_NC)
        batches = [list(range(9)), list(range(9, N_ITEMS))]
        assert (min(len(items[batch]) for batch in batches) > 1) == (micro_tokens == 12)
        student = ClassStudent(classifier(n_classes), objective, NoConflict(), FIT, 2)
        engine.train(at := task(str(micro_tokens)), student, Loader(items, batches))
        curves.append(curve(at))
        weights.append(student.model)
    assert curves[0] == pytest.approx(curves[1], abs=1e-5, rel=0)
    assert distance(*weights) < 1e-6


@pytest.mark.parametrize("micro_tokens", [50, 10**6])
def test_a_step_is_that_of_the_whole_batch(micro_tokens: int, task: Callable[..., Task]) -> None:
    """By hand: the scores of all rows, and the share that the step has."""
    with torch.no_grad():
        scores = [torch.cat(side) for side in zip(*(by_hand(reward_model(), i) for i in BATCHES[0]), strict=True)]
    objective = watched(warmup_steps=1)
    train(at := task(micro_tokens=micro_tokens), reward_model(), FIT, objective=objective)
    assert [moment for moment, _, _ in objective.seen] == [Moment(step, 3) for step in range(3)]
    assert [len(targets) for _, _, targets in objective.seen] == [8, 8, 6]
    _, logits, targets = objective.seen[0]
    told = sorted(zip(targets.tolist(), logits[:, 0].tolist(), logits[:, 1].tolist(), strict=True))
    known = sorted(zip(TARGETS[BATCHES[0]].tolist(), *(side.tolist() for side in scores), strict=True))
    np.testing.assert_allclose(told, known, rtol=0, atol=1e-6)
    expected = LogConf(alpha=0.0, min_rows=4)(PairScores(*scores), torch.from_numpy(TARGETS[BATCHES[0]]).double())
    assert curve(at)[0] == pytest.approx(expected.mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("objective", "micro_tokens", "extra"),
    [
        (RewardBCE(), 50, False),
        (LOGCONF, 10**6, False),  # its own scores tell
        (LOGCONF, 50, True),
        (Entropy(), 50, False),  # it is about time
        (ConfidenceWindow(), 50, False),  # it is about labels
    ],
    ids=["plain", "whole", "cut up", "entropy", "midweak"],
)
def test_a_batch_is_read_twice_only_where_that_is_needed(
    objective: Any, micro_tokens: int, extra: bool, task: Callable[..., Task]
) -> None:
    passes = Passes(model := reward_model())
    train(task(micro_tokens=micro_tokens), model, FIT, objective=objective)
    pieces = sum(len(rows(micro_tokens)[batch]) for batch in BATCHES)
    assert passes.with_gradient.count(True) == pieces
    assert passes.with_gradient.count(False) == pieces * extra


@pytest.mark.parametrize(
    ("room", "backwards", "micro_tokens"),
    [(122, False, PLENTY), (122, True, PLENTY), (30, False, 60)],
    ids=["forwards", "backwards", "in the look"],
)
def test_a_batch_that_did_not_fit_is_looked_at_again_in_its_new_pieces(
    room: int, backwards: bool, micro_tokens: int, task: Callable[..., Task]
) -> None:
    """One that was whole had no look at all; one that did not fit a look is descended in the pieces that did."""
    losses, weights = [], []
    small, large = Memory(room, backwards), Memory(PLENTY, False)
    for name, memory, budget in (("small", small, micro_tokens), ("large", large, PLENTY)):
        learner, batches = limited(memory, budget)
        assert isinstance(learner, RewardStudent)
        learner.objective = replace(LOGCONF, warmup=0.0, warmup_steps=0)
        engine.train(at := task(name), learner, Loader(batches, [list(range(9))] * 3))
        assert memory.failures == (name == "small")
        losses.append(curve(at))
        weights.append(learner.model)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert distance(*weights) < 1e-6


def test_in_half_precision_a_look_takes_no_gradient_away(task: Callable[..., Task]) -> None:
    """Weights that were cast without a gradient must not be found again where there is one."""
    whole, cut_up = reward_model().float(), reward_model().float()
    half = Fit(lr=1e-3, precision="bf16-mixed")
    train(task("one"), whole, half, objective=LOGCONF)
    train(task("other", micro_tokens=50), cut_up, half, objective=LOGCONF)
    start, one, other = (nn.utils.parameters_to_vector(m.parameters()) for m in (reward_model().float(), whole, cut_up))
    assert nn.functional.cosine_similarity(one - start, other - start, dim=0) > 0.9
    before, after = reward_model().float().state_dict(), cut_up.state_dict()
    still = {name for name, weights in before.items() if weights.equal(after[name])}
    assert still <= {"head.bias", "backbone.ln_f.bias"}  # which no difference of scores depends on


# --- time -------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a run from outside."""


def test_a_resumed_training_has_the_share_of_its_step(task: Callable[..., Task]) -> None:
    """In the middle of a warm-up."""
    fit, n_steps = Fit(lr=1e-3, epochs=3, batch=8), 9

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    def run(at: Task) -> tuple[nn.Module, list[int]]:
        model, objective = reward_model(), watched(warmup_steps=7)
        student = RewardStudent(model, objective, NoConflict(), fit, n_steps)
        with suppress(Killed):
            engine.train(at, student, Loader(rows(50), Shuffled(N, fit.batch, seed=0)))
        return model, [moment.step for moment, _, _ in objective.seen]

    whole, steps = run(task("whole"))
    assert steps == list(range(9))
    assert run(task("stopped", stop, save_every_s=1e-9))[1] == [0, 1, 2, 3]
    resumed, steps = run(task("stopped"))
    assert steps == [3, 4, 5, 6, 7, 8]  # from the step that was not saved
    assert distance(whole, resumed) == 0


# --- conflicts --------------------------------------------------------------------------------------------------------


class Notes(NoConflict):
    """A conflict that keeps the objectives that it is handed."""

    handed: list[Objective]

    def loss(self, scores: PairScores, batch: PairBatch, objective: Any) -> None:
        self.handed.append(objective)


def test_a_conflict_is_handed_the_objective_of_the_step(task: Callable[..., Task]) -> None:
    """A function of each row, the same for all pieces of a batch."""
    conflict = Notes()
    object.__setattr__(conflict, "handed", [])
    loader = Loader(rows(50), BATCHES)
    student = RewardStudent(reward_model(), LOGCONF, conflict, FIT, 3)
    engine.train(task(micro_tokens=50), student, loader)
    pieces = [len(rows(50)[batch]) for batch in BATCHES]
    assert len(conflict.handed) == sum(pieces)
    assert all(isinstance(objective, Hardened) for objective in conflict.handed)
    assert [len(set(conflict.handed[sum(pieces[:n]) :][: pieces[n]])) for n in range(3)] == [1, 1, 1]
    assert [conflict.handed[sum(pieces[:n])].share for n in range(3)] == [0, 0.75, 0.75]  # type: ignore[attr-defined]
