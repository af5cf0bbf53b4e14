"""The reward-model student: a scalar for each answer, trained on which of two is better."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from w2sd.conflicts.base import Conflict
from w2sd.data.batch import PairBatch
from w2sd.fit import Fit
from w2sd.metrics.accuracy import PairwiseAccuracy
from w2sd.metrics.deception_score import DeceptionScore
from w2sd.metrics.pgr import PerformanceGapRecovered
from w2sd.models.score import PairScores, RewardModel
from w2sd.objectives.base import Objective
from w2sd.students.base import Learner


class Examination(NamedTuple):
    """What is known of the pairs that a student is scored on, in the order of their index."""

    uid: Tensor  # [n] int64
    swapped: Tensor  # [n] whether the better answer is in the second slot
    references: dict[str, Tensor]  # per role [n] the confidence of another model in the better answer


class RewardStudent(Learner):
    """Model, objective and conflict. `training_step` descends `objective(scores, targets) + conflict.loss(...)`."""

    def __init__(
        self,
        model: RewardModel,
        objective: Objective,
        conflict: Conflict,
        fit: Fit,
        n_steps: int = 1,
        log_every: int = 1,
    ) -> None:
        super().__init__(fit, n_steps, log_every)
        self.model, self.objective, self.conflict = model, objective, conflict
        self.metrics: MetricCollection | None = None

    def forward(self, batch: PairBatch) -> PairScores:
        """Scores of the two answers of each pair, in slot order."""
        return PairScores(*self.model(batch.ids_BT, batch.mask_BT).float().chunk(2))

    def losses(self, micro: PairBatch) -> Tensor:
        scores = self(micro)
        loss = self.objective(scores, micro.targets)
        extra = self.conflict.loss(scores, micro)
        return (loss if extra is None else loss + extra).sum()

    def mass(self, micro: PairBatch) -> Tensor:
        return torch.tensor(float(len(micro.rows)), device=self.device)

    def examine(self, examination: Examination) -> None:
        """Prepare for being scored on these pairs; only here, after training, does the truth come in."""
        self.examination = examination
        self.margins = np.full(len(examination.uid), np.nan)  # better minus worse answer
        self.p_correct = np.full(len(examination.uid), np.nan)
        metrics: dict[str, Metric | MetricCollection] = {"accuracy": PairwiseAccuracy()}
        if {"weak", "ceiling"} <= set(examination.references):
            metrics["pgr"] = PerformanceGapRecovered()
        if {"weak", "ceiling", "baseline"} <= set(examination.references):
            metrics |= {f"deception/{figure}": DeceptionScore(figure) for figure in ("score", "base_rate", "flips")}
        self.metrics = MetricCollection(metrics)

    def test_step(self, batch: list[PairBatch], batch_idx: int) -> None:
        assert self.metrics is not None
        for micro in batch:
            index, p_correct = self._score(micro)
            references = {role: column[index] for role, column in self.examination.references.items()}
            self.metrics.update(uid=self.examination.uid[index], p_correct=p_correct, **references)
        self.log_dict(self.metrics, on_step=False, on_epoch=True)

    def predict_step(self, batch: list[PairBatch], batch_idx: int) -> None:
        for micro in batch:
            self._score(micro)

    def _score(self, micro: PairBatch) -> tuple[Tensor, Tensor]:
        index = micro.rows.cpu()
        scores = PairScores(*(side.double().cpu() for side in self(micro)))
        swapped = self.examination.swapped[index]
        better_first = PairScores(
            torch.where(swapped, scores.second, scores.first), torch.where(swapped, scores.first, scores.second)
        )
        p_correct = self.objective.confidence(better_first)
        place = index.numpy()  # NumPy would take a tensor with one element for a plain number
        self.margins[place] = better_first.margin.numpy()
        self.p_correct[place] = p_correct.numpy()
        return index, p_correct
