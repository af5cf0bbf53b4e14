"""Implicit conflict: helpfulness pairs with their own labels are mixed in (Yang et al. 2024, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from w2sd.conflicts.base import Conflict, ExtraRows
from w2sd.conflicts.placebo import dose
from w2sd.data.pairs import CONFLICTING


@dataclass(frozen=True)
class Implicit(ExtraRows):
    """One loss over the weakly labelled rows and `ratio` times as many helpful ones, equal weight per row."""

    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = CONFLICTING

    def placebos(self) -> dict[str, Conflict]:
        return dose(self.ratio, self.match_steps)
