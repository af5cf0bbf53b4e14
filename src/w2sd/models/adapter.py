"""Which weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from w2sd.models.score import RewardModel


@dataclass(frozen=True)
class Full:
    """All of them."""

    VERSION: ClassVar[int] = 1

    def apply(self, model: RewardModel) -> None:
        """Train everything."""


@dataclass(frozen=True)
class HeadOnly:
    """The head alone, on frozen features."""

    VERSION: ClassVar[int] = 1

    def apply(self, model: RewardModel) -> None:
        """Freeze the transformer."""
        model.backbone.requires_grad_(False)
