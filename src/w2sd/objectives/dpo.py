"""DPO and its kin: what counts is how far an answer's log-probability moved away from a reference's.

h is (log π − log π_ref) of the preferred answer minus that of the other, sums over their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import require
from w2sd.objectives.base import OWN
from w2sd.objectives.policy import PolicyObjective, mixed

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.scores import PairLogProbs


@dataclass(frozen=True)
class DPO(PolicyObjective):
    """−ln σ(β h) (Rafailov et al. 2023, eq. 7); with smoothing, −(1 − ε) ln σ(β h) − ε ln σ(−β h)."""

    beta: float = 0.1  # scale of h; the smaller, the further the policy may move away from the reference
    label_smoothing: float = 0.0  # ε, how likely a label is taken to be wrong
    labelled_by: str = OWN  # own: σ(β h) | reference_free: h without the reference | legacy: that, σ(·/50)
    measured_by: str = OWN  # the same choices
    VERSION: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = True
    per_token: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.label_smoothing < 0.5, "label_smoothing", self.label_smoothing, "a share below 0.5")

    def __call__(self, scores: PairLogProbs, targets: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        margin = self.margin(scores)
        if self.label_smoothing:
            targets = targets + self.label_smoothing * (1 - 2 * targets)
        return mixed(targets, -logsigmoid(margin), -logsigmoid(-margin))


@dataclass(frozen=True)
class DPOLengthNormalised(DPO):
    """DPO with h per token: each answer's log-ratio is divided by its number of tokens."""

    beta: float = 5.0  # scale of h, which is much smaller per token than over a whole answer
    labelled_by: str = OWN  # own: σ(β h) | reference_free: h without the reference | legacy: that, without β
    VERSION: ClassVar[int] = 1
    per_token: ClassVar[bool] = True


@dataclass(frozen=True)
class IPO(PolicyObjective):
    """(h − 1/(2β))² (Azar et al. 2024, eq. 17), on sums over tokens.

    Under a soft target q it is smallest where β h + ½ = q; that, cut to [0, 1], is its confidence. (A sigmoid of β h
    would end at 0.62 for a pair that is fitted perfectly.)
    """

    beta: float = 0.1  # h of a pair that is fitted is 1/(2β)
    labelled_by: str = OWN  # own: β h + ½ in [0, 1] | reference_free: σ of β h without reference | legacy: σ(·/50)
    measured_by: str = OWN  # the same choices
    VERSION: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = True
    per_token: ClassVar[bool] = False

    def __call__(self, scores: PairLogProbs, targets: Tensor) -> Tensor:
        h, fitted = self.margin(scores) / self.beta, 1 / (2 * self.beta)
        return mixed(targets, (h - fitted).square(), (h + fitted).square())

    def confidence(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        margin = self.margin(scores, reading)
        return (margin + 0.5).clamp(0, 1) if reading == OWN else margin.sigmoid()
