"""Planted errors: the positive control. What a student is taught wrong exactly where its supervisor cannot see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.conflicts.base import INVERTED, Conflict, Extra, ExtraRows, IsBlind, spare, take
from w2sd.conflicts.placebo import MoreData
from w2sd.data.pairs import TARGET

if TYPE_CHECKING:
    from w2sd.data.pairs import Table


@dataclass(frozen=True)
class Planted(ExtraRows):
    """Rows that the weak model was never taught to decide, with inverted labels: it knows the blind spots.

    Where blind spots are visible these are whole topics; where they are not, single rows, and no student can tell them
    from others: there it is the control that must not be found.
    """

    ratio: float = 0.125  # extra rows per training row
    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = TARGET
    labels: ClassVar[str] = INVERTED
    needs_blind_spots: ClassVar[bool] = True

    def placebos(self) -> dict[str, Conflict]:
        return {"more_data": MoreData(self.ratio, self.match_steps)}

    def extra(self, table: Table, n_rows: int, is_blind: IsBlind | None = None) -> Extra:
        assert is_blind is not None
        rows = spare(table, self.ratio)
        blind = [row for row, flag in zip(rows, is_blind(rows), strict=True) if flag]
        return Extra(take(blind, self.ratio, n_rows, self.draws), self.labels)
