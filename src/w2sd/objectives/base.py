"""An objective is a pure function: scores and targets to one loss per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.score import PairScores


class Objective(Protocol):
    """Built from its few coefficients, called on scores. It sees no model, no batch and no truth."""

    def __call__(self, scores: PairScores, targets: Tensor) -> Tensor:
        """The loss of each example; `targets` is P(first slot is better), in [0, 1]."""

    def confidence(self, scores: PairScores) -> Tensor:
        """P(first slot is better) in the scale of this objective, in [0, 1]."""
