"""Implicit conflict: helpfulness pairs with their own labels are mixed in (Yang et al. 2024, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.conflicts.base import Conflict, Extra, take
from w2sd.conflicts.placebo import dose
from w2sd.data.pairs import CONFLICTING
from w2sd.errors import require

if TYPE_CHECKING:
    from w2sd.data.pairs import Table


@dataclass(frozen=True)
class Implicit(Conflict):
    """One loss over the weakly labelled rows and `ratio` times as many helpful ones, equal weight per row."""

    ratio: float = 1.0  # helpful rows per harmless row
    match_steps: bool = False  # as many optimiser steps as without the extra rows
    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = CONFLICTING

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 100, "ratio", self.ratio, "a number above 0")

    def placebos(self) -> dict[str, Conflict]:
        return dose(self.ratio, self.match_steps)

    def extra(self, table: Table, n_rows: int) -> Extra:
        return Extra(take(table.rows("w2s", CONFLICTING), self.ratio, n_rows, self.draws))
