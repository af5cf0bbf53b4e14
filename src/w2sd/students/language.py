"""Language models in training: from scratch on documents, and fine-tuned on answers or whole texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from w2sd.data.layout import Tokens
from w2sd.data.tally import Tally
from w2sd.students.learner import Learner


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


class SftLearner(Learner):
    """Supervised fine-tuning: the mean over examples of an answer's negative log-probability per token."""

    knob = "sft.fit"
    example = "answer"

    def losses(self, micro: Tokens) -> Tensor:
        return -(self.model(micro) / micro.n_answer_B).sum()

    def mass(self, micro: Tokens) -> Tensor:
        return torch.tensor(float(len(micro.n_answer_B)), device=self.device)


class TextLearner(SftLearner):
    """The same over whole texts, of which all is read and nothing is prompt."""

    knob = "generative.fit"
    example = "text"
