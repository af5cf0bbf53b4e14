"""Packed rows: attention between the tokens of one text, among the many that lie in one row without padding.

Everything else in a transformer (embeddings, linear layers, norms) works on each token by itself and needs to know
nothing. The attention is put in through transformers' own registry, so that it is the same for every architecture that
takes its attention from there; whether one does, and whether it gives the same scores, is tried (`pack`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from w2sd.data.layout import Text, Tokens, packed, plain

if TYPE_CHECKING:
    from w2sd.models.heads import HeadedModel, PolicyModel, StateModel

    Model: TypeAlias = HeadedModel | PolicyModel | StateModel

NAME = "w2sd_packed"
BLOCK = 128  # tokens: what FlexAttention, the attention of GPUs, skips or does as a whole
PROBE = (3, 4, 2, 2, 1, 5)  # tokens of prompts and answers that a model is tried with
TOLERANCE = 1e-4  # of the largest score: far above rounding, far below what a wrong neighbour does
WINDOWS = ("sliding_window", "attention_chunk_size")  # by which configs say how far back a model looks
HARMLESS = ("position_ids", "use_cache", "output_attentions", "output_hidden_states", "is_causal", *WINDOWS)
_lines: set[str] = set()


class Group(NamedTuple):
    """Texts of the same size that follow each other: they are attended to together."""

    n: int
    size: tuple[int, ...]  # tokens of the prompt and of each answer
    mask: Tensor | None  # added to the scores between a second answer and (its prompt, itself)


class Packing:
    """What the attention has to know of a row; made once and used in every layer.

    A compiler must not look into it, or it would make another program for each number of groups.
    """

    def __init__(self, groups: tuple[Group, ...], blocks: Any = None) -> None:
        self.groups = groups
        self.blocks = blocks  # the same for FlexAttention, on a GPU


def packing(tokens: Tokens) -> Packing:
    """For the texts in a row: on the CPU in groups, on a GPU as a block mask."""
    return Packing((), block_mask(tokens)) if tokens.ids.is_cuda else Packing(grouped(tokens))


def inputs_of(tokens: Tokens) -> dict[str, Any]:
    """What a transformer is given."""
    inputs: dict[str, Any] = {"input_ids": tokens.ids, "position_ids": tokens.positions, "use_cache": False}
    if tokens.mask is None:
        inputs["packing"] = packing(tokens)
    return inputs | {"attention_mask": tokens.mask}


def grouped(tokens: Tokens) -> tuple[Group, ...]:
    """The texts of a row, group by group."""
    runs = ((size, sum(1 for _ in run)) for size, run in groupby(map(tuple, tokens.sizes.tolist())))
    return tuple(Group(n, size, _mask(size, tokens.ids.device)) for size, n in runs)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it, [1, heads, N, width] to [1, N, heads, width], within each text."""
    peculiar = [name for name, value in others.items() if value is not None and name not in HARMLESS]
    if packing is None or dropout or peculiar:
        raise NotImplementedError(f"packed rows with {', '.join(peculiar) or dropout or 'no packing'}")
    if packing.blocks is not None:
        return attend_in_blocks(query, key, value, packing.blocks, scaling).transpose(1, 2), None
    return _by_text(query, key, value, packing, scaling), None


@torch.compiler.disable
def _by_text(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    counts = [group.n * sum(group.size) for group in packing.groups]
    parts = [side[0].split(counts, dim=1) for side in (query, key, value)]
    heads_NHD = [_within(group, *part, scale=scaling) for group, *part in zip(packing.groups, *parts, strict=True)]
    return torch.cat(heads_NHD)[None]


def _within(group: Group, *sides: Tensor, scale: float | None) -> Tensor:
    """Attention within each text of a group: query, key and value [heads, N, width] to [N, heads, width].

    The prompt with its first answer is an ordinary text; the second answer goes on from the prompt alone. Cut by
    `split`, whose gradient is one concatenation: slices would each bring a gradient as large as the whole.
    """
    q, k, v = (side.unflatten(1, (group.n, -1)).transpose(0, 1) for side in sides)
    prompt, first, *second = group.size
    if group.mask is None:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2).flatten(0, 1)
    (q, own_q), (k, own_k), (v, own_v) = (side.split([prompt + first, *second], dim=2) for side in (q, k, v))
    keys, values = (torch.cat([x[:, :, :prompt], own], dim=2) for x, own in ((k, own_k), (v, own_v)))
    heads = (
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale),
        scaled_dot_product_attention(own_q, keys, values, attn_mask=group.mask.to(q.dtype), scale=scale),
    )
    return torch.cat(heads, dim=2).transpose(1, 2).flatten(0, 1)


def _mask(size: tuple[int, ...], device: torch.device) -> Tensor | None:
    """For a second answer of n tokens: 0 over the prompt, and over its own tokens −∞ after the diagonal."""
    if len(size) < 3:
        return None
    prompt, _, n = size
    return torch.full((n, prompt + n), -torch.inf, device=device).triu_(prompt + 1)


def block_mask(tokens: Tokens) -> Any:
    """The block mask of FlexAttention: within a text, and of its answers each only itself and the prompt.

    Which blocks hold anything is known from where texts begin and end. `create_block_mask` would look at every pair of
    tokens to find it out: several GB for a row of 32,768, for every micro-batch.
    """
    device, n = tokens.ids.device, tokens.ids.shape[1]
    n_parts = tokens.sizes.shape[1]
    run_N = torch.repeat_interleave(torch.from_numpy(tokens.sizes.flatten())).to(device)
    text_N, part_N = run_N // n_parts, run_N % n_parts  # part 0 is the prompt, 1 and 2 are answers

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (text_N[q] == text_N[k]) & ((part_N[k] == 0) | (part_N[q] == part_N[k]))

    begin_Q = torch.arange(0, n, BLOCK, device=device)
    end_Q = (begin_Q + BLOCK - 1).clamp(max=n - 1)
    is_prompt = (part_N[begin_Q] == 0) & (run_N[begin_Q] == run_N[end_Q])
    reached = (text_N[end_Q] >= text_N[begin_Q, None]).tril()  # what lies before, as far back as the first text begins
    after_prompt = is_prompt & (text_N[begin_Q] == text_N[end_Q, None])
    same_run = run_N[begin_Q] == run_N[end_Q, None]
    whole = (after_prompt | same_run).tril(-1)  # all of the one sees all of the other
    whole[n // BLOCK :] = False  # a block that the row does not fill
    listed = (*_listed(reached & ~whole), *_listed(whole))
    return BlockMask.from_kv_blocks(*listed, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(n, n))


def _listed(blocks_QK: Tensor) -> tuple[Tensor, Tensor]:
    """For each block of queries how many blocks of keys are marked, and their numbers before all others."""
    order_QK = blocks_QK.int().argsort(dim=1, descending=True, stable=True)
    return blocks_QK.sum(dim=1, dtype=torch.int32)[None, None], order_QK.int()[None, None]


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, blocks: Any, scale: float | None) -> Tensor:
    """FlexAttention, compiled on a GPU, for which that is what makes it fast.

    What would make the compiler treat the scale as a variable, which its kernels cannot take, is kept from it: it knows
    one scale only, 1/√width, and sizes become variables by themselves when they change.
    """
    if torch.is_autocast_enabled(query.device.type):  # which casts for the other attentions, but not for this one
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if scale is not None and not math.isclose(scale, query.shape[-1] ** -0.5):
        query = query * (scale * query.shape[-1] ** 0.5)
    run = _compiled() if query.is_cuda else flex_attention
    return run(query, key, value, block_mask=blocks, enable_gqa=query.shape[1] != key.shape[1])


@cache
def _compiled() -> Any:
    """A kernel for each number of heads, width and precision, with a gradient and without one.

    Past the compiler's usual limit of eight, attention would run as it is before compilation and make all scores.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(flex_attention)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


def pack(
    model: Model,
    longest: int,
    device: str = "cpu",
    precision: str = "32-true",
    agree: Callable[[str | None], str | None] = lambda reason: reason,
) -> bool:
    """Have `model` read packed rows, if it can; otherwise leave it as it is, and say so once.

    `agree` is told why this process cannot, None if it can, and tells why the processes that share its batches cannot.
    That a model reads packed rows stands in its config, for as long as it is in memory: it is not saved with it.
    """
    usual = model.backbone.config._attn_implementation
    reason = agree(_why_not(model, longest, device, precision))
    if reason is None:
        return True
    if model.backbone.config._attn_implementation != usual:
        model.backbone.set_attn_implementation(usual)
    _say(f"{reason}: every answer gets a row of its own")
    return False


def _why_not(model: Model, longest: int, device: str, precision: str) -> str | None:
    """Make `model` read packed rows, and say what speaks against it.

    Nothing does if packed and plain rows give it the same scores. A few tokens are enough to see what a transformer
    does with places (biases by distance or column, prefixes, states that run on), but not how far back it looks: a
    window shorter than the `longest` text is read from its config.

    Scores are compared in the precision of the weights: rounding to bfloat16 would hide what is looked for. That its
    kernels take packed rows in the `precision` of the run as well is tried too.
    """
    backbone, config = model.backbone, model.backbone.config.get_text_config()
    window = min(filter(None, (getattr(config, name, None) for name in WINDOWS)), default=longest)
    if window < longest and getattr(config, "use_sliding_window", True):
        return f"{config.model_type} looks back {window} tokens, and texts have up to {longest}"
    if not backbone._can_set_attn_implementation():
        return f"{config.model_type} has an attention of its own"
    plainly = _probe(model, plain, device)
    backbone.set_attn_implementation(NAME)
    try:
        difference = float((_probe(model, packed, device) - plainly).abs().max() / plainly.abs().max())
        if difference > TOLERANCE:
            return f"{config.model_type} scores packed rows otherwise, by {difference:.1g}"
        if precision == "bf16-mixed":
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                _probe(model, packed, device)
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError) as error:
        return f"{config.model_type} reads no packed rows ({str(error).splitlines()[0]})"
    return None


@torch.no_grad()
def _probe(model: Model, layout: Callable[[list[Text]], Tokens], device: str) -> Tensor:
    """What the model says of a few answers that lie in this layout."""
    random = np.random.default_rng(0)
    few = min(model.backbone.config.get_text_config().vocab_size, 1000)
    draw = [random.integers(0, few, size=n).astype(np.int32) for n in PROBE]
    copies = 1 if torch.device(device).type == "cpu" else 10  # a GPU has another kernel for less than one block
    tokens = layout([Text(draw[0], (draw[1], draw[2])), Text(draw[3], (draw[4], draw[5]))] * copies)
    was_training = model.training
    try:
        return model.eval().to(device)(tokens.to(device)).double()
    finally:
        model.train(was_training)


def _say(line: str) -> None:
    """Once, by the first process of a group."""
    if line not in _lines and not (dist.is_initialized() and dist.get_rank()):
        _lines.add(line)
        logging.getLogger(__name__).warning(line)
