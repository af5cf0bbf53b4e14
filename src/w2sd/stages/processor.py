"""What makes a stage fast on a processor, and a word on what makes it slow."""

from __future__ import annotations

import ctypes
import logging
import platform
import sys
from functools import cache

import torch

from w2sd.trainer import Resolved

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle(trainer: Resolved, precision: str) -> None:
    """Make this process ready to compute."""
    torch.set_num_threads(trainer.threads)
    keep_freed_memory()
    if trainer.accelerator == "cpu" and precision == "bf16-mixed" and not has_bf16():
        tell_slow()


def has_gpu() -> bool:
    """Whether torch can compute on a GPU here: it knows best, since it is what would use it."""
    return torch.cuda.is_available()


@cache
def keep_freed_memory() -> None:
    """Let glibc give what is freed to the next tensor, as a GPU's allocator does; elsewhere nothing changes.

    By default it returns large tensors to the system and asks for them anew, page by page and zeroed, in every step.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # what older versions accept
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16; so it is taken to, where torch cannot tell."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@cache
def tell_slow() -> None:
    """Once in a process: precision is a matter of the result, and nobody's to change."""
    logging.getLogger(__name__).warning(
        "fit.precision: bf16-mixed is slower than 32-true here, because this processor has no bfloat16 units"
    )
