"""The classifier student: a logit for each class, trained on how likely each is to be the right one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from w2sd.data.batch import ItemBatch
from w2sd.models.scores import ClassScores
from w2sd.objectives.base import OWN
from w2sd.students.base import Examination, Student


class ClassStudent(Student):
    """A student whose model gives each item a logit for every class.

    Its margin is that of the true class over the strongest other one, and its confidence the sigmoid of that: with two
    classes the probability of the true one, with more what it would be if there were only those two.
    """

    example = "item"

    def forward(self, batch: ItemBatch) -> ClassScores:
        return ClassScores(self.model(batch.tokens).float())

    def prefers(self, scores: ClassScores) -> Tensor:
        strongest_BC = (scores.logits == scores.logits.amax(dim=1, keepdim=True)).double().cpu()
        return strongest_BC / strongest_BC.sum(dim=1, keepdim=True)

    def examine(self, examination: Examination, reading: str = OWN) -> None:
        super().examine(examination, reading)
        self.logits_NC = np.full((len(examination.uid), self.model.head.out_features), np.nan, dtype=np.float32)

    def judge(self, scores: ClassScores, truth_B: Tensor) -> tuple[Tensor, Tensor, ClassScores]:
        logits_BC, truth_B1 = scores.logits, truth_B[:, None]
        true_B = logits_BC.gather(1, truth_B1).squeeze(1)
        margin_B = true_B - logits_BC.scatter(1, truth_B1, -torch.inf).amax(dim=1)
        return margin_B, margin_B.sigmoid(), scores

    def record(self, place: np.ndarray, scores: ClassScores) -> None:
        self.logits_NC[place] = scores.logits.numpy()

    def columns(self) -> dict[str, np.ndarray]:
        return {"logits": self.logits_NC}
