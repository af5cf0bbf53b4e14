"""Lightning's share: one Trainer per stage, checkpoints that resume exactly, progress."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import transformers
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from w2sd.config import describe
from w2sd.data.batch import Loader
from w2sd.ending import ENDED
from w2sd.errors import StageFailed
from w2sd.fit import Fit
from w2sd.kinds import KINDS
from w2sd.logger import Csv, RunName
from w2sd.stages import processor
from w2sd.stages.strategies import strategy_of
from w2sd.stages.throughput import Throughput
from w2sd.students.learner import Learner, Reader
from w2sd.task import Task

# What Lightning has to say about things that are meant: small loaders in this process, no validation, one device.
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
transformers.utils.logging.disable_progress_bar()  # one bar is enough, and it is the table's
QUIET = (
    "does not have many workers",
    "Trainer was configured",
    "GPU available but not used",
    "Checkpoint directory",
    "isinstance.treespec",
    "predict returned None",
    "Experiment logs directory",  # of a stage that was interrupted
    "`srun` command is available",  # on a cluster; what is started through it is up to us
    "returned a view tensor",  # which nobody changes in place
)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there completely or not at all, and hold nothing but tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        part = Path(f"{path}.{uuid4().hex}.part")  # where locks fail, another machine may be at the same stage
        try:
            super().save_checkpoint(checkpoint, part, storage_options)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

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
            sys.exit(ENDED)


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

    def on_train_start(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self.handler)

    def on_test_start(self, *_: Any) -> None:
        self.on_train_start()

    def on_predict_start(self, *_: Any) -> None:
        self.on_train_start()


class Progress(pl.Callback):
    """Tells the table of stages how far the running one is."""

    def __init__(self, task: Task, n_steps: int) -> None:
        self.advance, self.n_steps = task.advance, n_steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.advance(trainer.global_step, self.n_steps)

    def on_test_batch_end(self, *at: Any) -> None:
        self.advance(at[4] + 1, self.n_steps)  # trainer, module, outputs, batch, batch_idx

    def on_predict_batch_end(self, *at: Any) -> None:
        self.on_test_batch_end(*at)


class Horizon(pl.Callback):
    """Ends the training after so many steps. (With Lightning's own `max_steps` a resumed run miscounts its epochs.)"""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.on_train_batch_end(trainer)  # it may go on from its end

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.n_steps:
            trainer.should_stop = True


def train(
    task: Task,
    learner: Learner,
    loader: Loader,
    fit: Fit,
    seed: int,
    n_steps: int | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Fit `learner` for all its epochs, or for `n_steps` if that is less.

    An interrupted stage goes on from its last checkpoint, with the same result to the bit.
    """
    last = task.work / "last.ckpt"
    if task.rank == 0:
        for part in task.work.glob(f"{last.name}.*.part"):  # of a process that was killed while it saved
            part.unlink(missing_ok=True)
    steps = fit.epochs * len(loader) if n_steps is None else n_steps
    checkpoints = Checkpoints(last, task.trainer.save_every_s, not task.trainer.is_shared)
    own = [checkpoints, RandomState(task.rank), Horizon(steps)]
    torch.manual_seed(seed + (task.rank << 32))  # no two processes drop the same units out
    with _trainer(task, fit, loader, [*callbacks, *own], fit.epochs, steps) as trainer:
        trainer.fit(learner, loader, ckpt_path=_readable(last))
    if checkpoints.is_ending:  # told so after the last step, when there was nothing left to save
        sys.exit(ENDED)
    learner.gather(keep=task.rank == 0)
    if not all(weights.isfinite().all() for weights in learner.whole.parameters()):
        raise StageFailed(
            f"{task.kind}: the last step ({learner.global_step}) left weights without value; lower {learner.knob}.lr"
        )


def _readable(checkpoint: Path) -> str | None:
    """The checkpoint to go on from. A damaged one (a full disk, lost power) is worth as much as none."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        logging.getLogger(__name__).warning("%s cannot be read; the stage begins again (%s)", checkpoint, reason)
        return None
    return str(checkpoint)


def test(task: Task, learner: Learner, loader: Loader, fit: Fit) -> dict[str, float]:
    """Score `learner` and return what its metrics logged."""
    with _trainer(task, fit, loader, []) as trainer:
        trainer.test(learner, loader, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


def predict(task: Task, reader: Reader, loader: Loader, fit: Fit) -> None:
    """Have it read where nothing is to be measured."""
    with _trainer(task, fit, loader, []) as trainer:
        trainer.predict(reader, loader, return_predictions=False)


@contextmanager
def _trainer(
    task: Task, fit: Fit, loader: Loader, callbacks: list[Any], epochs: int = 1, n_steps: int | None = None
) -> Iterator[pl.Trainer]:
    processor.settle(task.trainer, fit.precision)
    config = {"key": task.key, **{name: describe(value) for name, value in task.params.items()}}
    name = RunName(task.name, task.kind, task.key, task.logs, config)
    loader.rank, loader.world = task.rank, task.trainer.world
    if task.trainer.is_shared:
        callbacks = [*callbacks, Mortal()]
    # Left to itself, Lightning takes this process for one of the tasks of the SLURM job that it finds itself in.
    group = TorchElasticEnvironment() if task.trainer.is_shared else LightningEnvironment()
    rank_zero_only.rank = task.rank  # type: ignore[attr-defined]
    # W&B has runs of what is trained, and of whole jobs; Lightning's own loggers know which process may write
    logger = task.logger if KINDS[task.kind].trains and task.rank == 0 else Csv()
    with warnings.catch_warnings(), _no_denormals(), logger.loggers(name) as loggers:
        for message in QUIET:
            warnings.filterwarnings("ignore", f".*{message}.*")
        yield pl.Trainer(
            accelerator=task.trainer.accelerator,
            devices=task.trainer.devices,
            num_nodes=task.trainer.nodes,
            strategy=strategy_of(task.trainer),
            precision=fit.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            logger=loggers,
            callbacks=[Throughput(task, loader.rows.is_packed), *callbacks, Progress(task, n_steps or len(loader))],
            plugins=[AtomicCheckpoints(), group],
            log_every_n_steps=1,  # the learner decides
            enable_checkpointing=n_steps is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=task.trainer.strategy != "fsdp2",  # its gathered weights outlive a forward pass
        )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """A saturated loss full of denormals runs at half the speed; what comes after may want them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
