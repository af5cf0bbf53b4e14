"""No conflict: the arm that every other arm is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.data.pairs import Pair, Table
    from w2sd.models.score import PairScores


@dataclass(frozen=True)
class NoConflict:
    """Nothing but weak labels: no extra data, no extra loss."""

    VERSION: ClassVar[int] = 1

    def rows(self, table: Table) -> list[Pair]:
        return []

    def loss(self, scores: PairScores, targets: Tensor) -> Tensor | None:
        return None
