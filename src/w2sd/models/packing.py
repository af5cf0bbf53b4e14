"""Packed rows: attention between the tokens of one text, among the many that lie in one row without padding.

Everything else in a transformer (embeddings, linear layers, norms) works on each token by itself and needs to know
nothing. The attention is put in through transformers' own registry, so that it is the same for every architecture that
takes its attention from there; whether one does, and whether it gives the same scores, is tried (`packs`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from w2sd.data.layout import Text, Tokens, packed, plain

if TYPE_CHECKING:
    from w2sd.models.score import PolicyModel, RewardModel

NAME = "w2sd_packed"
PROBE = (3, 4, 2, 2, 1, 5)  # tokens of prompts and answers that a model is tried with
BLOCK = 128  # tokens: what FlexAttention skips or does as a whole
TOLERANCE = 1e-4  # of the largest score: far above rounding, far below what a wrong neighbour does
_said: set[str] = set()


class Packing(NamedTuple):
    """What the attention has to know of a row; made once and used in every layer."""

    sizes: tuple[tuple[int, ...], ...]
    masks: tuple[Tensor | None, ...]  # added to the scores between a second answer and (its prompt, itself)
    blocks: Any = None  # the same for FlexAttention, on a GPU


def packing(tokens: Tokens) -> Packing:
    """For the texts in a row: on the CPU their second answers' masks, on a GPU a block mask."""
    device = tokens.ids.device
    if device.type == "cuda":
        return Packing(tokens.sizes, (), blocks(tokens))
    return Packing(tokens.sizes, tuple(_mask(size, device) for size in tokens.sizes))


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
    peculiar = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if packing is None or dropout or peculiar:
        raise NotImplementedError(f"packed rows with {peculiar or dropout or 'no packing'}")
    if packing.blocks is not None:
        return _flex(query, key, value, packing.blocks, scaling).transpose(1, 2), None
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return torch.cat(list(_by_text(query, key, value, packing, scaling)), dim=2).transpose(1, 2), None


def _by_text(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float | None) -> Iterator[Tensor]:
    """The prompt with its first answer is an ordinary text; the second answer goes on from the prompt alone.

    Cut by `split`, whose gradient is one concatenation; slices would each bring a gradient as large as the row.
    """
    cuts = [n for prompt, first, *second in packing.sizes for n in (prompt + first, *second)]
    parts = iter(zip(*(side.split(cuts, dim=2) for side in (query, key, value)), strict=True))
    for (prompt, *_), mask in zip(packing.sizes, packing.masks, strict=True):
        q, k, v = next(parts)
        yield scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        if mask is not None:
            q, own_k, own_v = next(parts)
            keys, values = (torch.cat([all[:, :, :prompt], own], dim=2) for all, own in ((k, own_k), (v, own_v)))
            yield scaled_dot_product_attention(q, keys, values, attn_mask=mask.to(q.dtype), scale=scale)


def _mask(size: tuple[int, ...], device: torch.device) -> Tensor | None:
    """For a second answer of n tokens: 0 over the prompt, and over its own tokens −∞ after the diagonal."""
    if len(size) < 3:
        return None
    prompt, _, n = size
    return torch.full((n, prompt + n), -torch.inf, device=device).triu_(prompt + 1)


def blocks(tokens: Tokens) -> Any:
    """The block mask of FlexAttention: within a text, and of its answers each only itself and the prompt.

    Which blocks hold anything is known from where texts begin and end. `create_block_mask` would look at every pair of
    tokens to find it out: several GB for a row of 32,768, for every micro-batch.
    """
    device, n = tokens.ids.device, tokens.ids.shape[1]
    counts = [count for size in tokens.sizes for count in size]
    texts = [text for text, size in enumerate(tokens.sizes) for _ in size]
    parts = [part for size in tokens.sizes for part in range(len(size))]  # 0: the prompt, 1 and 2: answers
    run_N = torch.repeat_interleave(torch.tensor(counts)).to(device)  # which prompt or answer a token is of
    text_N, part_N = torch.tensor(texts, device=device)[run_N], torch.tensor(parts, device=device)[run_N]

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


def _flex(query: Tensor, key: Tensor, value: Tensor, blocks: Any, scale: float | None) -> Tensor:
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


def pack(model: RewardModel | PolicyModel, longest: int, device: str = "cpu") -> bool:
    """Have `model` read packed rows, if it can; otherwise leave it as it is, and say so once.

    It can if packed and plain rows give it the same scores. A few tokens are enough to see what a transformer does with
    places (biases by distance or column, prefixes, states that run on), but not how far back it looks: a window shorter
    than the `longest` text is read from its config.
    """
    backbone, config = model.backbone, model.backbone.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and window < longest:
        return _refuse(f"{config.model_type} looks back {window} tokens, and texts have up to {longest}")
    if not backbone._can_set_attn_implementation():
        return _refuse(f"{config.model_type} has an attention of its own")
    usual = config._attn_implementation
    try:
        plainly = _probe(model, plain, device)
        backbone.set_attn_implementation(NAME)
        difference = float((_probe(model, packed, device) - plainly).abs().max() / plainly.abs().max())
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError) as error:
        backbone.set_attn_implementation(usual)
        return _refuse(f"{config.model_type} reads no packed rows ({str(error).splitlines()[0]})")
    if difference <= TOLERANCE:
        return True
    backbone.set_attn_implementation(usual)
    return _refuse(f"{config.model_type} scores packed rows otherwise, by {difference:.1g}")


@torch.no_grad()
def _probe(model: RewardModel | PolicyModel, layout: Callable[[list[Text]], Tokens], device: str) -> Tensor:
    """What the model says of a few answers that lie in this layout."""
    random = np.random.default_rng(0)
    few = min(model.backbone.config.vocab_size, 1000)
    draw = [random.integers(0, few, size=n).astype(np.int32) for n in PROBE]
    copies = 1 if torch.device(device).type == "cpu" else 10  # a GPU has another kernel for less than one block
    tokens = layout([Text(draw[0], (draw[1], draw[2])), Text(draw[3], (draw[4], draw[5]))] * copies)
    was_training = model.training
    try:
        return model.eval().to(device)(tokens.to(device)).double()
    finally:
        model.train(was_training)


def _refuse(reason: str) -> bool:
    if reason not in _said:
        _said.add(reason)
        logging.getLogger(__name__).warning("%s: every answer gets a row of its own", reason)
    return False
