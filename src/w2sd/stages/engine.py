"""Lightning's share: one Trainer per stage, with which a stage trains, tests or predicts."""

from __future__ import annotations

import ctypes
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.optim import Optimizer

from w2sd.config import describe
from w2sd.data.loader import Loader
from w2sd.errors import StageFailed
from w2sd.logger import Csv, RunName
from w2sd.models.prepare import part, whole
from w2sd.parts.trainer import Resolved
from w2sd.pipeline.stage import Task
from w2sd.signals import TERMINATED
from w2sd.stages.callbacks import AtomicCheckpoints, Checkpoints, Horizon, Mortal, Progress, RandomState, Throughput
from w2sd.students.learner import Learner, Reader


class Sharded(ModelParallelStrategy):
    """FSDP2 that saves and loads what one process would: one file, whole tensors, under the same names and numbers."""

    lightning_restore_optimizer = True

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole(dict(self.lightning_module.state_dict()), self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return whole(optimizer.state_dict(), self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        here = self.lightning_module.state_dict()
        saved = {name: part(value, here[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(saved, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            trained = [weights for group in optimizer.param_groups for weights in group["params"]]
            state = {
                n: {name: part(value, trained[n]) for name, value in kept.items()} for n, kept in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle(trainer: Resolved, precision: str) -> None:
    """Make this process ready to compute."""
    torch.set_num_threads(trainer.threads)
    keep_freed_memory()
    if trainer.accelerator == "cpu" and precision == "bf16-mixed" and not has_bf16():
        tell_slow()


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


def train(task: Task, learner: Learner, loader: Loader, callbacks: Sequence[pl.Callback] = ()) -> None:
    """Fit `learner` for its steps, or for all its epochs if that is less.

    An interrupted stage goes on from its last checkpoint, with the same result to the bit.
    """
    last = task.work / "last.ckpt"
    if task.rank == 0:
        for rest in task.work.glob(f"{last.name}.*.part"):  # of a process that was killed while it saved
            rest.unlink(missing_ok=True)
    checkpoints = Checkpoints(last, task.trainer.save_every_s, not task.trainer.is_shared)
    own = [checkpoints, RandomState(task.rank), Horizon(learner.n_steps)]
    torch.manual_seed(task.stream + (task.rank << 32))  # no two processes drop the same units out
    with _trainer(task, learner, loader, [*callbacks, *own], learner.n_steps) as trainer:
        trainer.fit(learner, loader, ckpt_path=_readable(last))
    if checkpoints.is_ending:  # told so after the last step, when there was nothing left to save
        sys.exit(TERMINATED)
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
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if missing := {"state_dict", "loops", "optimizer_states", "global_step", "pulled"} - set(found):
            raise ValueError(f"it lacks {min(missing)}")
    except Exception as error:
        reason = str(error).partition("\n")[0]
        logging.getLogger(__name__).warning("%s cannot be read; the stage begins again (%s)", checkpoint, reason)
        return None
    return str(checkpoint)


def test(task: Task, reader: Reader, loader: Loader) -> dict[str, float]:
    """Score `reader` and return what its metrics logged."""
    with _trainer(task, reader, loader) as trainer:
        trainer.test(reader, loader, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


def predict(task: Task, reader: Reader, loader: Loader) -> None:
    """Have it read where nothing is to be measured."""
    with _trainer(task, reader, loader) as trainer:
        trainer.predict(reader, loader, return_predictions=False)


@contextmanager
def _trainer(
    task: Task, reader: Reader, loader: Loader, callbacks: Sequence[Any] = (), n_steps: int | None = None
) -> Iterator[pl.Trainer]:
    settle(task.trainer, reader.fit.precision)
    config = {"key": task.key, **{name: describe(value) for name, value in task.params.items()}}
    name = RunName(task.name, task.kind, task.key, task.logs, config)
    loader.rank, loader.world = task.rank, task.trainer.world
    if task.trainer.is_shared:
        callbacks = [*callbacks, Mortal()]
    # Left to itself, Lightning takes this process for one of the tasks of the SLURM job that it finds itself in.
    group = TorchElasticEnvironment() if task.trainer.is_shared else LightningEnvironment()
    rank_zero_only.rank = task.rank  # type: ignore[attr-defined]
    # W&B has runs of what is trained, and of whole jobs; Lightning's own loggers know which process may write
    logger = task.logger if task.trains and task.rank == 0 else Csv()
    with warnings.catch_warnings(), _no_denormals(), logger.loggers(name) as loggers:
        for message in QUIET:
            warnings.filterwarnings("ignore", f".*{message}.*")
        yield pl.Trainer(
            accelerator=task.trainer.accelerator,
            devices=task.trainer.devices,
            num_nodes=task.trainer.nodes,
            strategy=Sharded(task.trainer.world) if task.trainer.strategy == "fsdp2" else task.trainer.strategy,
            precision=reader.fit.precision,  # type: ignore[arg-type]
            max_epochs=1 if n_steps is None else reader.fit.epochs,
            logger=loggers,
            callbacks=[Throughput(task, loader.rows.is_packed), *callbacks, Progress(task, n_steps or len(loader))],
            plugins=[AtomicCheckpoints(), group],
            log_every_n_steps=1,  # the learner logs by itself; a larger number makes Lightning warn of short epochs
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
