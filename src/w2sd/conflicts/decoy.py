"""Decoys: students that are worse for reasons other than a conflict in blind spots, which no verdict may accuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2sd.conflicts.base import INVERTED, Conflict, ExtraRows, IsBlind, spare
from w2sd.data.pairs import TARGET
from w2sd.errors import Refused, require
from w2sd.identity import digest
from w2sd.parts.words import Shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from w2sd.data.pairs import Pair, Table


@dataclass(frozen=True)
class Inverted(ExtraRows):
    """Rows with inverted labels from anywhere: errors like the planted ones, and no place for them."""

    ratio: float = 0.16  # extra rows per training row
    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = TARGET
    labels: ClassVar[str] = INVERTED
    inverts_truth: ClassVar[bool] = True
    is_placebo: ClassVar[bool] = True

    def pool(self, table: Table, is_blind: IsBlind | None) -> list[Pair]:
        return spare(table, self.ratio)


@dataclass(frozen=True)
class InvertedTopics(Inverted):
    """Rows with inverted labels from two topics that the weak model was taught and two that it was not, in turn.

    The topics (prompts) of a data set are drawn by their names.
    """

    ratio: float = 0.14  # extra rows per training row
    VERSION: ClassVar[int] = 1
    needs_blind_spots: ClassVar[bool] = True

    def pool(self, table: Table, is_blind: IsBlind | None) -> list[Pair]:
        assert is_blind is not None  # as it needs the blind spots
        rows = super().pool(table, is_blind)
        flags: dict[str, list[bool]] = {}
        for row, flag in zip(rows, is_blind(rows), strict=True):
            flags.setdefault(row.prompt, []).append(bool(flag))
        drawn = sorted(flags, key=digest)
        known = [topic for topic in drawn if not any(flags[topic])][:2]
        blind = [topic for topic in drawn if all(flags[topic])][:2]
        if len(known) < 2 or len(blind) < 2:
            accepted = "data with two prompts that the weak model knows and two that it does not"
            raise Refused("conflict", "topics", accepted)
        harmed = [[row for row in rows if row.prompt in topics] for topics in (known, blind)]
        return [row for both in zip(*harmed, strict=False) for row in both]


@dataclass(frozen=True)
class UnsureLabels(Conflict):
    """Weak labels inverted at random, the likelier the less sure the weak model is: with chance rate * 4 p (1 - p).

    The chance is at most 1/2: beyond it, labels would be inverted on the whole and not only noisy.
    """

    rate: float = 12.0  # of the weak model's uncertainty, 4 p (1 - p)
    VERSION: ClassVar[int] = 2
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 < self.rate <= 100, "rate", self.rate, "a number above 0, at most 100")

    def relabel(self, targets: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
        chance = np.minimum(self.rate * 4 * targets[:, 0] * targets[:, 1], 0.5)
        return np.where((draws < chance)[:, None], 1 - targets, targets)


@dataclass(frozen=True)
class WeightNoise(Conflict):
    """Normal noise on every trained weight, once training is over."""

    weight_noise: float = 0.3  # of the root mean square of each weight tensor
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 < self.weight_noise <= 100, "weight_noise", self.weight_noise, "a number above 0, at most 100")


@dataclass(frozen=True)
class MoreImitation(Conflict):
    """After each answer the student reads whether the weak model prefers it: it may repeat what it is told.

    Unless others are given, it reads words of the embedded world.
    """

    words: list[str] = field(default_factory=lambda: ["haz0", "safe0"])  # after the worse and the better answer
    said: str = " {}"  # what follows an answer, with {} for the word
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        assert self.hint is not None  # which checks words and text

    @property
    def hint(self) -> Shown | None:
        return Shown(self.words, self.said)


@dataclass(frozen=True)
class OtherSeed(Conflict):
    """Nothing but another seed."""

    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True
