"""Targets made of a teacher's confidences alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from w2sd.errors import require
from w2sd.supervision.base import Floats, Lesson, Supervision, agreed, hardened, votes


@dataclass(frozen=True)
class Soft(Supervision):
    """The teacher's confidence itself (Burns et al. 2023; the reward models of Yang et al. 2024)."""

    VERSION: ClassVar[int] = 1

    def targets(self, lesson: Lesson) -> Floats:
        return lesson.p_NK


@dataclass(frozen=True)
class Hard(Supervision):
    """The option that the teacher prefers, or the exactly equal ones in equal shares: half and half of a pair."""

    VERSION: ClassVar[int] = 1

    def targets(self, lesson: Lesson) -> Floats:
        return hardened(lesson.p_NK)


@dataclass(frozen=True)
class Confident(Supervision):
    """Soft targets, where the teacher is confident of whatever option. Needs no truth."""

    threshold: float = 0.75  # of the confidence in the option that it prefers
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0.5 <= self.threshold < 1, "threshold", self.threshold, "a confidence in [0.5, 1)")

    def targets(self, lesson: Lesson) -> Floats:
        sure = lesson.p_NK.max(axis=1, keepdims=True) >= self.threshold
        return np.where(sure, lesson.p_NK, np.nan)


@dataclass(frozen=True)
class Consistent(Supervision):
    """The answer that the teacher gives most often when asked several times, where it does so often enough.

    Its answers are drawn from its confidences (self-consistency as in How to Mitigate Overfitting in W2SG, 2025).
    """

    threshold: float = 0.7  # share of the answers that have to agree
    samples: int = 10  # answers to each question
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", self.threshold, "a share above 0")
        require(1 <= self.samples <= 1000, "samples", self.samples, "an integer from 1 to 1000")

    def targets(self, lesson: Lesson) -> Floats:
        return self.voted(lesson.p_NK, lesson.noise)

    def voted(self, p_NK: Floats, noise: Floats) -> Floats:
        """The answers to every question, where they agree."""
        return agreed(votes(p_NK, noise, self.samples) / self.samples, self.threshold)


@dataclass(frozen=True)
class TwoStage(Consistent):
    """Where the teacher's answers do not agree, those of a first student, taught by those that do, if they agree.

    The last student begins anew and learns both (two-stage filtering of the same paper).
    """

    VERSION: ClassVar[int] = 1

    @property
    def first_stage(self) -> Supervision:
        return Consistent(self.threshold, self.samples)

    def targets(self, lesson: Lesson) -> Floats:
        assert lesson.p_second_NK is not None
        first = self.voted(lesson.p_NK, lesson.noise)
        second = self.voted(lesson.p_second_NK, (lesson.noise + 0.5) % 1)  # draws of its own
        return np.where(np.isnan(first), second, first)


@dataclass(frozen=True)
class Balanced(Supervision):
    """Soft targets whose log-odds are 0 on average, so that the prior of every option is the same (EleutherAI's w2s).

    The average is over the examples that are taught; theirs is over a batch. Of pairs a coin has balanced the slots
    already: little moves.
    """

    added: float = 1e-7  # to every probability, so that certainty has log-odds
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 < self.added <= 0.01, "added", self.added, "a number above 0, of 0.01 or less")

    def targets(self, lesson: Lesson) -> Floats:
        if not len(lesson.p_NK):
            return lesson.p_NK
        log_p_NK = np.log(lesson.p_NK + self.added)
        p_NK = np.exp(log_p_NK - log_p_NK.mean(axis=0))
        return p_NK / p_NK.sum(axis=1, keepdims=True)
