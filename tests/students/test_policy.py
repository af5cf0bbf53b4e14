"""The policy student: what it reads, what a step is, what is recorded; and the fine-tuning before it."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.conflicts.base import Conflict, NoConflict
from w2sd.conflicts.explicit import Explicit
from w2sd.conflicts.placebo import RandomMask
from w2sd.data.batch import AnswerRows, PairRows
from w2sd.data.loader import Loader, in_length_order
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.models.heads import PolicyModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.preference import DPO, SimPO
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.language import SftLearner
from w2sd.students.learner import Learner
from w2sd.students.student import Examination, PolicyStudent

N, VOCABULARY = 22, 31
BATCHES = [list(range(8)), list(range(8, 16)), list(range(16, 22))]  # the last one is smaller
SHAPE = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
ROTARY = SHAPE | {"num_key_value_heads": 2, "intermediate_size": 24, "vocab_size": VOCABULARY}
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(n_embd=12, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCABULARY),
    "opt": OPTConfig(**SHAPE, ffn_dim=24, word_embed_proj_dim=12, vocab_size=VOCABULARY),
    "llama": LlamaConfig(**ROTARY),
    "mistral": MistralConfig(**ROTARY),
    "qwen2": Qwen2Config(**ROTARY),
    "qwen3": Qwen3Config(**ROTARY, head_dim=6),
}
OBJECTIVES: dict[str, Any] = {
    path.stem: part
    for path in sorted(Path(CONF, "objective").glob("*.yaml"))
    if (part := build(OmegaConf.to_container(OmegaConf.load(path)), "objective")).student == "policy"
}
PULLS: dict[str, Conflict] = {
    "none": NoConflict(),
    "explicit": Explicit(),
    "explicit, weak": Explicit(mask="weak"),
    "explicit, sft": Explicit(form="sft", trigger="policy"),
    "random mask": RandomMask(rate=0.5),
}
FIT = Fit(lr=1e-3, clip=0.5, warmup=0.3)


def policy(architecture: str = "llama", seed: int = 0) -> PolicyModel:
    """A small model in double precision, so that only a wrong formula can make a difference."""
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(CONFIGS[architecture], dtype=torch.float64)
    with torch.no_grad():
        for weights in lm.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
    silence_dropout(lm)
    return PolicyModel(lm.train())


def encoded(n: int = N, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    prompts, chosen, rejected = ([rng.integers(0, VOCABULARY, rng.integers(1, 8)) for _ in range(n)] for _ in range(3))
    return Encoded(prompts, chosen, rejected, list(range(n)), 0, 0, 0)


ENCODED = encoded()
SWAPPED = np.random.default_rng(1).random(N) < 0.5
TARGETS = np.random.default_rng(2).random(N).astype(np.float32)
DRAWS = np.random.default_rng(4).random(N)
REFERENCES = np.random.default_rng(3).uniform(-30, -10, size=(N, 2)).astype(np.float32)  # better, worse


def rows(micro_tokens: int = 10**6, swapped: np.ndarray = SWAPPED) -> PairRows:
    told = {
        "targets": TARGETS,
        "truth": (~swapped).astype(float),
        "draws": DRAWS,
        "references": REFERENCES.astype(float),
    }
    return PairRows(ENCODED, swapped, micro_tokens, **told)


def answer_rows(micro_tokens: int = 10**6) -> AnswerRows:
    return AnswerRows(ENCODED.prompts, ENCODED.chosen, micro_tokens)


def student_of(model: PolicyModel, objective: Any, conflict: Conflict | None = None, n_steps: int = 3) -> PolicyStudent:
    return PolicyStudent(model, objective, conflict or NoConflict(), FIT, n_steps, 1)


def train(task: Task, learner: Learner, data: Any, batches: Sequence[list[int]] = BATCHES) -> Learner:
    engine.train(task, learner, Loader(data(task.trainer.micro_tokens), list(batches)))
    return learner


def log_prob(model: PolicyModel, prompt: np.ndarray, answer: np.ndarray) -> Tensor:
    """Of an answer, token by token and row by row: ln softmax of what the model says before each."""
    total = torch.zeros((), dtype=torch.float64)
    row = np.concatenate([prompt, answer])
    for t in range(len(prompt), len(row)):
        logits = model.lm(input_ids=torch.tensor(row[:t])[None]).logits[0, -1]
        total = total + logits[int(row[t])] - logits.logsumexp(0)
    return total


def sides(i: int) -> list[np.ndarray]:
    return [ENCODED.chosen[i], ENCODED.rejected[i]][:: -1 if SWAPPED[i] else 1]


@pytest.mark.parametrize("conflict", [RandomMask(rate=0.5), Explicit(), Explicit(mask="weak")], ids=repr)
def test_the_share_of_rows_that_a_conflict_pulls_at_is_that_of_whole_batches(
    task: Callable[..., Task], conflict: Conflict
) -> None:
    """The mean over steps, the last of which has fewer rows, however memory cuts them up."""
    whole, cut = (
        train(task(f"{n}", micro_tokens=n), student_of(policy(), SimPO(), conflict), rows) for n in (10**6, 30)
    )
    assert whole.pulled is not None
    assert cut.pulled == pytest.approx(whole.pulled, rel=1e-6)
    if isinstance(conflict, RandomMask):
        assert whole.pulled == pytest.approx(sum((DRAWS[batch] < 0.5).mean() for batch in BATCHES), rel=1e-6)
    else:
        assert 0 < whole.pulled < len(BATCHES)


def test_where_no_loss_of_a_conflict_pulls_no_share_is_told(task: Callable[..., Task]) -> None:
    assert train(task(), student_of(policy(), SimPO()), rows).pulled is None


def simpo_by_hand(model: PolicyModel, i: int) -> Tensor:
    """β 2, γ 1: −q ln σ(β d − γ) − (1 − q) ln σ(−β d − γ)."""
    means = [log_prob(model, ENCODED.prompts[i], side) / len(side) for side in sides(i)]
    d, q = means[0] - means[1], float(TARGETS[i])
    return q * (1 + (1 - 2 * d).exp()).log() + (1 - q) * (1 + (1 + 2 * d).exp()).log()


def dpo_by_hand(model: PolicyModel, i: int) -> Tensor:
    """β 0.1: −q ln σ(β h) − (1 − q) ln σ(−β h)."""
    first, second = (log_prob(model, ENCODED.prompts[i], side) for side in sides(i))
    ref_first, ref_second = (float(said) for said in REFERENCES[i][:: -1 if SWAPPED[i] else 1])
    h, q = (first - ref_first) - (second - ref_second), float(TARGETS[i])
    return q * (1 + (-0.1 * h).exp()).log() + (1 - q) * (1 + (0.1 * h).exp()).log()


def sft_by_hand(model: PolicyModel, i: int) -> Tensor:
    return -log_prob(model, ENCODED.prompts[i], ENCODED.chosen[i]) / len(ENCODED.chosen[i])


BY_HAND: dict[str, Any] = {
    "simpo": (simpo_by_hand, lambda model: student_of(model, SimPO()), rows),
    "dpo": (dpo_by_hand, lambda model: student_of(model, DPO()), rows),
    "sft": (sft_by_hand, lambda model: SftLearner(model, FIT, 3, 1), answer_rows),
}
each_learner = pytest.mark.parametrize("name", BY_HAND)


def train_by_hand(model: PolicyModel, loss_of: Callable[[PolicyModel, int], Tensor]) -> list[float]:
    """Changes `model` step by step with PyTorch's AdamW; gives the loss of each step."""
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimiser = torch.optim.AdamW(trained, FIT.lr, weight_decay=FIT.weight_decay, fused=False)
    losses = []
    for step, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        loss = torch.stack([loss_of(model, i) for i in batch]).mean()
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(trained, FIT.clip)
        optimiser.param_groups[0]["lr"] = FIT.lr * FIT.factor(step, len(BATCHES))
        optimiser.step()
    return losses


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference between weights."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def curve(task: Task) -> list[float]:
    with (task.logs / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


# --- a step -----------------------------------------------------------------------------------------------------------


@each_learner
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_training_is_adamw_on_the_mean_loss_of_each_global_batch(
    name: str, architecture: str, task: Callable[..., Task]
) -> None:
    loss_of, learner_of, data = BY_HAND[name]
    start = policy(architecture)
    expected, actual = copy.deepcopy(start), copy.deepcopy(start)
    losses = train_by_hand(expected, loss_of)
    at = task(micro_tokens=50)
    learner = train(at, learner_of(actual), data)
    assert learner.global_step == 3
    assert distance(start, expected) > 1e-3
    assert distance(actual, expected) < 1e-6
    assert curve(at) == pytest.approx(losses, abs=1e-5)


@each_learner
@pytest.mark.parametrize("micro_tokens", [1, 16, 60])
def test_memory_never_changes_a_step(name: str, micro_tokens: int, task: Callable[..., Task]) -> None:
    _, learner_of, data = BY_HAND[name]
    whole, cut_up = policy(), policy()
    train(task(), learner_of(whole), data)
    train(task(micro_tokens=micro_tokens), learner_of(cut_up), data)
    assert min(len(data(micro_tokens)[batch]) for batch in BATCHES) > 1
    assert distance(whole, cut_up) < 1e-6


@each_learner
def test_the_order_of_rows_in_a_batch_changes_no_step(name: str, task: Callable[..., Task]) -> None:
    _, learner_of, data = BY_HAND[name]
    forwards, backwards = policy(), policy()
    train(task(micro_tokens=50), learner_of(forwards), data)
    train(task(micro_tokens=50), learner_of(backwards), data, [batch[::-1] for batch in BATCHES])
    assert distance(forwards, backwards) < 1e-6


def meetings(*axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Each value of the first two axes with each other, and with each of a third that is no longer than they are."""
    first, second, third = axes
    assert len(third) <= min(len(first), len(second))
    found = [(a, b, third[(i + j) % len(third)]) for i, a in enumerate(first) for j, b in enumerate(second)]
    assert len({(a, c) for a, _, c in found}) == len(first) * len(third)
    assert len({(b, c) for _, b, c in found}) == len(second) * len(third)
    return found


@pytest.mark.parametrize(
    ("architecture", "objective", "conflict"), meetings(list(CONFIGS), list(OBJECTIVES), list(PULLS))
)
def test_every_objective_trains_every_weight_of_every_architecture_under_every_pull(
    architecture: str, objective: str, conflict: str
) -> None:
    """And its loss is the same however the batch is cut up, padded and ordered. Any two of the three meet."""
    model = policy(architecture)
    student = student_of(model, OBJECTIVES[objective], PULLS[conflict])

    def loss(micro_tokens: int, order: list[int]) -> Tensor:
        pieces = rows(micro_tokens)[order]
        return sum(student.losses(piece) for piece in pieces) / sum(student.mass(piece) for piece in pieces)

    whole = loss(10**6, list(range(N)))
    for micro_tokens, order in [(1, list(range(N))), (60, list(range(N))[::-1])]:
        torch.testing.assert_close(loss(micro_tokens, order), whole, rtol=1e-5, atol=1e-6)
    before = copy.deepcopy(model)
    trained = list(model.parameters())
    for weights, gradient in zip(trained, torch.autograd.grad(whole, trained), strict=True):
        weights.data -= 0.01 * gradient.sign()
    still = [name for name, old in before.named_parameters() if torch.equal(old, model.get_parameter(name))]
    # a bias of keys moves all attention scores of a token alike, which changes nothing
    assert [name for name in still if not name.endswith("k_proj.bias")] == []


@each_learner
def test_divergence_stops_and_names_its_knob(name: str, task: Callable[..., Task]) -> None:
    _, _, data = BY_HAND[name]
    fit = Fit(lr=1e30, schedule="constant")
    model = policy().float()
    learner: Learner = SftLearner(model, fit, 3, 1)
    if name != "sft":
        learner = PolicyStudent(model, OBJECTIVES[name], NoConflict(), fit, 3)
    knob = "sft.fit.lr" if name == "sft" else "fit.lr"
    with pytest.raises(StageFailed, match=rf"\b(nan|inf)\b.*\b1\b.*1e\+30.* {knob}\b"):
        engine.train(task(), learner, Loader(data(10**6), BATCHES))


def test_half_precision_trains(task: Callable[..., Task]) -> None:
    """The weights stay in single precision, and most go where they go without rounding."""
    start = policy().float()
    half, single = copy.deepcopy(start), copy.deepcopy(start)
    for model, precision in ((half, "bf16-mixed"), (single, "32-true")):
        fit = Fit(lr=1e-3, precision=precision)
        student = PolicyStudent(model, SimPO(), NoConflict(), fit, 3)
        engine.train(task(), student, Loader(rows(), BATCHES))
    assert {weights.dtype for weights in half.parameters()} == {torch.float32}
    origin, one, other = (nn.utils.parameters_to_vector(model.parameters()) for model in (start, half, single))
    assert 0.9 < nn.functional.cosine_similarity(one - origin, other - origin, dim=0) < 1


def test_there_is_one_model(task: Callable[..., Task]) -> None:
    """The reference of DPO is in the batch."""
    model = policy()
    student = student_of(model, DPO())
    assert {id(weights) for weights in student.parameters()} == {id(weights) for weights in model.parameters()}


# --- what it reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["simpo", "dpo"])
def test_scores_are_of_both_answers_in_slot_order(objective: str) -> None:
    model = policy()
    [micro] = rows()[list(range(N))]
    scores = student_of(model, OBJECTIVES[objective])(micro)
    for n, i in enumerate(micro.rows.tolist()):
        first, second = sides(i)
        with torch.no_grad():
            expected = [log_prob(model, ENCODED.prompts[i], side).item() for side in (first, second)]
        assert [scores.first[n].item(), scores.second[n].item()] == pytest.approx(expected, abs=1e-4)
        assert [scores.n_first[n].item(), scores.n_second[n].item()] == [len(first), len(second)]
        if objective == "dpo":
            said = REFERENCES[i][:: -1 if SWAPPED[i] else 1].tolist()
            assert [scores.ref_first[n].item(), scores.ref_second[n].item()] == said
    assert (scores.ref_first is None) == (scores.ref_second is None) == (objective == "simpo")


# --- what is recorded -------------------------------------------------------------------------------------------------


def examined(
    task: Task, model: PolicyModel, objective: Any, reading: str = "own", swapped: np.ndarray = SWAPPED
) -> tuple[PolicyStudent, dict[str, float]]:
    """A student after its test, and what was logged."""
    student = student_of(model, objective)
    student.examine(Examination(torch.arange(N) * 7 - 50, torch.arange(N), torch.from_numpy(swapped), {}, reading))
    scored = rows(task.trainer.micro_tokens, swapped)
    logged = engine.test(task, student, Loader(scored, in_length_order(scored.lengths, 5)))
    return student, logged


@cache
@torch.no_grad()
def known() -> np.ndarray:
    """The log-probabilities of the better and the worse answer of each pair under `policy()`, [n, 2]."""
    model = policy()
    parts = zip(ENCODED.prompts, ENCODED.chosen, ENCODED.rejected, strict=True)
    return np.array([[log_prob(model, prompt, side).item() for side in both] for prompt, *both in parts])


LENGTHS = np.array([[len(c), len(r)] for c, r in zip(ENCODED.chosen, ENCODED.rejected, strict=True)])


def logit(objective: str, reading: str, said: np.ndarray) -> np.ndarray:
    """What the confidence is the sigmoid of (methods.md 2.7, architecture.md)."""
    means, sums = (np.subtract(*scale.T) for scale in (said / LENGTHS, said))
    if objective == "simpo":
        return means if reading == "legacy" else 2 * means
    adjusted = sums - np.subtract(*REFERENCES.astype(float).T)
    return {"own": 0.1 * adjusted, "reference_free": 0.1 * sums, "legacy": sums / 50}[reading]


@pytest.mark.parametrize("objective", ["simpo", "dpo"])
@pytest.mark.parametrize("reading", ["own", "reference_free", "legacy"])
@pytest.mark.parametrize("micro_tokens", [1, 10**6])
def test_margins_and_confidences_are_those_of_the_reading_and_oriented_to_the_truth(
    objective: str, reading: str, micro_tokens: int, task: Callable[..., Task]
) -> None:
    model = policy()
    student, logged = examined(task(micro_tokens=micro_tokens), model, OBJECTIVES[objective], reading)
    expected = logit(objective, reading, known())
    assert student.predictions["margin"] == pytest.approx(expected, abs=1e-4)
    assert student.predictions["p_correct"] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-5)
    assert logged["accuracy"] == pytest.approx((expected > 0).mean())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_log_probabilities_are_recorded_for_every_pair(objective: str, task: Callable[..., Task]) -> None:
    model = policy()
    student, _ = examined(task(micro_tokens=60), model, OBJECTIVES[objective])
    columns = student.predictions
    said = known()
    assert columns["logp_chosen"] == pytest.approx(said[:, 0], abs=1e-4)
    assert columns["logp_rejected"] == pytest.approx(said[:, 1], abs=1e-4)
    assert {column.dtype for column in columns.values()} == {np.dtype("float64")}
    if OBJECTIVES[objective].needs_reference:
        recorded = np.column_stack([columns["ref_logp_chosen"], columns["ref_logp_rejected"]])
        assert np.array_equal(recorded, REFERENCES.astype(float))
    assert len(columns) == 2 + (4 if OBJECTIVES[objective].needs_reference else 2)


@pytest.mark.parametrize("coins", [~SWAPPED, np.zeros(N, dtype=bool), np.ones(N, dtype=bool)])
@pytest.mark.parametrize("objective", ["simpo", "dpo"])
def test_the_coins_change_no_prediction(coins: np.ndarray, objective: str, task: Callable[..., Task]) -> None:
    model = policy()
    student, logged = examined(task(), model, OBJECTIVES[objective], swapped=coins)
    fixed, expected = examined(task(), model, OBJECTIVES[objective])
    assert student.predictions["margin"] == pytest.approx(fixed.predictions["margin"], abs=1e-4)
    assert logged == expected
    for name, column in student.predictions.items():
        assert column == pytest.approx(fixed.predictions[name], abs=1e-4)
