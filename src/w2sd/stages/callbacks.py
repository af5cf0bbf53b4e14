"""What a Trainer does beside a stage's own steps: exact checkpoints, early stopping, progress, rates."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from w2sd.atomic import beside, write_json
from w2sd.data.batch import ItemRows, PairRows
from w2sd.data.loader import Batch, in_length_order
from w2sd.data.tally import Tally
from w2sd.logger import conclude
from w2sd.parts.stopping import CURVE, LABELS, NOTHING, Look, Stopping
from w2sd.pipeline.stage import Stretch, Task
from w2sd.signals import TERMINATED
from w2sd.students.learner import unwrapped
from w2sd.students.student import Student
from w2sd.supervision.base import hardened


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there completely or not at all, and hold nothing but tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with beside(Path(path)) as part:
            super().save_checkpoint(checkpoint, part, storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return super().load_checkpoint(path, map_location, weights_only=True)


class Checkpoints(Checkpoint):
    """Saves every so many seconds. (Lightning's own ModelCheckpoint has no clock under manual optimisation.)

    A process that trains `alone` saves once more where SIGTERM tells it to end, and ends then. One of a group cannot:
    the others would have to save with it, and SIGTERM may be about their death.
    """

    is_ending = False

    def __init__(self, path: Path, every_s: float, alone: bool) -> None:
        self.path, self.every_s, self.saved, self.alone = path, every_s, time.monotonic(), alone

    def on_train_start(self, *_: Any) -> None:
        if self.alone and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._end)  # Lightning, which exits with 0, puts back what was there before

    def _end(self, *_: Any) -> None:
        self.is_ending = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.is_last_batch:  # after a resume from there Lightning would miscount the epochs
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        is_due = self.is_ending or time.monotonic() - self.saved >= self.every_s
        if trainer.strategy.reduce_boolean_decision(is_due):
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
        if self.is_ending:
            sys.exit(TERMINATED)


class RandomState(pl.Callback):
    """Torch's random state as part of a checkpoint, so that dropout goes on as if nothing had happened.

    Every process of a group has its own. In a larger group than the one that saved, some begin with a new one.
    """

    restored: dict[str, Any] | None = None

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def state_dict(self) -> dict[str, Any]:
        states = [{"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}]
        if dist.is_initialized():
            own, states = states[0], states * dist.get_world_size()
            dist.all_gather_object(states, own)
        return {"ranks": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = dict(enumerate(state["ranks"])).get(self.rank)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.restored is not None:
            torch.set_rng_state(self.restored["cpu"].cpu())
            torch.cuda.set_rng_state_all([state.cpu() for state in self.restored["cuda"]])
            self.restored = None


class Mortal(pl.Callback):
    """Lets a worker end on SIGTERM. Lightning would have the group agree on it first, of which some may be dead."""

    def setup(self, *_: Any, **__: Any) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any, **__: Any) -> None:
        signal.signal(signal.SIGTERM, self.handler)

    on_test_start = on_predict_start = on_train_start


class Progress(pl.Callback):
    """Tells the table of stages how far the running one is."""

    def __init__(self, task: Task, n_steps: int) -> None:
        self.advance, self.n_steps = task.advance, n_steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.advance(trainer.global_step, self.n_steps)

    def on_test_batch_end(self, *at: Any, **_: Any) -> None:
        self.advance(at[4] + 1, self.n_steps)  # trainer, module, outputs, batch, batch_idx

    on_predict_batch_end = on_test_batch_end


class Throughput(pl.Callback):
    """Tells what a pass took when it has ended: the worker, and W&B where the stage has a run there.

    The clock is looked at after each batch and the device is not waited for. A training step waits for its loss and a
    scoring step for its scores, so that the last look is early by the same part of a step as the first.
    """

    def __init__(self, task: Task, is_packed: bool) -> None:
        self.task, self.is_packed = task, is_packed

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
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
        own = [cpu, *map(float, self.seen), *map(float, self.first or self.seen)]
        sums = torch.tensor(own, dtype=torch.float64, device=pl_module.device)
        cpu, *counted = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        seen, first = Tally(*counted[: len(self.seen)]), Tally(*counted[len(self.seen) :])
        stretch = Stretch(self.began[0], wall, cpu, seen, seen.minus(first), self.is_packed)
        conclude(trainer.loggers, self.task.measured(stretch))

    on_test_start = on_predict_start = on_train_start
    on_test_batch_end = on_predict_batch_end = on_train_batch_end
    on_test_end = on_predict_end = on_train_end


class Horizon(pl.Callback):
    """Ends the training after so many steps. (With Lightning's own `max_steps` a resumed run miscounts its epochs.)"""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.on_train_batch_end(trainer)  # it may go on from its end

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.n_steps:
            trainer.should_stop = True


class EarlyStopping(pl.Callback):
    """Looks at held-out rows before the first step, every so many steps, and after the last.

    The weights that a training begins with are looked at and never kept, however well a new head happens to do.
    Labels may be soft, and count as what they prefer: an undecided one is met half by either option of a pair, as
    wherever agreement is counted. Of equally good looks the first one counts. The truth is looked at in any case, and
    decides only where `stopping.by` names it.
    """

    def __init__(
        self,
        rows: PairRows | ItemRows,
        labels: np.ndarray,
        truth: np.ndarray,
        stopping: Stopping,
        every: int,
        n_steps: int,
    ) -> None:
        self.rows, self.stopping, self.every, self.n_steps = rows, stopping, every, n_steps
        self.labels, self.truth = torch.from_numpy(hardened(labels)), torch.from_numpy(truth)  # [n, K]
        self.curve: list[Look] = []
        self.kept: dict[str, torch.Tensor] = {}

    @property
    def best(self) -> Look:
        """The look that counts."""
        if self.stopping.by == NOTHING:
            return self.curve[-1]
        return max(self.curve[1:], key=lambda look: look.labels if self.stopping.by == LABELS else look.truth)

    def on_train_start(self, trainer: pl.Trainer, student: Any) -> None:
        if not self.curve:  # not in a training that goes on
            self._look(trainer, student)

    def on_train_batch_end(self, trainer: pl.Trainer, student: Any, *_: Any) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == self.n_steps:
            self._look(trainer, student)

    def on_train_end(self, trainer: pl.Trainer, student: Any) -> None:
        if self.stopping.by != NOTHING:
            with torch.no_grad():
                for name, weights in _trained(student):
                    weights.copy_(self.kept[name])

    @torch.no_grad()
    def _look(self, trainer: pl.Trainer, student: Student) -> None:
        sums = torch.zeros(2, dtype=torch.float64)
        student.eval()
        for batch in in_length_order(self.rows.lengths):
            for piece in student.transfer_batch_to_device(self.rows[batch], student.device, 0):
                index = piece.rows.cpu()
                with trainer.precision_plugin.forward_context():
                    scores = student(piece)
                preferred_BK = student.prefers(scores)
                sums += torch.stack([(preferred_BK * meant_NK[index]).sum() for meant_NK in (self.labels, self.truth)])
        student.train()
        self.curve.append(Look(trainer.global_step, *(sums / len(self.rows)).tolist()))
        if self.stopping.by != NOTHING and len(self.curve) > 1 and self.best is self.curve[-1]:
            self.kept = {name: weights.detach().cpu().clone() for name, weights in _trained(student)}

    def state_dict(self) -> dict[str, Any]:
        return {"curve": [list(look) for look in self.curve], "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.curve, self.kept = [Look(*look) for look in state["curve"]], state["kept"]

    def conclude(self, task: Task) -> dict[str, float]:
        """Write the curve, and say where the weights that were kept come from."""
        if task.rank == 0:
            write_json(task.out / CURVE, [look._asdict() for look in self.curve])
        return {f"stopping/{name}": value for name, value in self.best._asdict().items()}


def _trained(student: Student) -> list[tuple[str, torch.Tensor]]:
    return [(name, weights) for name, weights in student.model.named_parameters() if weights.requires_grad]
