"""The most memory that a stage had on the GPU, less what was tried out there in its midst.

CUDA counts one peak, which can only begin anew; what it was before that is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_before = 0  # bytes at the peak, up to where it last began anew within this stage


def forget_peak() -> None:
    """A stage begins."""
    global _before
    _before = 0
    torch.cuda.reset_peak_memory_stats()


def peak() -> int:
    """The most bytes at a time since the stage began."""
    return max(_before, torch.cuda.max_memory_allocated())


@contextmanager
def uncounted(device: torch.device) -> Iterator[None]:
    """What is allocated inside, and freed, is no part of the peak."""
    global _before
    if device.type != "cuda":
        yield
        return
    _before = max(_before, torch.cuda.max_memory_allocated(device))
    try:
        yield
    finally:
        torch.cuda.reset_peak_memory_stats(device)
