"""How much arithmetic a model needs, and how much a device could do: what model FLOPs utilisation (MFU) is made of."""

from __future__ import annotations

import time
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from w2sd.data.tally import Tally
from w2sd.models.peak_memory import uncounted

SIDES = (128, 256, 512, 1024, 2048, 4096)  # of the matrices that are multiplied
SHAPE = ("num_hidden_layers", "hidden_size")  # by these names every config of transformers knows them
LONG, ENOUGH = 1e-3, 1e-2  # seconds: a product that starting it does not hide; how long to look for the fastest


class Work(NamedTuple):
    """Floating-point operations that a model needs, an addition and a multiplication being two."""

    per_token: float
    per_prediction: float  # for a token whose probability is asked for
    per_square: float  # of a row's length

    def on(self, read: Tally) -> float:
        """What it needs for all of this."""
        of_tokens = self.per_token * read.tokens + self.per_prediction * read.predicted
        return float(of_tokens + self.per_square * read.squares)


def work_of(model: nn.Module, training: bool) -> Work | None:
    """What reading takes, and learning from it where it is a training; None of what is no transformer with a config.

    Per token 2 N forward, N being all weights but embeddings and output embedding; the H weights of the latter take 2 H
    where a token is predicted. Attention takes 4 · layers · width · Σ length² / 2: a causal model looks at half of each
    square. Learning takes as much again for gradients to pass through, from the first trained weight on, and as much
    again for those of trained weights: 6 N and thrice the attention where all are trained, some 4 N for low-rank
    additions, 2 N for a head alone. What padding takes, or computing a thing twice to save memory, is not counted.
    """
    transformer = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    layers, width = (getattr(getattr(transformer, "config", None), name, None) for name in SHAPE)
    if transformer is None or not layers or not width:
        return None
    head = transformer.get_output_embeddings()
    predicts = {id(weights) for weights in head.parameters()} if head is not None else set()
    embeds = {id(each) for part in model.modules() if isinstance(part, nn.Embedding) for each in part.parameters()}
    reached = head_learns = False
    body = passed = per_token = head_size = 0
    for weights in model.parameters():  # in the order in which they are met, more or less
        size, learns = weights.numel(), training and weights.requires_grad
        if id(weights) in predicts:
            head_size, head_learns = head_size + size, learns
            if id(weights) not in embeds:
                continue
        reached = reached or learns
        if id(weights) not in embeds:
            body, passed = body + size, passed + size * reached
            per_token += 2 * size * (1 + reached + learns)
    per_square = 2 * layers * width * (1 + 2 * passed / max(1, body))
    return Work(per_token, 2 * head_size * (1 + reached + head_learns), per_square)


@cache
def peak_flops(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """The FLOP/s of the fastest matrix product seen in some 10 ms, on that many threads where it is a processor."""
    with uncounted(device):  # a function of its own frees its matrices before the count goes on
        return _peak_flops(device, dtype)


def _peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    side, seconds = 0, 0.0
    generator = torch.Generator(device).manual_seed(0)  # of its own: a training's draws are part of its result
    for side in SIDES:
        factor = torch.rand(side, side, generator=generator, device=device, dtype=dtype)
        if (seconds := _seconds(factor)) >= LONG:
            break
    end = time.perf_counter() + ENOUGH
    while time.perf_counter() < end:
        seconds = min(seconds, _seconds(factor))
    return 2 * side**3 / seconds


def _seconds(factor: torch.Tensor) -> float:
    """How long it takes to multiply a matrix by itself."""
    _wait(factor.device)
    start = time.perf_counter()
    torch.mm(factor, factor)
    _wait(factor.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
