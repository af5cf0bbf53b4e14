"""Objectives of reward models, and of classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import choose
from w2sd.objectives.base import OWN, READINGS

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.scores import PairScores


class RewardObjective:
    """What objectives of reward models share: one margin, whichever way it is read, and its sigmoid."""

    student: ClassVar[str] = "reward"
    reads_classes: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    labelled_by: ClassVar[str] = OWN
    measured_by: ClassVar[str] = OWN

    def margin(self, scores: PairScores, reading: str = OWN) -> Tensor:
        choose("reading", reading, READINGS)
        return scores.margin

    def confidence(self, scores: PairScores, reading: str = OWN) -> Tensor:
        return self.margin(scores, reading).sigmoid()


@dataclass(frozen=True)
class RewardBCE(RewardObjective):
    """Soft pairwise cross-entropy: CE(σ(r₁ − r₂), target) (Bradley-Terry; Burns et al. 2023, section 3).

    Of items it is the soft cross-entropy of their classes, CE(softmax(logits), targets), which with two classes is the
    same on the difference of the two logits.
    """

    VERSION: ClassVar[int] = 1
    reads_classes: ClassVar[bool] = True

    def __call__(self, scores: Any, targets: Tensor) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        if targets.ndim == 2:
            return cross_entropy(scores.logits, targets, reduction="none")
        return binary_cross_entropy_with_logits(scores.margin, targets, reduction="none")
