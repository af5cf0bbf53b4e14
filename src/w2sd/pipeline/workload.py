"""How much work a stage is, as far as a plan can tell: from knobs and `config.json`, without rows, weights or torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from w2sd.errors import within
from w2sd.pipeline.stage import Stage

WEIGHT, TRAINED = 4, 16  # bytes per weight in single precision; with its gradient and AdamW's two moments

# Names of the sizes in a config.json, where an architecture has names of its own.
GPT2 = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "intermediate_size": "n_inner"}
OPT = {"intermediate_size": "ffn_dim"}
GATED = ("llama", "mistral", "qwen2", "qwen3")  # rotary positions, three matrices in a feed-forward layer
LEARNED = {"gpt2": ("n_positions", 0), "opt": ("max_position_embeddings", 2)}  # a vector per position, and extra ones


class Workload(NamedTuple):
    """None: not known before the stage runs."""

    parameters: int | None
    rows: int | None  # as in `Reading`
    memory: int | None  # bytes, at least: weights, and of all that are trained gradients and moments; no activations
    flops: float | None  # at most: every text is as long as `data.max_tokens` allows


def workload(stage: Stage) -> Workload | None:
    """Return how much work a stage is; None for a stage that asks no model."""
    if not stage.asks_model:
        return None
    origin = stage.origin
    with within("model"):
        config: dict[str, Any] = getattr(origin["model"], "sizes", dict)()  # somebody's own model may not tell them
    is_policy = getattr(origin.get("objective"), "student", None) == "policy"
    is_language = stage.reads_language or is_policy
    adapter = origin.get("adapter")
    of = size(config)
    parameters = None if of is None else of.parameters(is_language)
    trains_all = stage.trains and (adapter is None or getattr(adapter, "trains_all", False))
    rows, length, times = stage.reading()
    if adapter is not None and adapter.reads_features:  # a head on vectors: no transformer is loaded
        return Workload(parameters, rows, 0, 0.0)
    memory = None if parameters is None else parameters * (TRAINED if trains_all else WEIGHT)
    if of is None or rows is None or length is None:
        return Workload(parameters, rows, memory, None)
    needed = of.flops(rows * times * length, length, training=stage.trains, language_model=is_language)
    return Workload(parameters, rows, memory, needed)


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

    def flops(self, n_tokens: int, length: int, *, training: bool, language_model: bool) -> float:
        """Return the floating-point operations of reading `n_tokens` in rows of `length`.

        2 N per token forward (a multiplication and an addition), N being the weights of all layers and, in a language
        model, of the output embedding; and 2 · layers · width · length per token for attention, of which a causal model
        needs half of each square. Training takes three times as much: 6 N per token (Kaplan et al. 2020, section 2.1).
        """
        per_token = 2 * (self.blocks + self.output * language_model) + 2 * self.layers * self.attended * length
        return float(n_tokens * per_token * (3 if training else 1))


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


def quantity(value: float | None, unit: str = "") -> str:
    """Return a number with three digits and a short unit; `?` where it is not known.

    >>> [quantity(12_345_678), quantity(1.2e9, "B"), quantity(3.4e12, "FLOP"), quantity(999_999), quantity(None)]
    ['12.3 M', '1.2 GB', '3.4 TFLOP', '1 M', '?']
    """
    if value is None:
        return "?"
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g} {prefixes[0]}{unit}".rstrip()
