"""How what a teacher thinks of each training example becomes a target for the student.

A supervision sees how likely each option of an example is to be right: of a pair its two slots, of an item its classes.
It never sees which slot holds the truth: a coin put the pair in its slots. One that does read the truth says so in
`reads_truth`, and the report flags its jobs; so it does with one that asks a ceiling, which knows the truth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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


def hardened(p_NK: Floats) -> Floats:
    """All of each distribution on the option that it prefers, in equal shares where several are exactly as likely."""
    preferred_NK = p_NK == p_NK.max(axis=1, keepdims=True)
    return preferred_NK / preferred_NK.sum(axis=1, keepdims=True)


def votes(p_NK: Floats, noise: Floats, samples: int) -> Ints:
    """How often each option is the answer in so many draws, [N, K]; the noise of a row decides its draws.

    >>> votes(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.2, 0.7]), 10)
    array([[ 0, 10],
           [10,  0]])
    """
    draws = [np.random.default_rng(int(u * 2**53)).multinomial(samples, p) for p, u in zip(p_NK, noise, strict=True)]
    return np.array(draws, dtype=np.int64).reshape(p_NK.shape)


def agreed(shares_NK: Floats, threshold: float) -> Floats:
    """The answer with the largest share, if that is large enough; else NaN."""
    enough = shares_NK.max(axis=1, keepdims=True) >= threshold
    return np.where(enough, certain(shares_NK.argmax(axis=1), shares_NK.shape[1]), np.nan)


def p_correct(lesson: Lesson) -> Floats:
    """The teacher's confidence in the truth."""
    assert lesson.truth is not None
    return lesson.p_NK[range(len(lesson.truth)), lesson.truth]


def certain(options: Ints, n_options: int) -> Floats:
    """Targets that leave no doubt."""
    return np.eye(n_options)[options]
