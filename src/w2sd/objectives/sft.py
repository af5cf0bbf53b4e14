"""Supervised fine-tuning on the preferred answer, as an objective of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import choose
from w2sd.objectives.base import OWN, READINGS
from w2sd.objectives.policy import mixed

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.scores import PairLogProbs


@dataclass(frozen=True)
class SFT:
    """−(1/n) log π(preferred answer), n its tokens. The other answer is not looked at.

    Its one margin is that of log π per token, and its confidence the sigmoid of that.
    """

    VERSION: ClassVar[int] = 1
    student: ClassVar[str] = "policy"
    reads_classes: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    labelled_by: ClassVar[str] = OWN
    measured_by: ClassVar[str] = OWN

    def __call__(self, scores: PairLogProbs, targets: Tensor) -> Tensor:
        return mixed(targets, -scores.first / scores.n_first, -scores.second / scores.n_second)

    def margin(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        choose("reading", reading, READINGS)
        return scores.mean_margin

    def confidence(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        return self.margin(scores, reading).sigmoid()
