"""What a result must not depend on: devices, threads, memory. Nothing here is part of a key."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from w2sd.errors import choose, require

AUTO = "auto"
STRATEGIES = (AUTO, "ddp", "fsdp2")
MICRO_TOKENS = {"cpu": 4096, "gpu": 32768}


@dataclass(frozen=True)
class Trainer:
    """Where and how stages run, as it is asked for: some of it may be left to the machine."""

    accelerator: str = "cpu"  # auto: a GPU if there is one, else the CPU | cpu | gpu
    devices: int = 1  # processes that share every batch; each reads its own part of it
    nodes: int = 1  # machines with so many devices each, within a job of SLURM that has them
    strategy: str = "auto"  # auto: one process | ddp: whole weights on each | fsdp2: each has a shard
    threads: int | str = 1  # of torch; auto: on a CPU all its cores for pretrained models, and one for all else
    micro_tokens: int | str = 4096  # tokens in memory at once, padding too; never changes a batch; auto: 32768 on a GPU
    packed: bool | str = True  # no padding, each prompt once, for models that can, same scores; auto: true on a CPU
    checkpointing: bool = False  # compute layers again on the way back: a third more work, much less memory
    compile: bool = False  # torch.compile for layers that are trained: slow at first, perhaps faster then
    save_every_s: float = 120.0  # seconds between the checkpoints from which an interrupted stage resumes
    log_every: int = 10  # steps between two points of a learning curve

    def __post_init__(self) -> None:
        choose("accelerator", self.accelerator, (AUTO, "cpu", "gpu"))
        choose("strategy", self.strategy, STRATEGIES)
        for knob in ("devices", "nodes", "log_every"):
            require(getattr(self, knob) >= 1, knob, getattr(self, knob), "an integer of 1 or more")
        for knob in ("threads", "micro_tokens"):
            value = getattr(self, knob)
            is_number = not isinstance(value, str) and value >= 1
            require(is_number or value == AUTO, knob, value, "an integer of 1 or more, or auto")
        require(self.packed in (True, False, AUTO), "packed", self.packed, "true, false or auto")
        require(0 < self.save_every_s < float("inf"), "save_every_s", self.save_every_s, "a number above 0")
        alone = "1, or a strategy that shares a batch: trainer=ddp or trainer=fsdp2"
        for knob in ("devices", "nodes"):
            require(getattr(self, knob) == 1 or self.is_shared, knob, getattr(self, knob), alone)
        whole = "false with trainer.checkpointing or strategy fsdp2, which take layers apart"
        require(not (self.compile and (self.checkpointing or self.strategy == "fsdp2")), "compile", True, whole)

    @property
    def world(self) -> int:
        """How many processes a group has, on all its machines."""
        return self.nodes * self.devices

    @property
    def is_shared(self) -> bool:
        """Whether stages run in a group of processes, if only of one."""
        return self.strategy != "auto"

    def resolve(self, has_gpu: bool, is_pretrained: bool = False) -> Resolved:
        """The same with nothing left open, for a machine that has a GPU or none, and a model that is pretrained or not.

        Small models that are trained from scratch have steps too small for threads to share.
        """
        accelerator = ("gpu" if has_gpu else "cpu") if self.accelerator == AUTO else self.accelerator
        decided: dict[str, Any] = {
            "accelerator": accelerator,
            "threads": max(1, n_cores() // self.devices) if accelerator == "cpu" and is_pretrained else 1,
            "micro_tokens": MICRO_TOKENS[accelerator],
            "packed": accelerator == "cpu",
        }
        open_ones = {knob: value for knob, value in decided.items() if getattr(self, knob) == AUTO}
        return Resolved(**{**asdict(self), **open_ones})


@dataclass(frozen=True)
class Resolved(Trainer):
    """A trainer as a stage has it: nothing is left open."""

    threads: int = 1
    micro_tokens: int = 4096
    packed: bool = True


def has_gpu() -> bool:
    """Whether torch can compute on a GPU here: it knows best, since it is what would use it."""
    import torch

    return torch.cuda.is_available()


def n_cores() -> int:
    """How many cores this process may use: a limit of the machine or of the job, whatever else is running there.

    So the same machine computes the same numbers, and a job that is confined to some cores does not crowd them.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
