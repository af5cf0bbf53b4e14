"""What the objectives of policies share: margins of log-probabilities, and what a confidence is made of."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import choose, require
from w2sd.objectives.base import LEGACY, OWN, READINGS

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.models.scores import PairLogProbs

LEGACY_SCALE = 50.0  # nats per unit of margin, for sums: a constant of the paper's code
READ_BY = ("labelled_by", "measured_by")  # the knobs that choose a reading


class PolicyObjective:
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
    reads_classes: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    per_token: ClassVar[bool]  # whether the loss is about means over an answer's tokens or about sums
    beta: float
    labelled_by: str
    measured_by: str

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
        free = scores.mean_margin if self.per_token else scores.sum_margin
        if reading == LEGACY:
            return free if self.per_token else free / LEGACY_SCALE
        if reading == OWN and self.needs_reference:
            return self.beta * (scores.adjusted_mean_margin if self.per_token else scores.adjusted_margin)
        return self.beta * free

    def confidence(self, scores: PairLogProbs, reading: str = OWN) -> Tensor:
        return self.margin(scores, reading).sigmoid()


def mixed(targets: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The loss under soft targets: that of preferring the first answer and that of the second, in their shares."""
    return targets * first + (1 - targets) * second
