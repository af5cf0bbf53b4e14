"""What happens to the budget of a piece when the memory of the device is smaller."""

from __future__ import annotations

import gc
import logging

import torch
import torch.distributed as dist

from w2sd.data.loader import Batch
from w2sd.errors import StageFailed

KNOB = "trainer.micro_tokens"


def shrink(batch: Batch, place: int, example: str) -> None:
    """Halve the budget of these rows, from now on, until it cuts up the piece at `place`, which did not fit.

    A generous budget thus finds its own size. Not in a group of processes: the others would wait for a step that this
    one repeats.
    """
    rows, before = batch.rows, batch.rows.micro_tokens
    piece = rows.pieces(batch.indices)[place]
    if len(piece) == 1:
        alone = f"a single {example}, {rows.lengths[piece[0]]} tokens with its padding, does not fit the memory"
        raise StageFailed(f"{alone}; lower data.max_tokens or, to train, set trainer.checkpointing=true")
    if dist.is_initialized():
        raise StageFailed(f"{len(piece)} {example}s at a time do not fit the memory; lower {KNOB} ({before})")
    while piece in rows.pieces(batch.indices):
        rows.micro_tokens //= 2
    gc.collect()  # a failed step may have left cycles behind
    torch.cuda.empty_cache()
    logging.getLogger(__name__).warning("%s: %d → %d; more did not fit the memory", KNOB, before, rows.micro_tokens)
