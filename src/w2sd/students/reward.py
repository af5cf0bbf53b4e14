"""The reward-model student: a scalar for each answer, trained on which of two is better."""

from __future__ import annotations

from w2sd.data.batch import PairBatch
from w2sd.models.scores import PairScores
from w2sd.students.base import Student


class RewardStudent(Student):
    """A student whose model gives each answer a score of its own."""

    def forward(self, batch: PairBatch) -> PairScores:
        return PairScores(*self.model(batch.tokens).float().chunk(2))
