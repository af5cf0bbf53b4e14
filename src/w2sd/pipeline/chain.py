"""The chain of students, from weak to strong: each one learns from the labels of the one before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Direct:
    """The weak model teaches the strong one, with nobody in between."""

    VERSION: ClassVar[int] = 1

    def students(self, strong: Any) -> list[Any]:
        """The models that are trained on weak labels, in order; the last is always the strong one."""
        return [strong]
