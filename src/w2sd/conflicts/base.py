"""A conflict pulls the student away from its supervisor: through extra data, through an extra loss, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.data.pairs import Pair, Table
    from w2sd.models.score import PairScores


class Conflict(Protocol):
    """The two hooks of a conflict. A student trained without weak labels has none."""

    def rows(self, table: Table) -> list[Pair]:
        """Pairs that join the training rows with their own labels."""

    def loss(self, scores: PairScores, targets: Tensor) -> Tensor | None:
        """A term per example to add to the objective, or None."""
