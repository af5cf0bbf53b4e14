"""Objectives of policies, read off the log-probabilities of a pair's answers: SFT, SimPO, DPO, IPO."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import choose, require
from w2sd.objectives.base import LEGACY, OWN, READINGS, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.objectives.scores import PairLogProbs

LEGACY_SCALE = 50.0  # nats per unit of margin, for sums: a constant of the paper's code
READ_BY = ("labelled_by", "measured_by")  # the knobs that choose a reading


class PolicyObjective(Objective):
    """Readings of a policy: a difference of log-probabilities, per token or over whole answers, in a scale.

    | reading        | margin                                                                     |
    |----------------|----------------------------------------------------------------------------|
    | own            | β × what the loss sees, without γ                                          |
    | reference_free | β × the policy's own mean (per token) or sum, whatever the reference says  |
    | legacy         | the policy's own mean, or its sum / 50                                     |

    The loss is always that of the own margin.
    """

    VERSION: ClassVar[int]
    student: ClassVar[str] = "policy"
    per_token: ClassVar[bool]  # whether the loss is about means over an answer's tokens or about sums
    beta: float

    def __post_init__(self) -> None:
        require(0 < self.beta <= 1000, "beta", self.beta, "a number above 0")
        for knob in READ_BY:
            choose(knob, getattr(self, knob), READINGS)

    def identity(self) -> dict[str, Any]:
        """What decides a training. Readings do not: they are parameters of the stages that read what was trained."""
        knobs = [field.name for field in fields(self) if field.name not in READ_BY]  # type: ignore[arg-type]
        return {"VERSION": getattr(self, "VERSION", None), **{knob: getattr(self, knob) for knob in knobs}}

    def margin(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        choose("reading", reading, READINGS)
        free = self._free(scores)
        if reading == LEGACY:
            return free if self.per_token else free / LEGACY_SCALE
        if reading == OWN and self.needs_reference:
            return self.beta * (free - self._free(scores.reference))
        return self.beta * free

    def _free(self, scores: PairLogProbs) -> Tensor:
        return scores.mean_margin if self.per_token else scores.sum_margin


def mixed(targets: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The loss under soft targets: that of preferring the first answer and that of the second, in their shares."""
    return targets * first + (1 - targets) * second


@dataclass(frozen=True)
class SFT(Objective):
    """−(1/n) log π(preferred answer), n its tokens. The other answer is not looked at.

    Its one margin is that of log π per token, and its confidence the sigmoid of that.
    """

    VERSION: ClassVar[int] = 1
    student: ClassVar[str] = "policy"

    def __call__(self, scores: PairLogProbs, targets: Tensor) -> Tensor:
        return mixed(targets, -scores.first / scores.n_first, -scores.second / scores.n_second)

    def margin(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        choose("reading", reading, READINGS)
        return scores.mean_margin


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
