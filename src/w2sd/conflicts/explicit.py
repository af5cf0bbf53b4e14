"""Explicit conflict: a loss term that rewards harm where the student already leans to it (Yang et al. 2024, section 3).

    L = CE(s, q) + α · CE(s, 0) · 1[s < ½]        s: P(better answer), q: the weak label

The mean runs over all rows, masked or not. The mask is not differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.conflicts.base import Conflict, against, preferred
from w2sd.conflicts.placebo import dose
from w2sd.errors import choose, require

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.data.batch import PairBatch
    from w2sd.models.score import PairScores


@dataclass(frozen=True)
class Explicit(Conflict):
    """α · BCE toward the worse answer, on rows where the student contradicts the truth (or the weak label)."""

    alpha: float = 0.5  # strength; 1 makes students collapse
    mask: str = "truth"  # truth: against the human label, which makes it an oracle, as in the paper | weak
    placebo_ratio: float = 1.0  # extra rows of the placebos that go with this arm, which itself has none
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 100, "alpha", self.alpha, "a number of 0 or more")
        require(0 < self.placebo_ratio <= 100, "placebo_ratio", self.placebo_ratio, "a number above 0")
        choose("mask", self.mask, ("truth", "weak"))

    def identity(self) -> dict[str, Any]:
        """What decides the student: the dose of its placebos does not."""
        return {"VERSION": self.VERSION, "alpha": float(self.alpha), "mask": self.mask}

    @property
    def reads_truth(self) -> bool:
        return self.mask == "truth"

    def placebos(self) -> dict[str, Conflict]:
        return dose(self.placebo_ratio, match_steps=False)

    def loss(self, scores: PairScores, batch: PairBatch) -> Tensor | None:
        reference = batch.truth if self.reads_truth else preferred(batch.targets)
        return self.alpha * against(scores.margin, reference) * contradicts(scores.margin, reference)


def contradicts(margin: Tensor, reference: Tensor) -> Tensor:
    """1 where the margin prefers the answer that the reference (1: the first) does not; a tie prefers neither."""
    return (margin.detach().sign() * (reference - 0.5) < 0).to(margin.dtype)
