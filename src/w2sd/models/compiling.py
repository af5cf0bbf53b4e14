"""Layers through torch.compile: seconds to begin with, for a gain at every step."""

from __future__ import annotations

import torch
from torch import nn

from w2sd.models.sharding import blocks


def compile_layers(model: nn.Module) -> None:
    """Have the blocks of a transformer compiled when they are first used.

    Block by block: they share one program, where the whole model would be as many times as long. In place: weights keep
    their names, and what is saved is what is saved of any model. Lengths are variables, because no two rows have the
    same.
    """
    # each shape of weights and each length of one is a program, and past the limit blocks would run as they are
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in blocks(model):
        block.compile(dynamic=True)
