"""The most memory that a stage had; on the GPU, less what was tried out there in its midst.

CUDA counts one peak, which can only begin anew; what it was before that is kept here. A stage that needed no torch has
nothing on a GPU, and does not get torch here.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from w2sd.trainer import Trainer

if TYPE_CHECKING:
    import torch

_before = 0  # bytes at the peak, up to where it last began anew within this stage


def forget_peak() -> None:
    """A stage begins; what an earlier one of this process had on the GPU is not this one's."""
    global _before
    _before = 0
    if _is_in_use():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def memory(trainer: Trainer) -> dict[str, int | None]:
    """The most memory that this process ever had, and the most that this stage had on the GPU."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return {
        "memory/peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "memory/peak_gpu_mb": peak() // 1024**2 if trainer.accelerator == "gpu" and _is_in_use() else None,
    }


def peak() -> int:
    """The most bytes at a time since the stage began."""
    import torch

    return max(_before, torch.cuda.max_memory_allocated())


def _is_in_use() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


@contextmanager
def uncounted(device: torch.device) -> Iterator[None]:
    """What is allocated inside, and freed, is no part of the peak."""
    global _before
    if device.type != "cuda":
        yield
        return
    import torch

    _before = max(_before, torch.cuda.max_memory_allocated(device))
    try:
        yield
    finally:
        torch.cuda.reset_peak_memory_stats(device)
