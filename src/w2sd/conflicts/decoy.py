"""Decoys: students that are worse for reasons other than a conflict in blind spots, which no verdict may accuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2sd.conflicts.base import INVERTED, Conflict, ExtraRows, IsBlind, spare
from w2sd.data.pairs import TARGET
from w2sd.errors import Refused, require
from w2sd.identity import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from w2sd.data.pairs import Pair, Table


@dataclass(frozen=True)
class Inverted(ExtraRows):
    """Rows with inverted labels from anywhere: as many errors as are planted, and no place for them."""

    ratio: float = 0.125  # extra rows per training row
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
    """Weak labels inverted at random, the likelier the less sure the weak model is: with chance rate * 4 p (1 - p)."""

    rate: float = 0.5  # chance where the weak model is undecided
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, "rate", self.rate, "a share in (0, 1]")

    def relabel(self, targets: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
        chance = self.rate * 4 * targets[:, 0] * targets[:, 1]
        return np.where((draws < chance)[:, None], 1 - targets, targets)


@dataclass(frozen=True)
class FewerSteps(Conflict):
    """A shorter training: a share of the optimiser steps, over which the learning rate falls to its end."""

    share_of_steps: float = 0.5  # of the optimiser steps of a whole training
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 < self.share_of_steps < 1, "share_of_steps", self.share_of_steps, "a share between 0 and 1")


@dataclass(frozen=True)
class MoreImitation(Conflict):
    """Weak labels that are surer of themselves: their logits times `factor`."""

    factor: float = 2.0  # of the logits of the weak labels
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(1 < self.factor <= 100, "factor", self.factor, "a number above 1, at most 100")

    def relabel(self, targets: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
        odds = targets**self.factor
        return odds / odds.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class OtherSeed(Conflict):
    """Nothing but another seed."""

    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = True
