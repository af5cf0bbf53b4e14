"""No conflict: the arm that every other arm is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from w2sd.conflicts.base import Conflict


@dataclass(frozen=True)
class NoConflict(Conflict):
    """Nothing but weak labels: no extra data, no extra loss."""

    VERSION: ClassVar[int] = 1
