"""The language model in pretraining, and the reader that keeps what a frozen transformer makes of each row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from w2sd.data.batch import ItemBatch, PairBatch
from w2sd.data.loader import Batch
from w2sd.data.tally import Tally
from w2sd.models.heads import StateModel
from w2sd.parts.fit import Fit
from w2sd.students.learner import Learner, Reader, unwrapped


class DocumentBatch(NamedTuple):
    """Some documents; `weights_BT` is how much predicting the token at the same place counts."""

    ids_BT: Tensor
    weights_BT: Tensor

    def tally(self) -> Tally:
        rows, length = self.ids_BT.shape
        return Tally(rows, rows * length, rows * length)


class DocumentRows:
    """Documents of equal length, cut like pairs into pieces that fit the memory."""

    def __init__(self, tokens: np.ndarray, weights: np.ndarray, micro_tokens: int) -> None:
        self.tokens, self.weights = torch.from_numpy(tokens).long(), torch.from_numpy(weights)
        self.lengths = np.full(len(tokens), tokens.shape[1])
        self.micro_tokens, self.is_packed = micro_tokens, False

    def __len__(self) -> int:
        return len(self.tokens)

    def pieces(self, batch: list[int]) -> list[list[int]]:
        """Which documents of a batch are in memory together."""
        piece = max(1, self.micro_tokens // self.tokens.shape[1])
        return [batch[start : start + piece] for start in range(0, len(batch), piece)]

    def __getitem__(self, batch: list[int]) -> list[DocumentBatch]:
        return [DocumentBatch(self.tokens[piece], self.weights[piece]) for piece in self.pieces(batch)]


class LanguageLearner(Learner):
    """A causal language model under a weighted mean of token losses."""

    knob = "model"  # the recipe of a pretraining belongs to the model
    example = "document"

    def losses(self, micro: DocumentBatch) -> Tensor:
        logits_BTV = self.model(input_ids=micro.ids_BT, use_cache=False).logits[:, :-1].float()
        loss_BT = cross_entropy(logits_BTV.transpose(1, 2), micro.ids_BT[:, 1:], reduction="none")
        return (loss_BT * micro.weights_BT[:, 1:]).sum()

    def mass(self, micro: DocumentBatch) -> Tensor:
        return micro.weights_BT[:, 1:].sum()  # the first token has nothing before it to be predicted from


class StateReader(Reader):
    """After a pass over `n` rows, `states_NAD` has what was made of each text, on every process."""

    def __init__(self, model: StateModel, fit: Fit, n: int) -> None:
        super().__init__(model, fit)
        self.n = n
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
