"""A reader that keeps what a frozen transformer makes of each row, and learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from w2sd.data.batch import Batch, PairBatch
from w2sd.models.probe import StateModel
from w2sd.students.base import Reader, unwrapped


class StateReader(Reader):
    """After a pass over `n` rows, `states` are [n, answers, D] in slot order, on every process."""

    def __init__(self, model: StateModel, n: int) -> None:
        super().__init__()
        self.model, self.n = model, n
        self.states: Tensor | None = None

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self._each(batch, lambda piece, _: self._read(*unwrapped(piece)))

    def _read(self, micro: PairBatch, counts: float) -> None:
        of_BD = self.model(micro.tokens).float().cpu()
        of_NAD = of_BD.unflatten(0, (-1, len(micro.rows))).transpose(0, 1)
        if self.states is None:
            self.states = torch.zeros(self.n, *of_NAD.shape[1:])
        if counts:
            self.states[micro.rows.cpu()] = of_NAD

    def on_predict_epoch_end(self) -> None:
        """Each process has read its part of the rows, and has zeros elsewhere."""
        assert self.states is not None
        self.states = self.trainer.strategy.reduce(self.states.to(self.device), reduce_op="sum").cpu()
