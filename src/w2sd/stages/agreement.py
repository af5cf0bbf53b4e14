"""What the processes of a group have to decide alike."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from w2sd.trainer import Trainer


def objection(trainer: Trainer, own: str | None) -> str | None:
    """What the first process that objects says; None where nobody does. Every process of the group has to ask."""
    if trainer.world == 1:
        return own
    is_on_gpu = trainer.accelerator == "gpu"
    if is_on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if is_on_gpu else "gloo")  # as Lightning would, which takes what it finds
    every: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return next((reason for reason in every if reason is not None), None)
