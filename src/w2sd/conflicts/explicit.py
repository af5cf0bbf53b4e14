"""Explicit conflict: a loss term that rewards harm where the student already leans to it (Yang et al. 2024, section 3).

    L = l(s, q) + α · l(s, 0) · 1[s < ½]        s: P(better answer), q: the weak label, l: the objective

The mean runs over all rows, masked or not. The mask is not differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.conflicts.base import FORMS, REVERSE, Conflict, against, check_form, preferred
from w2sd.conflicts.placebo import RandomMask
from w2sd.errors import Refused, choose, require
from w2sd.objectives.base import OWN, REFERENCE_FREE

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.data.batch import PairBatch
    from w2sd.objectives.base import Objective

MARGIN, POLICY = "margin", "policy"

# Before its first step a policy is its own reference, up to rounding that depends on how memory cuts a batch: without
# a tolerance the knob of memory would decide which rows are masked. In units of the loss: confidences of .495 to .505.
TIE = 0.02


@dataclass(frozen=True)
class Explicit(Conflict):
    """α · the loss of preferring the worse answer, on rows where the student contradicts the truth (or weak label).

    Where a hard weak label is wrong and the student follows it, this is the loss once more: such a label counts 1 + α.
    """

    alpha: float = 0.5  # strength; 1 makes reward models collapse
    mask: str = "truth"  # truth: against the human label, which makes it an oracle, as in the paper | weak
    form: str = REVERSE  # reverse: the objective with the answers exchanged | sft: write the worse one; policies only
    trigger: str = MARGIN  # margin: what the objective compares | policy: without the reference, as in the paper's code
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 100, "alpha", self.alpha, "a number of 0 or more")
        choose("mask", self.mask, ("truth", "weak"))
        choose("form", self.form, FORMS)
        choose("trigger", self.trigger, (MARGIN, POLICY))

    def identity(self) -> dict[str, Any]:
        """What decides the student. Knobs that came later count where they differ."""
        later = {"form": (self.form, REVERSE), "trigger": (self.trigger, MARGIN)}
        added = {knob: value for knob, (value, before) in later.items() if value != before}
        return {"VERSION": self.VERSION, "alpha": float(self.alpha), "mask": self.mask, **added}

    @property
    def reads_truth(self) -> bool:
        return self.mask == "truth"

    def placebos(self) -> dict[str, Conflict]:
        return {"random_mask": RandomMask(self.alpha, None, self.form)}

    def check(self, objective: Objective) -> None:
        check_form(self.form, objective)
        if self.trigger == POLICY and not objective.needs_reference:
            raise Refused("trigger", self.trigger, "margin: without a reference there is one margin")

    def loss(self, scores: Any, batch: PairBatch, objective: Objective) -> Tensor | None:
        reference = batch.truth if self.reads_truth else preferred(batch.targets)
        margin = objective.margin(scores, REFERENCE_FREE if self.trigger == POLICY else OWN)
        if objective.student == "policy":
            margin = settled(margin, batch.targets, TIE if objective.needs_reference else 0.0)
        return self.alpha * against(scores, reference, objective, self.form) * contradicts(margin, reference)


def contradicts(margin: Tensor, reference: Tensor) -> Tensor:
    """1 where the margin prefers the answer that the reference (1: the first) does not; a tie prefers neither."""
    return (margin.detach().sign() * (reference - 0.5) < 0).to(margin.dtype)


def settled(margin: Tensor, targets: Tensor, tie: float = 0.0) -> Tensor:
    """The margin of a policy, a tie counting as what the weak label prefers, as in the paper's code."""
    return margin.where(margin.abs() > tie, (targets - 0.5).to(margin.dtype))
