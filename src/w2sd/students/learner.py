"""What reads batches or is trained: one step per global batch, however memory cuts it up."""

from __future__ import annotations

import gc
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from w2sd.data.loader import Batch, Filler
from w2sd.errors import StageFailed
from w2sd.models.prepare import gather, shard
from w2sd.parts.fit import Fit

KNOB = "trainer.micro_tokens"


def halve_micro_tokens(batch: Batch, place: int, example: str) -> None:
    """Halve the budget of these rows, from now on, until it cuts up the piece at `place`, which did not fit.

    A generous budget thus finds its own size. Not in a group of processes: the others would wait for a step that this
    one repeats.
    """
    rows, before = batch.rows, batch.rows.micro_tokens
    piece = rows.pieces(batch.indices)[place]
    if len(piece) == 1:
        alone = f"a single {example}, {rows.lengths[piece[0]]} tokens with its padding, does not fit the memory"
        raise StageFailed(f"{alone}; lower data.max_tokens or, to train, set trainer.checkpointing=true")
    if dist.is_initialized():
        raise StageFailed(f"{len(piece)} {example}s at a time do not fit the memory; lower {KNOB} ({before})")
    while piece in rows.pieces(batch.indices):
        rows.micro_tokens //= 2
    gc.collect()  # a failed step may have left cycles behind
    torch.cuda.empty_cache()
    logging.getLogger(__name__).warning("%s: %d → %d; more did not fit the memory", KNOB, before, rows.micro_tokens)


class Reader(pl.LightningModule):
    """A LightningModule whose batches are in pieces, the micro-batches."""

    example = "pair"  # what a batch is made of

    def __init__(self, model: Any, fit: Fit) -> None:
        super().__init__()
        self.model: Any = model
        self.fit = fit

    def configure_model(self) -> None:
        """Called by Lightning before anything is trained or scored."""
        self._given = [self.model]  # in a list, or it would be a part of this module
        if self.device_mesh is not None:
            self.model = shard(self.model, self.device_mesh["data_parallel"])

    @property
    def whole(self) -> nn.Module:
        """The model as it was handed over."""
        return self._given[0]

    def gather(self, keep: bool) -> None:
        """Bring what was trained back to the model that was handed over, in the processes that `keep` it."""
        if self.model is not self.whole:
            gather(self.model, self.whole, keep)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The pieces alone: to look at each index of a batch, as Lightning would, takes as long as a small step."""
        if not isinstance(batch, Batch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch._replace(pieces=super().transfer_batch_to_device(batch.pieces, device, dataloader_idx))

    def _each(self, batch: Batch, do: Callable[[Any, bool], Any], begin: Callable[[], Any] = lambda: None) -> list[Any]:
        """What `do` makes of each piece of a batch, told which is the last.

        If the memory does not suffice, all begins again, with `begin`, in smaller pieces, which the batch then keeps.
        """
        pieces = batch.pieces
        while True:
            done: list[Any] = []
            begin()
            try:
                for n, piece in enumerate(pieces, start=1):
                    done.append(do(piece, n == len(pieces)))
                return done
            except torch.OutOfMemoryError:
                pass  # until here its traceback holds all that was made
            halve_micro_tokens(batch, len(done), self.example)
            pieces[:] = self.transfer_batch_to_device(batch.rows[batch.indices], self.device, 0)


class Learner(Reader, ABC):
    """A reader that is trained.

    Subclasses say what the summed loss of a micro-batch is (`losses`) and what the whole batch's is divided by
    (`mass`), so that the gradient is that of one mean over the global batch, on however many processes.
    """

    automatic_optimization = False
    knob = "fit"  # where the optimisation is set

    def __init__(self, model: nn.Module, fit: Fit, n_steps: int, log_every: int) -> None:
        super().__init__(model, fit)
        self.n_steps, self.log_every = n_steps, log_every
        self.logged: list[tuple[int, dict[str, float]]] = []  # steps with their figures; part of every checkpoint
        self.pulled: float | None = None  # the sum of what steps noted, as shares of their mass; in checkpoints too

    @abstractmethod
    def losses(self, micro: Any) -> Tensor:
        """The sum of the losses of a micro-batch."""

    @abstractmethod
    def mass(self, micro: Any) -> Tensor:
        """What a micro-batch adds to the divisor of the mean."""

    def survey(self, batch: Batch) -> None:
        """Look at a whole batch, before its pieces are descended one by one."""

    def note(self) -> Tensor | None:
        """How much of the piece that was just read is to be counted, in units of `mass`; None where nothing is."""
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimiser: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        pieces = [unwrapped(piece) for piece in batch.pieces]
        mass = self._sum(torch.stack([self.mass(micro) * counts for micro, counts in pieces]).sum())

        def descend(piece: Any, is_last: bool) -> tuple[Tensor, Tensor | None]:
            micro, counts = unwrapped(piece)
            loss = self.losses(micro) * counts / mass
            # DDP adds gradients up at the last piece. FSDP2 does at each: it has no room for whole gradients.
            with nullcontext() if is_last else getattr(self.trainer.strategy, "block_backward_sync", nullcontext)():
                self.manual_backward(loss * self.trainer.world_size)  # of which strategies take the mean
            note = self.note()
            return loss.detach(), None if note is None else note * counts

        def begin() -> None:
            optimiser.zero_grad()
            self.survey(batch)

        parts = self._each(batch, descend, begin)
        loss = self._sum(sum((loss for loss, _ in parts), torch.zeros((), device=self.device))).item()
        if notes := [note for _, note in parts if note is not None]:
            self.pulled = (self.pulled or 0.0) + (self._sum(torch.stack(notes).sum()) / mass).item()
        lr = float(schedule.get_last_lr()[0])
        self._refuse_divergence(loss, lr)
        if self.fit.clip:
            # by hand, because Lightning refuses to clip for a fused AdamW under mixed precision
            torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], self.fit.clip)
        optimiser.step()
        schedule.step()
        self._log({"train/loss": loss, "train/lr": lr})

    def _log(self, figures: dict[str, float]) -> None:
        """Log the figures of this step if it is the first, the last or a multiple of `log_every`.

        The loss is that of the one step, so that a training that was interrupted logs from there on what a whole one
        logs. Loggers are called directly: Lightning's `self.log` would repeat these values at every step until the
        next ones.
        """
        done = self.global_step
        if done in (1, self.n_steps) or done % self.log_every == 0:
            self.logged.append((done - 1, {"epoch": self.current_epoch, **figures}))
            self._tell(*self.logged[-1])

    def _tell(self, step: int, figures: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, step=step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["logged"], checkpoint["pulled"] = self.logged, self.pulled

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint.get("logged", [])  # older checkpoints have none
        self.logged, self.pulled = [(step, dict(figures)) for step, figures in kept], checkpoint["pulled"]

    def on_train_start(self) -> None:
        """Tell a training that goes on what was logged before: its loggers have begun anew."""
        for step, figures in self.logged:
            self._tell(step, figures)

    def _sum(self, part: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.trainer.strategy.reduce(part, reduce_op="sum")

    def configure_optimizers(self) -> Any:
        trained = [weights for weights in self.parameters() if weights.requires_grad]
        beta1, beta2 = self.fit.betas
        optimiser = torch.optim.AdamW(
            trained, self.fit.lr, betas=(beta1, beta2), weight_decay=self.fit.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.fit.factor(step, self.n_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _refuse_divergence(self, loss: float, lr: float) -> None:
        if not math.isfinite(loss):
            rate = f"with the learning rate at {lr:.3g} ({self.knob}.lr is {self.fit.lr:.3g})"
            raise StageFailed(f"the loss is {loss} at step {self.global_step} {rate}; lower {self.knob}.lr")


def unwrapped(piece: Any) -> tuple[Any, float]:
    """A piece of a batch and how much its losses count: not at all where it is there to keep step with others."""
    return (piece.piece, 0.0) if isinstance(piece, Filler) else (piece, 1.0)
