"""SimPO: the mean log-probability of an answer is its reward, and no reference is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import require
from w2sd.objectives.base import OWN
from w2sd.objectives.policy import PolicyObjective, mixed
from w2sd.objectives.sft import SFT

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.scores import PairLogProbs


@dataclass(frozen=True)
class SimPO(PolicyObjective):
    """−ln σ(β d − γ), d the preferred answer's mean log-probability minus the other's (Meng et al. 2024, eq. 6).

    γ is a margin in units of the loss, not the ratio γ/β of the authors' code. Confidences leave it out, for it
    belongs to no slot, and so are further from ½ than the targets they were fitted to: .86 for .75 under γ = 1, .94
    under γ = 2. Soft and confident supervision by such a teacher pass that on.
    """

    beta: float = 2.0  # scale of the mean log-probabilities
    gamma: float = 1.0  # margin that the preferred answer has to win by
    sft_weight: float = 0.0  # of the preferred answer's negative log-probability per token, added
    labelled_by: str = OWN  # own: σ(β d) | reference_free: the same | legacy: σ(d), as in the paper's code
    measured_by: str = OWN  # the same choices
    VERSION: ClassVar[int] = 1
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.gamma <= 1000, "gamma", self.gamma, "a number of 0 or more")
        require(0 <= self.sft_weight <= 1000, "sft_weight", self.sft_weight, "a number of 0 or more")

    def __call__(self, scores: PairLogProbs, targets: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        margin = self.margin(scores)
        loss = mixed(targets, -logsigmoid(margin - self.gamma), -logsigmoid(-margin - self.gamma))
        return loss + self.sft_weight * SFT()(scores, targets) if self.sft_weight else loss
