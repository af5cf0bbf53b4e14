"""Packed rows on a GPU: the same attention within each text, by PyTorch's FlexAttention."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from w2sd.data.layout import Tokens

BLOCK = 128  # tokens: what FlexAttention skips or does as a whole


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
