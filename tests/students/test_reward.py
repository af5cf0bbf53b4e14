"""The reward student: a step is AdamW on one mean, whatever memory does; predictions are oriented to the truth."""

from __future__ import annotations

import copy
import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import PairBatch, PairRows
from w2sd.data.loader import Filler, Loader, Shuffled, in_length_order
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.metrics.accuracy import accuracy, pgr
from w2sd.models.heads import RewardModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import PairScores
from w2sd.parts.adapter import HeadOnly
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.student import Examination, RewardStudent

N, VOCABULARY = 22, 31
BATCHES = [list(range(8)), list(range(8, 16)), list(range(16, 22))]  # the last one is smaller


def reward_model(architecture: str = "gpt2", seed: int = 0) -> RewardModel:
    """A small model in double precision, so that only a wrong formula can make a difference."""
    torch.manual_seed(seed)
    if architecture == "gpt2":
        config = GPT2Config(n_embd=12, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCABULARY)
        backbone: Any = GPT2Model(config)
    else:
        shape = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        backbone = LlamaModel(LlamaConfig(**shape, vocab_size=VOCABULARY, max_position_embeddings=32))
    silence_dropout(backbone)
    model = RewardModel(backbone, seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(5)
    return model.double().train()


def encoded(n: int = N, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    prompts, chosen, rejected = ([rng.integers(0, VOCABULARY, rng.integers(1, 8)) for _ in range(n)] for _ in range(3))
    return Encoded(prompts, chosen, rejected, list(range(n)), 0, 0, 0)


ENCODED = encoded()
SWAPPED = np.random.default_rng(1).random(N) < 0.5
TARGETS = np.random.default_rng(2).random(N).astype(np.float32)


def rows(micro_tokens: int = 10**6, swapped: np.ndarray = SWAPPED, targets: np.ndarray | None = TARGETS) -> PairRows:
    return PairRows(ENCODED, swapped, micro_tokens, targets=targets)


def train(
    task: Task, model: RewardModel, fit: Fit, batches: Sequence[list[int]] = BATCHES, objective: Any = None
) -> RewardStudent:
    loader = Loader(rows(task.trainer.micro_tokens), list(batches))
    student = RewardStudent(
        model, objective or RewardBCE(), NoConflict(), fit, fit.epochs * len(loader), task.trainer.log_every
    )
    engine.train(task, student, loader)
    return student


def by_hand(model: RewardModel, i: int) -> PairScores:
    """The scores of pair i in slot order, row by row: no padding, no mask, no batch."""
    sides = [ENCODED.chosen[i], ENCODED.rejected[i]][:: -1 if SWAPPED[i] else 1]
    out = []
    for side in sides:
        ids = torch.tensor(np.concatenate([ENCODED.prompts[i], side]))[None]
        out.append(model.head(model.backbone(input_ids=ids).last_hidden_state[0, -1]))
    return PairScores(*out)


def train_by_hand(model: RewardModel, fit: Fit, batches: Sequence[list[int]]) -> list[float]:
    """Changes `model` by the equations (Loshchilov and Hutter 2019, algorithm 2); gives the loss of each step."""
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    first, second = ([torch.zeros_like(weights) for weights in trained] for _ in range(2))
    losses = []
    for step, batch in enumerate(batches):
        p = torch.cat([by_hand(model, i).margin for i in batch]).sigmoid()
        target = torch.from_numpy(TARGETS[batch]).double()
        loss = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, trained)
        norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
        shrink = min(1.0, fit.clip / norm.item()) if fit.clip else 1.0
        lr, (beta1, beta2) = fit.lr * fit.factor(step, len(batches)), fit.betas
        with torch.no_grad():
            for weights, grad, m, v in zip(trained, grads, first, second, strict=True):
                weights.mul_(1 - lr * fit.weight_decay)
                m.mul_(beta1).add_((1 - beta1) * shrink * grad)
                v.mul_(beta2).add_((1 - beta2) * (shrink * grad).square())
                m_hat, v_hat = m / (1 - beta1 ** (step + 1)), v / (1 - beta2 ** (step + 1))
                weights.sub_(lr * m_hat / (v_hat.sqrt() + 1e-8))
    return losses


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference between weights."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    now = after.state_dict()
    return {name for name, weights in before.state_dict().items() if not torch.equal(weights, now[name])}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "fit",
    [
        Fit(lr=1e-3, schedule="constant"),
        Fit(lr=1e-3, clip=0.05, betas=[0.8, 0.95]),
        Fit(lr=1e-3, clip=100.0, weight_decay=0.1, warmup=0.5, schedule="linear"),
    ],
    ids=["plain", "clipped", "decayed"],
)
def test_training_is_adamw_on_the_mean_loss_of_each_global_batch(
    fit: Fit, architecture: str, task: Callable[..., Task]
) -> None:
    start = reward_model(architecture)
    expected, actual = copy.deepcopy(start), copy.deepcopy(start)
    train_by_hand(expected, fit, BATCHES)
    assert distance(start, expected) > 1e-3
    student = train(task(), actual, fit)
    assert student.global_step == 3
    assert distance(actual, expected) < 1e-6


def test_clipping_bites(task: Callable[..., Task]) -> None:
    """Else the test above would not see it: Adam forgives a factor that is the same in every step."""
    free, clipped = reward_model(), reward_model()
    train(task(), free, Fit(lr=1e-3))
    train(task(), clipped, Fit(lr=1e-3, clip=0.05))
    assert distance(free, clipped) > 1e-5


FIT = Fit(lr=1e-3, clip=0.5, warmup=0.3)


@pytest.mark.parametrize("micro_tokens", [1, 16, 50, 100])
def test_memory_never_changes_a_step(micro_tokens: int, task: Callable[..., Task]) -> None:
    """The budget decides how rows are cut up, and with it how they are padded."""
    whole, cut_up = reward_model(), reward_model()
    train(task(), whole, FIT)
    train(task(micro_tokens=micro_tokens), cut_up, FIT)
    pieces = [len(rows(micro_tokens)[batch]) for batch in BATCHES]
    assert min(pieces) > 1
    assert distance(whole, cut_up) < 1e-6


@pytest.mark.parametrize("micro_tokens", [50, 10**6])
def test_the_order_of_rows_in_a_batch_changes_no_step(micro_tokens: int, task: Callable[..., Task]) -> None:
    forwards, backwards = reward_model(), reward_model()
    train(task(micro_tokens=micro_tokens), forwards, FIT)
    train(task(micro_tokens=micro_tokens), backwards, FIT, [batch[::-1] for batch in BATCHES])
    assert distance(forwards, backwards) < 1e-6


def test_which_rows_form_a_batch_does_change_the_step(task: Callable[..., Task]) -> None:
    one, other = reward_model(), reward_model()
    train(task(), one, FIT)
    train(task(), other, FIT, [list(range(0, 8)), list(range(14, 22)), list(range(8, 14))])
    assert distance(one, other) > 1e-5


@pytest.mark.parametrize("micro_tokens", [1, 10**6])
def test_the_learning_curve_is_the_mean_loss_and_the_rate_of_each_step(
    micro_tokens: int, task: Callable[..., Task]
) -> None:
    at = task(micro_tokens=micro_tokens)
    expected = train_by_hand(reward_model(), FIT, BATCHES)
    train(at, reward_model(), FIT)
    with (at.logs / "metrics.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [float(row["train/loss"]) for row in curve] == pytest.approx(expected, abs=1e-6)
    assert [float(row["train/lr"]) for row in curve] == pytest.approx([1e-3 * FIT.factor(n, 3) for n in range(3)])


def test_the_learning_curve_has_the_first_every_nth_and_the_last_step_and_no_other(task: Callable[..., Task]) -> None:
    at, fit = task(log_every=4), replace(FIT, epochs=3)
    expected = train_by_hand(reward_model(), fit, BATCHES * 3)
    train(at, reward_model(), fit)
    with (at.logs / "metrics.csv").open() as file:
        curve = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file)}
    assert curve == pytest.approx({step: expected[step] for step in (0, 3, 7, 8)}, abs=1e-6)


def test_every_weight_is_trained(task: Callable[..., Task]) -> None:
    for architecture in ("gpt2", "llama"):
        before, after = reward_model(architecture), reward_model(architecture)
        train(task(), after, FIT)
        everything = {name for name, _ in before.named_parameters()}
        assert moved(before, after) >= everything - {"head.bias"}  # which no difference of scores depends on


def test_with_the_head_only_exactly_the_head_is_trained(task: Callable[..., Task]) -> None:
    before, after = reward_model(), reward_model()
    HeadOnly().apply(after)
    train(task(), after, FIT)
    assert moved(before, after) | {"head.bias"} == {"head.weight", "head.bias"}
    assert not torch.equal(before.head.weight, after.head.weight)


def test_with_the_head_only_a_step_is_the_same_step(task: Callable[..., Task]) -> None:
    expected, actual = reward_model(), reward_model()
    for model in (expected, actual):
        HeadOnly().apply(model)
    train_by_hand(expected, FIT, BATCHES)
    train(task(micro_tokens=50), actual, FIT)
    assert distance(expected, actual) < 1e-6


def test_the_loss_falls(task: Callable[..., Task]) -> None:
    at, fit = task(), Fit(lr=1e-2, epochs=8, clip=1.0)
    train(at, reward_model(), fit)
    with (at.logs / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 24
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_half_precision_trains_with_and_without_clipping(clip: float, task: Callable[..., Task]) -> None:
    """The weights stay in single precision, and most go where they go without rounding."""
    half, single = reward_model().float(), reward_model().float()
    train(task(), half, Fit(lr=1e-3, precision="bf16-mixed", clip=clip))
    train(task(), single, Fit(lr=1e-3, clip=clip))
    assert {weights.dtype for weights in half.parameters()} == {torch.float32}
    start, one, other = (nn.utils.parameters_to_vector(m.parameters()) for m in (reward_model().float(), half, single))
    assert one.isfinite().all()
    cosine = nn.functional.cosine_similarity(one - start, other - start, dim=0)
    assert 0.9 < cosine < 1


class Cracks(RewardBCE):
    """An objective that has no number from its third batch on."""

    def __call__(self, scores: PairScores, targets: Tensor) -> Tensor:
        third = targets[0].item() == TARGETS[rows()[BATCHES[2]][0].rows[0]]
        return super().__call__(scores, targets) * (float("nan") if third else 1.0)


def test_a_loss_that_is_no_number_stops_with_step_and_rate_in_one_line(task: Callable[..., Task]) -> None:
    model = reward_model()
    with pytest.raises(StageFailed) as stopped:
        train(task(), model, Fit(lr=1e-3, schedule="constant"), objective=Cracks())
    message = str(stopped.value)
    assert re.search(r"\bnan\b.*\b2\b.*\b0\.001\b", message)
    assert "\n" not in message
    assert all(weights.isfinite().all() for weights in model.parameters())  # the step was not taken


class Filled:
    """The rows, with another piece to each batch that counts nothing."""

    lengths, is_packed = rows().lengths, False

    def __init__(self, target: float) -> None:
        self.target = torch.tensor([target])

    def __getitem__(self, batch: list[int]) -> list[Any]:
        [filler] = rows()[batch[:1]]
        return [*rows()[batch], Filler(filler._replace(targets=self.target))]


def train_filled(task: Task, model: RewardModel, target: float) -> None:
    student = RewardStudent(model, RewardBCE(), NoConflict(), FIT, 3)
    engine.train(task, student, Loader(Filled(target), BATCHES))


def test_a_piece_that_keeps_step_with_others_changes_nothing(task: Callable[..., Task]) -> None:
    model, filled = reward_model(), reward_model()
    train(task(), model, FIT)
    train_filled(task(), filled, target=0.3)
    assert distance(model, filled) < 1e-12


def test_nor_does_it_leave_weights_without_value(task: Callable[..., Task]) -> None:
    model, before = reward_model(), reward_model()
    with pytest.raises(StageFailed, match=r"\bnan\b.*\b0\b"):
        train_filled(task(), model, target=float("nan"))
    assert not moved(before, model)


def test_divergence_stops(task: Callable[..., Task]) -> None:
    with pytest.raises(StageFailed, match=r"\b(nan|inf)\b.*\b1\b.*1e\+30.* fit\.lr\b"):
        train(task(), reward_model().float(), Fit(lr=1e30, schedule="constant"))


class Tilt:
    """A conflict with a loss of its own, which sees scores, batch and objective and nothing else."""

    def rows(self, table: Any) -> list[Any]:
        return []

    def loss(self, scores: PairScores, batch: PairBatch, objective: RewardBCE) -> Tensor:
        return 0.5 * scores.first.square()


def test_the_loss_of_a_conflict_is_added_to_each_example() -> None:
    model = reward_model()
    [micro] = rows()[BATCHES[0]]
    plain, pulled = (RewardStudent(model, RewardBCE(), conflict, FIT) for conflict in (NoConflict(), Tilt()))
    extra = 0.5 * plain(micro).first.square().sum()
    torch.testing.assert_close(pulled.losses(micro), plain.losses(micro) + extra)
    assert plain.mass(micro).item() == 8


@pytest.fixture
def references() -> dict[str, Tensor]:
    rng = np.random.default_rng(4)
    return {"weak": torch.from_numpy(rng.beta(1, 1.2, N)), "ceiling": torch.from_numpy(rng.beta(9, 1, N))}


def examined(
    task: Task, model: RewardModel, swapped: np.ndarray = SWAPPED, references: dict[str, Tensor] | None = None
) -> tuple[RewardStudent, dict[str, float]]:
    """A student after its test, and what was logged."""
    student = RewardStudent(model, RewardBCE(), NoConflict(), FIT)
    uid = torch.arange(N) * 7 - 50
    student.examine(Examination(uid, torch.arange(len(uid)), torch.from_numpy(swapped), references or {}))
    scored = rows(task.trainer.micro_tokens, swapped, targets=None)
    logged = engine.test(task, student, Loader(scored, in_length_order(scored.lengths, 5)))
    return student, logged


@torch.no_grad()
def true_margins(model: RewardModel) -> np.ndarray:
    """Chosen minus rejected, by hand."""
    signs = np.where(SWAPPED, -1, 1)
    return np.array([by_hand(model, i).margin.item() for i in range(N)]) * signs


def test_what_is_logged_is_what_the_functions_say_of_the_predictions(
    task: Callable[..., Task], references: dict[str, Tensor]
) -> None:
    student, logged = examined(task(), reward_model(), references=references)
    right = accuracy(student.predictions["p_correct"])
    weak, ceiling = (accuracy(references[role].numpy()) for role in ("weak", "ceiling"))
    assert 0 < right < 1
    assert logged == {"accuracy": right, "pgr": pgr(weak, right, ceiling)}


def test_without_references_there_is_accuracy_alone(task: Callable[..., Task]) -> None:
    student, logged = examined(task(), reward_model())
    assert logged == {"accuracy": accuracy(student.predictions["p_correct"])}


@pytest.mark.parametrize("micro_tokens", [1, 60, 10**6])
def test_margins_are_oriented_to_the_truth_and_every_pair_has_one(micro_tokens: int, task: Callable[..., Task]) -> None:
    model = reward_model()
    student, _ = examined(task(micro_tokens=micro_tokens), model)
    assert student.predictions["margin"] == pytest.approx(true_margins(model), abs=1e-6)
    assert student.predictions["p_correct"] == pytest.approx(1 / (1 + np.exp(-true_margins(model))), abs=1e-6)
    assert not np.isnan(student.predictions["margin"]).any()
    assert not np.isnan(student.predictions["p_correct"]).any()
    assert (student.predictions["margin"].dtype, student.predictions["p_correct"].dtype) == (np.float64, np.float64)


@pytest.mark.parametrize("coins", [SWAPPED, ~SWAPPED, np.zeros(N, dtype=bool), np.ones(N, dtype=bool)])
def test_the_coins_change_no_prediction(
    coins: np.ndarray, task: Callable[..., Task], references: dict[str, Tensor]
) -> None:
    model = reward_model()
    student, logged = examined(task(), model, coins, references)
    fixed, expected = examined(task(), model, SWAPPED, references)
    assert student.predictions["margin"] == pytest.approx(fixed.predictions["margin"], abs=1e-6)
    assert student.predictions["p_correct"] == pytest.approx(fixed.predictions["p_correct"], abs=1e-6)
    assert logged == expected


def test_predicting_is_examining_without_measuring(task: Callable[..., Task]) -> None:
    model = reward_model()
    tested, _ = examined(task(), model)
    student = RewardStudent(model, RewardBCE(), NoConflict(), FIT)
    student.examine(tested.examination)
    scored = rows(targets=None)
    engine.predict(task(), student, Loader(scored, in_length_order(scored.lengths, 5)))
    assert np.array_equal(student.predictions["margin"], tested.predictions["margin"])
    assert np.array_equal(student.predictions["p_correct"], tested.predictions["p_correct"])


def test_an_examination_leaves_dropout_out_and_the_weights_alone(task: Callable[..., Task]) -> None:
    model = reward_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    before = copy.deepcopy(model)
    student, _ = examined(task(), model)
    assert student.predictions["margin"] == pytest.approx(true_margins(reward_model()), abs=1e-6)
    assert not moved(before, model)


def test_dropout_is_on_in_training_where_it_was_not_silenced(task: Callable[..., Task]) -> None:
    silent, noisy = reward_model(), reward_model()
    for module in noisy.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    train(task(), silent, FIT)
    train(task(), noisy, FIT)
    assert distance(silent, noisy) > 1e-4


def test_every_epoch_has_another_order_and_every_row(task: Callable[..., Task]) -> None:
    seen: list[list[int]] = []

    class Watched(PairRows):
        def __getitem__(self, batch: list[int]) -> list[Any]:
            seen.append(batch)
            return super().__getitem__(batch)

    fit = Fit(lr=1e-3, epochs=3)
    loader = Loader(Watched(ENCODED, SWAPPED, 10**6, targets=TARGETS), Shuffled(N, 8, seed=5))
    student = RewardStudent(reward_model(), RewardBCE(), NoConflict(), fit, 9)
    engine.train(task(), student, loader)
    expected = []
    for epoch in range(3):
        shuffled = Shuffled(N, 8, seed=5)
        shuffled.set_epoch(epoch)
        expected += list(shuffled)
    assert seen == expected
    assert student.global_step == 9


def test_small_numbers_are_small_again_after_training(task: Callable[..., Task]) -> None:
    """Denormals are flushed for speed while a Trainer runs, not in what comes after it in the same process."""
    train(task(), reward_model(), FIT)
    assert np.float64(1e-310) * 0.5 > 0
