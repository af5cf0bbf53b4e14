"""The closed formula against counters: of weights, and of the operations of matrix products."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM

from w2sd.pipeline.workload import size

ROWS, LENGTH, VOCABULARY = 3, 24, 300
ROTARY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "max_position_embeddings": 32,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "opt": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 256,
        "word_embed_proj_dim": 64,
        "max_position_embeddings": 32,
    },
    "llama": ROTARY,
    "mistral": ROTARY,
    "qwen2": ROTARY,
    "qwen3": {**ROTARY, "head_dim": 32},
}
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def config_of(architecture: str, **more: Any) -> Any:
    return CONFIG_MAPPING[architecture](vocab_size=VOCABULARY, **SHAPES[architecture], **NO_IDS, **more)


def written(config: Any) -> dict[str, Any]:
    """What its config.json says."""
    return json.loads(config.to_json_string())


@pytest.mark.parametrize("language_model", [False, True])
@pytest.mark.parametrize("architecture", SHAPES)
def test_parameters_are_those_of_the_model(architecture: str, language_model: bool) -> None:
    config = config_of(architecture)
    model = (AutoModelForCausalLM if language_model else AutoModel).from_config(config)
    counted = sum(weights.numel() for weights in model.parameters())
    found = size(written(config))
    assert found is not None
    assert found.parameters(language_model) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("gpt2", False)])
def test_an_output_embedding_of_its_own_counts_once_more(architecture: str, tied: bool) -> None:
    config = config_of(architecture, tie_word_embeddings=tied)
    counted = sum(weights.numel() for weights in AutoModelForCausalLM.from_config(config).parameters())
    found = size(written(config))
    assert found is not None
    assert found.parameters(language_model=True) == pytest.approx(counted, rel=0.02)
    assert (found.parameters(language_model=True) == found.parameters(language_model=False)) is tied


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("architecture", SHAPES)
def test_operations_are_what_a_counter_finds(architecture: str, training: bool) -> None:
    """The counter has the whole square of attention, of which a causal model needs half: twice the length here."""
    config = config_of(architecture)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = model(torch.randint(VOCABULARY, (ROWS, LENGTH)), use_cache=False).logits
        if training:
            logits.sum().backward()
    of = size(written(config))
    assert of is not None
    assert of.flops(ROWS * LENGTH, 2 * LENGTH, training=training, language_model=True) == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "mamba", "hidden_size": 64}, {"model_type": "llama", "hidden_size": 64}]
)
def test_of_an_architecture_that_is_not_known_nothing_is_said(config: dict[str, Any]) -> None:
    assert size(config) is None
