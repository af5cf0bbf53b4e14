"""What everything that is trained here shares: one optimiser step per global batch, however memory cuts it up."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from w2sd.errors import StageFailed
from w2sd.fit import Fit


class Learner(pl.LightningModule, ABC):
    """A LightningModule whose batches are lists of micro-batches.

    Subclasses say what the summed loss of a micro-batch is (`losses`) and what the whole batch's is divided by
    (`mass`), so that the gradient is that of one mean over the global batch.
    """

    automatic_optimization = False
    knob = "fit"  # where the optimisation is set

    def __init__(self, fit: Fit, n_steps: int, log_every: int) -> None:
        super().__init__()
        self.fit, self.n_steps, self.log_every = fit, n_steps, log_every

    @abstractmethod
    def losses(self, micro: Any) -> Tensor:
        """The sum of the losses of a micro-batch."""

    @abstractmethod
    def mass(self, micro: Any) -> Tensor:
        """What a micro-batch adds to the divisor of the mean."""

    def training_step(self, batch: list[Any], batch_idx: int) -> None:
        optimiser: Any = self.optimizers()
        optimiser.zero_grad()
        mass = torch.stack([self.mass(micro) for micro in batch]).sum()
        total = torch.zeros((), device=self.device)
        for micro in batch:
            loss = self.losses(micro) / mass
            self.manual_backward(loss)
            total += loss.detach()
        self._refuse_divergence(total.item())
        if self.fit.clip:
            # by hand, because Lightning refuses to clip for a fused AdamW under mixed precision
            torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], self.fit.clip)
        lr = self._lr()
        optimiser.step()
        self._schedule().step()
        if (self.global_step - 1) % self.log_every == 0:  # logging every step costs more than a small model's step
            self.log_dict({"train/loss": total, "train/lr": lr}, logger=True)

    def configure_optimizers(self) -> Any:
        trained = [weights for weights in self.parameters() if weights.requires_grad]
        beta1, beta2 = self.fit.betas
        optimiser = torch.optim.AdamW(
            trained, self.fit.lr, betas=(beta1, beta2), weight_decay=self.fit.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.fit.factor(step, self.n_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _schedule(self) -> Any:
        return self.lr_schedulers()

    def _lr(self) -> float:
        return float(self._schedule().get_last_lr()[0])

    def _refuse_divergence(self, loss: float) -> None:
        if not math.isfinite(loss):
            rate = f"with the learning rate at {self._lr():.3g} ({self.knob}.lr is {self.fit.lr:.3g})"
            raise StageFailed(f"the loss is {loss} at step {self.global_step} {rate}; lower {self.knob}.lr")
