"""How what a teacher thinks of each training pair becomes a target for the student.

A supervision sees P(first slot is better), never which slot holds the truth: a coin put the pair in its slots. One that
does read the truth says so in `reads_truth`, is named for it, and is flagged by the report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from w2sd.errors import choose, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LAYERS = ("last", "middle")  # of a transformer, whose states are features


class Lesson(NamedTuple):
    """The training pairs of a student as a supervision sees them, in slot order."""

    p_first: Floats  # the teacher's confidence that the first answer is better
    noise: Floats  # [0, 1): a number per pair, from its id
    truth: Floats | None = None  # 1 where the first answer is better; only if the supervision reads it
    length: Floats | None = None  # of prompt and both answers, in characters; likewise
    p_ceiling: Floats | None = None  # a ceiling's confidence in the better answer; only if `needs_ceiling`
    features: Floats | None = None  # [n, D] of a pair its first answer's minus its second's; only if `needs_features`


class Supervision(ABC):
    """Targets P(first is better); NaN leaves a pair out."""

    VERSION: ClassVar[int]
    reads_truth: ClassVar[bool] = False
    needs_ceiling: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False  # of the model that the student begins as, from the layer that it names
    needs_teacher: ClassVar[bool] = True

    @abstractmethod
    def targets(self, lesson: Lesson) -> Floats:
        """What the student is trained towards."""


@dataclass(frozen=True)
class Soft(Supervision):
    """The teacher's confidence itself (Burns et al. 2023; the reward models of Yang et al. 2024)."""

    VERSION: ClassVar[int] = 1

    def targets(self, lesson: Lesson) -> Floats:
        return lesson.p_first


@dataclass(frozen=True)
class Hard(Supervision):
    """The side that the teacher prefers: 1 or 0, and .5 where it is exactly undecided."""

    VERSION: ClassVar[int] = 1

    def targets(self, lesson: Lesson) -> Floats:
        import numpy as np

        return (np.sign(lesson.p_first - 0.5) + 1) / 2


@dataclass(frozen=True)
class Confident(Supervision):
    """Soft targets, where the teacher is confident either way. Needs no truth."""

    threshold: float = 0.75  # of max(q, 1 − q)
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0.5 <= self.threshold < 1, "threshold", self.threshold, "a confidence in [0.5, 1)")

    def targets(self, lesson: Lesson) -> Floats:
        import numpy as np

        sure = np.maximum(lesson.p_first, 1 - lesson.p_first) >= self.threshold
        return np.where(sure, lesson.p_first, np.nan)


@dataclass(frozen=True)
class OracleConfident(Supervision):
    """Soft targets, where the teacher is confident and right. An oracle: no supervisor could tell these rows apart.

    The "high confidence" filter in the released code of Yang et al. 2024 is this one.
    """

    threshold: float = 0.75  # of the confidence in the better answer
    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0.5 <= self.threshold < 1, "threshold", self.threshold, "a confidence in [0.5, 1)")

    def targets(self, lesson: Lesson) -> Floats:
        import numpy as np

        assert lesson.truth is not None
        p_correct = np.where(lesson.truth == 1, lesson.p_first, 1 - lesson.p_first)
        return np.where(p_correct >= self.threshold, lesson.p_first, np.nan)


@dataclass(frozen=True)
class Gold(Supervision):
    """The truth on the prompts of weak supervision: what is left of an effect when the teacher is never wrong."""

    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False

    def targets(self, lesson: Lesson) -> Floats:
        assert lesson.truth is not None
        return lesson.truth


@dataclass(frozen=True)
class NoisyGold(Supervision):
    """The truth, wrong on as many pairs as the teacher is, at random: its error rate without its blind spots."""

    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True

    def targets(self, lesson: Lesson) -> Floats:
        return _err(lesson, lesson.noise)


@dataclass(frozen=True)
class Synthetic(Supervision):
    """The truth, wrong on as many pairs as the teacher is, on pairs of some kind (Burns et al. 2023, appendix E.2)."""

    errors: str = "longest"  # longest | shortest | hardest | easiest: least, most confidently right for the ceiling
    VERSION: ClassVar[int] = 1
    reads_truth: ClassVar[bool] = True
    needs_ceiling: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choose("errors", self.errors, ("longest", "shortest", "hardest", "easiest"))

    def targets(self, lesson: Lesson) -> Floats:
        assert lesson.length is not None
        assert lesson.p_ceiling is not None
        order = {
            "longest": -lesson.length,
            "shortest": lesson.length,
            "hardest": lesson.p_ceiling,
            "easiest": -lesson.p_ceiling,
        }
        return _err(lesson, order[self.errors])


def _err(lesson: Lesson, order: Floats) -> Floats:
    """The truth, wrong on as many pairs as the teacher is: those first in `order`, ties in the order of the noise."""
    import numpy as np

    assert lesson.truth is not None
    wrong = np.where(lesson.truth == 1, lesson.p_first, 1 - lesson.p_first) < 0.5
    flipped = np.lexsort((lesson.noise, order))[: int(wrong.sum())]
    targets = lesson.truth.copy()
    targets[flipped] = 1 - targets[flipped]
    return targets
