"""A reader that keeps what a frozen transformer makes of each row, and learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from w2sd.data.batch import ItemBatch, PairBatch
from w2sd.data.loader import Batch
from w2sd.models.probe import StateModel
from w2sd.students.learner import Reader, unwrapped


class StateReader(Reader):
    """After a pass over `n` rows, `states_NAD` has what was made of each text, on every process."""

    def __init__(self, model: StateModel, n: int) -> None:
        super().__init__()
        self.model, self.n = model, n
        self.states_NAD: Tensor | None = None

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self._each(batch, lambda piece, _: self._read(*unwrapped(piece)))

    def _read(self, micro: PairBatch | ItemBatch, counts: float) -> None:
        of_BD = self.model(micro.tokens).float().cpu()
        of_NAD = of_BD.unflatten(0, (-1, len(micro.rows))).transpose(0, 1)
        if self.states_NAD is None:
            self.states_NAD = torch.zeros(self.n, *of_NAD.shape[1:])
        if counts:
            self.states_NAD[micro.rows.cpu()] = of_NAD

    def on_predict_epoch_end(self) -> None:
        """Each process has read its part of the rows, and has zeros elsewhere."""
        assert self.states_NAD is not None
        self.states_NAD = self.trainer.strategy.reduce(self.states_NAD.to(self.device), reduce_op="sum").cpu()
