"""Pretraining: a weighted mean over all tokens of a global batch, whatever memory does."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from w2sd.data.loader import Loader
from w2sd.errors import StageFailed
from w2sd.models.prepare import silence_dropout
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.language import DocumentRows, LanguageLearner

N, LENGTH, VOCABULARY = 14, 6, 17
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, size=(N, LENGTH)).astype(np.int32)
WEIGHTS = np.random.default_rng(1).choice([0.0, 0.05, 1.0], size=(N, LENGTH)).astype(np.float32)
BATCHES = [list(range(5)), [9, 5, 8, 7, 6], [10, 11, 12, 13]]
FIT = Fit(lr=1e-3, clip=0.5, weight_decay=0.01, betas=[0.9, 0.98])


def language_model(architecture: str = "llama") -> nn.Module:
    """A small causal model in double precision."""
    torch.manual_seed(0)
    if architecture == "gpt2":
        config = GPT2Config(
            n_embd=8, n_layer=1, n_head=2, n_positions=8, vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None
        )
        model: Any = GPT2LMHeadModel(config)
    else:
        shape = {"hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=VOCABULARY, tie_word_embeddings=True))
    silence_dropout(model)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(5)
    return model.double().train()


def by_hand(model: nn.Module, batch: list[int]) -> torch.Tensor:
    """Token by token: -log softmax of what the model says before it, times its weight, over the sum of weights."""
    total = mass = torch.zeros((), dtype=torch.float64)
    for i in batch:
        for t in range(1, LENGTH):  # the first token has nothing before it
            logits = model(input_ids=torch.from_numpy(TOKENS[i : i + 1, :t]).long()).logits[0, -1]
            total = total - float(WEIGHTS[i, t]) * logits.log_softmax(0)[int(TOKENS[i, t])]
            mass = mass + float(WEIGHTS[i, t])
    return total / mass


def train(task: Task, model: nn.Module, fit: Fit = FIT, batches: list[list[int]] = BATCHES) -> LanguageLearner:
    loader = Loader(DocumentRows(TOKENS, WEIGHTS, task.trainer.micro_tokens), batches)
    learner = LanguageLearner(model, fit, fit.epochs * len(loader), task.trainer.log_every)
    engine.train(task, learner, loader)
    return learner


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def curve(task: Task) -> list[float]:
    with (task.logs / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("micro_tokens", [1, 13, 10**6])
def test_the_loss_is_the_weighted_mean_over_the_tokens_of_the_whole_batch(architecture: str, micro_tokens: int) -> None:
    model = language_model(architecture)
    learner = LanguageLearner(model, FIT, 1, 1)
    for batch in BATCHES:
        pieces = DocumentRows(TOKENS, WEIGHTS, micro_tokens)[batch]
        loss = sum(learner.losses(piece) for piece in pieces) / sum(learner.mass(piece) for piece in pieces)
        assert loss.item() == pytest.approx(by_hand(model, batch).item(), abs=1e-6)


def test_a_token_without_weight_is_not_learnt_and_a_constant_weight_cancels() -> None:
    model = language_model()
    learner = LanguageLearner(model, FIT, 1, 1)

    def loss(weights: np.ndarray) -> float:
        [piece] = DocumentRows(TOKENS, weights.astype(np.float32), 10**6)[[0, 1, 2]]
        return (learner.losses(piece) / learner.mass(piece)).item()

    assert loss(WEIGHTS * 4) == pytest.approx(loss(WEIGHTS), rel=1e-6)
    first = WEIGHTS.copy()
    first[:, 0] = 99  # of the first token, which is never predicted
    assert loss(first) == pytest.approx(loss(WEIGHTS), rel=1e-6)
    single = np.zeros_like(WEIGHTS)
    single[1, 3] = 0.05
    logits = model(input_ids=torch.from_numpy(TOKENS[1:2, :3]).long()).logits[0, -1]
    assert loss(single) == pytest.approx(-logits.log_softmax(0)[int(TOKENS[1, 3])].item(), abs=1e-6)


@pytest.mark.parametrize("micro_tokens", [1, 6, 11, 12, 24, 10**6])
def test_pieces_hold_every_document_once_within_the_budget(micro_tokens: int) -> None:
    rows = DocumentRows(TOKENS, WEIGHTS, micro_tokens)
    assert len(rows) == N
    pieces = rows[[3, 1, 4, 12, 5]]
    assert torch.cat([piece.ids_BT for piece in pieces]).tolist() == TOKENS[[3, 1, 4, 12, 5]].tolist()
    assert np.array_equal(torch.cat([piece.weights_BT for piece in pieces]).numpy(), WEIGHTS[[3, 1, 4, 12, 5]])
    assert all(piece.ids_BT.numel() <= max(micro_tokens, LENGTH) for piece in pieces)


@pytest.mark.parametrize("micro_tokens", [1, 13, 20])
def test_memory_never_changes_a_step(micro_tokens: int, task: Callable[..., Task]) -> None:
    whole, cut_up = language_model(), language_model()
    train(task(), whole)
    train(task(micro_tokens=micro_tokens), cut_up)
    assert distance(whole, cut_up) < 1e-6


def test_the_order_of_documents_in_a_batch_changes_no_step(task: Callable[..., Task]) -> None:
    forwards, backwards = language_model(), language_model()
    train(task(micro_tokens=13), forwards)
    train(task(micro_tokens=13), backwards, batches=[batch[::-1] for batch in BATCHES])
    assert distance(forwards, backwards) < 1e-6


def test_a_step_is_adamw_on_that_mean(task: Callable[..., Task]) -> None:
    expected, actual = language_model("gpt2"), language_model("gpt2")
    start = copy.deepcopy(actual)
    optimiser = torch.optim.AdamW(expected.parameters(), FIT.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=False)
    losses = []
    for step, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        loss = by_hand(expected, batch)
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(expected.parameters(), FIT.clip)
        optimiser.param_groups[0]["lr"] = FIT.lr * FIT.factor(step, 3)
        optimiser.step()
    at = task(micro_tokens=13)
    learner = train(at, actual)
    assert learner.global_step == 3
    assert distance(start, actual) > 1e-3
    assert distance(expected, actual) < 1e-6
    assert curve(at) == pytest.approx(losses, abs=1e-6)


def test_a_model_learns_what_it_reads(task: Callable[..., Task]) -> None:
    at = task()
    train(at, language_model(), Fit(lr=1e-2, epochs=30))
    losses = curve(at)
    assert len(losses) == 90
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_a_batch_that_weighs_nothing_is_no_number_and_stops(task: Callable[..., Task]) -> None:
    loader = Loader(DocumentRows(TOKENS, np.zeros_like(WEIGHTS), 10**6), BATCHES)
    learner = LanguageLearner(language_model(), FIT, 3, 1)
    with pytest.raises(StageFailed, match=r"\bnan\b.*\b0\b"):
        engine.train(task(), learner, loader)
