"""What a model needs is what a counter of its matrix products finds, whatever of it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, GPT2Model, LlamaConfig

from w2sd.data.layout import masked
from w2sd.data.tally import Tally
from w2sd.models.flops import peak_flops, work_of
from w2sd.models.score import PolicyModel, RewardModel

ROWS, LENGTH, ANSWER, VOCABULARY = 4, 24, 8, 300
TALLY = Tally(ROWS, ROWS * LENGTH, ROWS * LENGTH, ROWS * ANSWER, ROWS * LENGTH**2)
GPT2 = GPT2Config(
    n_embd=64, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None
)
LLAMA = LlamaConfig(
    hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=2, vocab_size=VOCABULARY
)


def reward() -> nn.Module:
    return RewardModel(GPT2Model._from_config(GPT2, attn_implementation="eager"))


def tied_policy() -> nn.Module:
    return PolicyModel(AutoModelForCausalLM.from_config(GPT2, attn_implementation="eager"))


def policy() -> nn.Module:
    return PolicyModel(AutoModelForCausalLM.from_config(LLAMA, attn_implementation="eager"))


def everything(name: str) -> bool:
    return True


def head(name: str) -> bool:
    return name.startswith(("head.", "lm.lm_head"))


def attention(name: str) -> bool:
    return "attn" in name and "ln" not in name


CASES = [(make, trained) for make in (reward, policy) for trained in (everything, head, attention)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("make", "trained"), [*CASES, (tied_policy, everything), (tied_policy, attention)])
def test_work_is_what_a_counter_finds(make: Callable[[], nn.Module], trained: Any, training: bool) -> None:
    """The counter has whole squares where a causal model needs half of each, and none of the additions of biases."""
    model = make()
    for name, weights in model.named_parameters():
        weights.requires_grad_(trained(name))
    ids_BT = torch.randint(VOCABULARY, (ROWS, LENGTH))
    inputs = (ids_BT, torch.ones_like(ids_BT), torch.full((ROWS,), ANSWER))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        scores = model(masked(*inputs))
        if training:
            scores.sum().backward()
    work = work_of(model, training)
    assert work is not None
    whole = work._replace(per_square=2 * work.per_square)
    counted = counter.get_total_flops()
    assert whole.on(TALLY) == pytest.approx(counted, rel=0.08)


def test_padding_adds_no_work() -> None:
    work = work_of(reward(), training=True)
    assert work is not None
    assert work.on(TALLY._replace(places=10**6)) == work.on(TALLY) > 0


def test_what_is_no_transformer_has_no_known_work() -> None:
    assert work_of(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4)), training=True) is None


def test_a_ceiling_is_measured_once_and_draws_nothing() -> None:
    """Its draws would be part of what a training with dropout comes to."""
    peak_flops.cache_clear()
    before = torch.get_rng_state()
    measured = peak_flops(torch.device("cpu"), torch.float32, 1)
    assert measured > 1e8
    assert peak_flops(torch.device("cpu"), torch.float32, 1) == measured
    assert torch.equal(torch.get_rng_state(), before)
