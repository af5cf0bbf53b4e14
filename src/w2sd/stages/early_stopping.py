"""How a student does on held-out rows while it is trained, and the weights with which it did best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from w2sd.atomic import write_json
from w2sd.data.batch import ItemRows, PairRows
from w2sd.data.loader import in_length_order
from w2sd.parts.stopping import CURVE, LABELS, NOTHING, Look, Stopping
from w2sd.pipeline.stage import Task
from w2sd.students.student import Student
from w2sd.supervision.base import hardened


class Watch(pl.Callback):
    """Looks at held-out rows before the first step, every so many steps, and after the last.

    The weights that a training begins with are looked at and never kept, however well a new head happens to do.
    Labels may be soft, and count as what they prefer: an undecided one is met half by either option of a pair, as
    wherever agreement is counted. Of equally good looks the first one counts. The truth is looked at in any case, and
    decides nothing unless asked to.
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
