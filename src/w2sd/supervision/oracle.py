"""Targets that read the truth: upper bounds and controls, which the report flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from w2sd.errors import choose, require
from w2sd.supervision.base import Floats, Lesson, Supervision, certain, p_correct


@dataclass(frozen=True)
class OracleConfident(Supervision):
    """Soft targets, where the teacher is confident and right. An oracle: no supervisor could tell these rows apart.

    The "high confidence" filter in the released code of Yang et al. 2024 is this one.
    """

    threshold: float = 0.75  # of the confidence in the truth
    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0.5 <= self.threshold < 1, "threshold", self.threshold, "a confidence in [0.5, 1)")

    def targets(self, lesson: Lesson) -> Floats:
        return np.where(p_correct(lesson)[:, None] >= self.threshold, lesson.p_NK, np.nan)


@dataclass(frozen=True)
class Gold(Supervision):
    """The truth on the examples of weak supervision: what is left of an effect when the teacher is never wrong."""

    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False

    def targets(self, lesson: Lesson) -> Floats:
        assert lesson.truth is not None
        return certain(lesson.truth, lesson.p_NK.shape[1])


@dataclass(frozen=True)
class NoisyGold(Supervision):
    """The truth, wrong on as many examples as the teacher is, at random: its error rate without its blind spots."""

    rate: float | None = None  # or on this share of them
    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_rate(self.rate)

    def targets(self, lesson: Lesson) -> Floats:
        return misled(lesson, lesson.noise, self.rate)


@dataclass(frozen=True)
class Synthetic(Supervision):
    """The truth, wrong on as many examples as the teacher is, of some kind (Burns et al. 2023, appendix E.2)."""

    errors: str = "longest"  # longest | shortest | hardest | easiest: least, most confidently right for the ceiling
    rate: float | None = None  # or on this share of them
    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True
    needs_ceiling: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choose("errors", self.errors, ("longest", "shortest", "hardest", "easiest"))
        _require_rate(self.rate)

    def targets(self, lesson: Lesson) -> Floats:
        assert lesson.length is not None
        assert lesson.p_ceiling is not None
        order = {
            "longest": -lesson.length,
            "shortest": lesson.length,
            "hardest": lesson.p_ceiling,
            "easiest": -lesson.p_ceiling,
        }
        return misled(lesson, order[self.errors], self.rate)


def _require_rate(rate: float | None) -> None:
    require(rate is None or 0 <= rate <= 1, "rate", rate, "a share in [0, 1], or null for the teacher's error rate")


def misled(lesson: Lesson, order: Floats, rate: float | None) -> Floats:
    """The truth, wrong on a share of the examples or, without a rate, on as many as the teacher is.

    Those are first in `order`, ties in the order of the noise. Of several wrong options they take turns.
    """
    assert lesson.truth is not None
    n_options = lesson.p_NK.shape[1]
    n_wrong = (p_correct(lesson) < lesson.p_NK.max(axis=1)).sum() if rate is None else round(rate * len(order))
    erring = np.lexsort((lesson.noise, order))[: int(n_wrong)]
    options = lesson.truth.copy()
    options[erring] = (options[erring] + 1 + np.arange(len(erring)) % (n_options - 1)) % n_options
    return certain(options, n_options)
