"""How what a teacher thinks of each training example becomes a target for the student.

A supervision sees how likely each option of an example is to be right: of a pair its two slots, of an item its classes.
It never sees which slot holds the truth: a coin put the pair in its slots. One that does read the truth says so in
`reads_truth`, and the report flags its jobs; so it does with one that asks a ceiling, which knows the truth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from w2sd.errors import choose, require
from w2sd.targets import agreed, certain, hardened, misled, p_correct, votes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from w2sd.targets import Floats, Ints

LAYERS = ("last", "middle")  # of a transformer, whose states are features


class Lesson(NamedTuple):
    """The training examples of a student as a supervision sees them."""

    p_NK: Floats  # the teacher's confidence in each option
    noise: Floats  # [0, 1): a number per example, from its id
    truth: Ints | None = None  # the option that is right; only if the supervision reads it
    length: Floats | None = None  # of all texts of the example, in characters; likewise
    p_ceiling: Floats | None = None  # a ceiling's confidence in the truth; only if `needs_ceiling`
    p_second_NK: Floats | None = None  # that of the student of the first stage in each option; only if there is one
    features_NAD: Floats | None = None  # of each text, of which a pair has two in slot order; only if `needs_features`

    def pick(self, rows: NDArray[np.bool_]) -> Lesson:
        """Some of the examples."""
        columns: list[Any] = [None if column is None else column[rows] for column in self]
        return Lesson(*columns)


class Supervision(ABC):
    """Targets: how likely each option is to be right [n, K]; NaN leaves an example out."""

    VERSION: ClassVar[int]
    reads_truth: ClassVar[bool] = False
    needs_ceiling: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False  # of the model that the student begins as, from the `layer` that it names

    @property
    def first_stage(self) -> Supervision | None:
        """What a student is taught by first, whose labels the last one then sees beside the teacher's."""
        return None

    @property
    def neighbours(self) -> int:
        """`k`, where each example is compared with its k nearest; else 0."""
        return 0

    @abstractmethod
    def targets(self, lesson: Lesson) -> Floats:
        """What the student is trained towards."""


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
        import numpy as np

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
        import numpy as np

        assert lesson.p_second_NK is not None
        first = self.voted(lesson.p_NK, lesson.noise)
        second = self.voted(lesson.p_second_NK, (lesson.noise + 0.5) % 1)  # draws of its own
        return np.where(np.isnan(first), second, first)


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
        import numpy as np

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
        import numpy as np

        if not len(lesson.p_NK):
            return lesson.p_NK
        log_p_NK = np.log(lesson.p_NK + self.added)
        p_NK = np.exp(log_p_NK - log_p_NK.mean(axis=0))
        return p_NK / p_NK.sum(axis=1, keepdims=True)
