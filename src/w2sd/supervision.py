"""How the confidence of a teacher becomes the target of a student.

A supervision sees P(first slot is better), never which slot holds the truth: a coin put the pair in its slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Soft:
    """The teacher's confidence itself (Burns et al. 2023; the reward models of Yang et al. 2024)."""

    VERSION: ClassVar[int] = 1

    def targets(self, p_first: Any) -> Any:
        return p_first


@dataclass(frozen=True)
class Hard:
    """The side that the teacher prefers: 1 or 0, and .5 where it is exactly undecided."""

    VERSION: ClassVar[int] = 1

    def targets(self, p_first: Any) -> Any:
        import numpy as np

        return (np.sign(np.asarray(p_first) - 0.5) + 1) / 2
