"""Planted errors: the positive control. What a student is taught wrong exactly where its supervisor cannot see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.conflicts.base import Conflict, IsBlind
from w2sd.conflicts.decoy import Inverted
from w2sd.conflicts.placebo import MoreData

if TYPE_CHECKING:
    from w2sd.data.pairs import Pair, Table


@dataclass(frozen=True)
class Planted(Inverted):
    """Rows that the weak model was never taught to decide, with inverted labels: it knows the blind spots.

    Where blind spots are visible these are whole topics; where they are not, single rows, and no student can tell them
    from others: there it is the control that must not be found.
    """

    ratio: float = 0.125  # planted rows per training row
    VERSION: ClassVar[int] = 1
    is_placebo: ClassVar[bool] = False
    needs_blind_spots: ClassVar[bool] = True

    def placebos(self) -> dict[str, Conflict]:
        return {"more_data": MoreData(self.ratio, self.match_steps)}

    def pool(self, table: Table, is_blind: IsBlind | None) -> list[Pair]:
        assert is_blind is not None  # as it needs the blind spots
        rows = super().pool(table, is_blind)
        return [row for row, flag in zip(rows, is_blind(rows), strict=True) if flag]
