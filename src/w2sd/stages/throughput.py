"""How fast a stage reads: counted batch by batch, and timed from the end of the first batch to the end of the last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch

from w2sd.data.loader import Batch
from w2sd.data.tally import Tally
from w2sd.logger import conclude
from w2sd.models.flops import peak_flops, work_of
from w2sd.models.peak_memory import memory
from w2sd.students.learner import unwrapped
from w2sd.task import Task


class Stretch(NamedTuple):
    """What one pass over some batches took, in all processes together. The first batch warms up and is not timed."""

    began: float  # when the first batch was done, by the clock of `time.perf_counter`
    seconds: float  # 0 where there was no second one
    cpu_seconds: float
    seen: Tally  # in all batches
    timed: Tally  # in those after the first
    flops: float | None  # that the model needed for those; None where it is not known what it needs
    peak_flops: float  # FLOP/s of a matrix product
    is_packed: bool  # how its rows lay (data/layout.py)


def figures(stretches: Sequence[Stretch], started: float | None = None) -> dict[str, float | None]:
    """What `runtime.json` says of a stage that `started` then and had these stretches; null where undefined."""
    seen, timed = Tally(), Tally()
    for stretch in stretches:
        seen, timed = seen.plus(stretch.seen), timed.plus(stretch.timed)
    seconds, cpu_seconds = (sum(getattr(each, name) for each in stretches) for name in ("seconds", "cpu_seconds"))
    known = [each.flops for each in stretches if each.flops is not None]
    could = sum(each.seconds * each.peak_flops for each in stretches)
    found = {
        "pairs_per_s": _share(timed.examples, seconds),
        "pairs_per_cpu_s": _share(timed.examples, cpu_seconds),
        "tokens_per_s": _share(timed.tokens, seconds),
        "mfu": _share(sum(known), could) if len(known) == len(stretches) else None,
        "padding": _share(seen.places - seen.tokens, seen.places),
        "ceiling_gflops": max((each.peak_flops for each in stretches), default=0) / 1e9 or None,
        "seconds": seconds,
        "setup_seconds": None if started is None or not stretches else stretches[0].began - started,
    }
    [*layouts] = {each.is_packed for each in stretches}
    rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in found.items()}
    rounded["packed"] = (
        layouts[0] if len(layouts) == 1 else None
    )  # a later pass may read texts that are too long for it
    return {f"throughput/{name}": value for name, value in rounded.items()}


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if whole > 0 else None


class Throughput(pl.Callback):
    """Tells what a pass took when it has ended: the worker, and W&B where the stage has a run there.

    The clock is looked at after each batch and the device is not waited for. A training step waits for its loss and a
    scoring step for its scores, so that the last look is early by the same part of a step as the first.
    """

    def __init__(self, task: Task, is_packed: bool) -> None:
        self.task, self.is_packed = task, is_packed

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
        self.peak_flops = peak_flops(pl_module.device, dtype, torch.get_num_threads())
        self.work = work_of(pl_module.model, trainer.training)
        self.seen = Tally()
        self.first: Tally | None = None
        self.began = self.ended = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for piece, counts in map(unwrapped, batch.pieces):
            if counts:
                self.seen = self.seen.plus(piece.tally())
        self.ended = time.perf_counter(), time.process_time()
        if self.first is None:
            self.first, self.began = self.seen, self.ended

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        wall, cpu = (end - start for end, start in zip(self.ended, self.began, strict=True))
        own = [cpu, self.peak_flops, *map(float, self.seen), *map(float, self.first or self.seen)]
        told = torch.tensor(own, dtype=torch.float64, device=pl_module.device)
        cpu, limit, *counted = trainer.strategy.reduce(told, reduce_op="sum").tolist()
        seen, first = Tally(*counted[: len(self.seen)]), Tally(*counted[len(self.seen) :])
        timed = seen.minus(first)
        flops = self.work and self.work.on(timed)
        stretch = Stretch(self.began[0], wall, cpu, seen, timed, flops, limit, self.is_packed)
        self.task.measured(stretch)
        conclude(trainer.loggers, {**figures([stretch]), **memory(self.task.trainer)})

    on_test_start = on_predict_start = on_train_start
    on_test_batch_end = on_predict_batch_end = on_train_batch_end
    on_test_end = on_predict_end = on_train_end
