"""The size of a transformer and its floating-point operations, from `config.json` alone: for plans, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Names of the sizes in a config.json, where an architecture has names of its own.
GPT2 = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "intermediate_size": "n_inner"}
OPT = {"intermediate_size": "ffn_dim"}
GATED = ("llama", "mistral", "qwen2", "qwen3")  # rotary positions, three matrices in a feed-forward layer
LEARNED = {"gpt2": ("n_positions", 0), "opt": ("max_position_embeddings", 2)}  # a vector per position, and extra ones


class Size(NamedTuple):
    """Numbers of weights, and the shape that the cost of attention depends on."""

    layers: int
    attended: int  # width of all attention heads together
    blocks: int  # weights of all layers
    embeddings: int  # of tokens, and of positions where they are learnt
    output: int  # weights of the output embedding, which may be those of the tokens
    is_tied: bool

    def parameters(self, language_model: bool) -> int:
        """Return how many weights the model has, with its output embedding if it is a `language_model`."""
        return self.blocks + self.embeddings + (self.output if language_model and not self.is_tied else 0)


def size(config: Mapping[str, Any]) -> Size | None:
    """Return the size of the transformer with this `config.json`; None for an architecture that is not known here.

    Biases and norms are counted roughly (they are less than 2% from a width of 64 on).
    """
    kind = config.get("model_type")
    if kind not in (*GATED, *LEARNED):
        return None
    names = GPT2 if kind == "gpt2" else OPT if kind == "opt" else {}
    width, layers, inner = (
        config.get(names.get(name, name)) for name in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    vocabulary = config.get("vocab_size")
    inner = inner or (4 * width if kind == "gpt2" and width else None)
    heads = config.get("n_head" if kind == "gpt2" else "num_attention_heads")
    if not (width and layers and inner and vocabulary and heads):
        return None
    head_width = config.get("head_dim") or width // heads
    attended, shared = heads * head_width, (config.get("num_key_value_heads") or heads) * head_width
    per_layer = 2 * width * (attended + shared) + (3 if kind in GATED else 2) * width * inner
    per_layer += 2 * width if kind in GATED else 9 * width + inner  # norms; biases too
    embeddings = vocabulary * (config.get("word_embed_proj_dim") or width)
    output, is_tied = embeddings, config.get("tie_word_embeddings", kind in LEARNED)
    if kind in LEARNED:
        name, extra = LEARNED[kind]
        embeddings += (config.get(name, 0) + extra) * width
    return Size(layers, attended, layers * per_layer, embeddings, output, is_tied)


def flops(
    config: Mapping[str, Any], n_tokens: int, length: int, *, training: bool, language_model: bool
) -> float | None:
    """Return the floating-point operations of reading `n_tokens` in rows of `length`; None for an unknown architecture.

    2 N per token forward (a multiplication and an addition), N being the weights of all layers and, in a language
    model, of the output embedding; and 2 · layers · width · length per token for attention, of which a causal model
    needs half of each square. Training takes three times as much: 6 N per token (Kaplan et al. 2020, section 2.1).
    """
    if (of := size(config)) is None:
        return None
    per_token = 2 * (of.blocks + of.output * language_model) + 2 * of.layers * of.attended * length
    return float(n_tokens * per_token * (3 if training else 1))
