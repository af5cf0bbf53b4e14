"""What a result must not depend on: devices, threads, memory. Nothing here is part of a key."""

from __future__ import annotations

from dataclasses import dataclass

from w2sd.errors import choose, require

STRATEGIES = ("auto", "ddp", "fsdp2")


@dataclass(frozen=True)
class Trainer:
    """Where and how a stage runs."""

    accelerator: str = "cpu"  # cpu | gpu
    devices: int = 1  # processes that share every batch; each reads its own part of it
    nodes: int = 1  # machines with so many devices each, within a job of SLURM that has them
    strategy: str = "auto"  # auto: one process | ddp: whole weights on each | fsdp2: each has a shard
    threads: int = 1  # of torch on the CPU; two that spin on a busy machine are slower than one
    micro_tokens: int = 4096  # tokens in memory at once, padding too: cuts a batch up, never changes it
    packed: bool = True  # rows without padding, each prompt once, for models that can; their scores stay the same
    checkpointing: bool = False  # compute layers again on the way back: a third more work, much less memory
    compile: bool = False  # torch.compile for layers that are trained: slow at first, perhaps faster then
    save_every_s: float = 120.0  # seconds between the checkpoints from which an interrupted stage resumes
    log_every: int = 10  # steps between two points of a learning curve

    def __post_init__(self) -> None:
        choose("accelerator", self.accelerator, ("cpu", "gpu"))
        choose("strategy", self.strategy, STRATEGIES)
        for knob in ("devices", "nodes", "threads", "micro_tokens", "log_every"):
            require(getattr(self, knob) >= 1, knob, getattr(self, knob), "an integer of 1 or more")
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
