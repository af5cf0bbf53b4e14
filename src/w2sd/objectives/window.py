"""The confidence window: a student listens to its teacher where it is not sure itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import Refused, nearest
from w2sd.objectives.base import Moment
from w2sd.objectives.classes import RowObjective, StepObjective, cross_entropy, distribution

if TYPE_CHECKING:
    from torch import Tensor

MIDWEAK = "midweak"


@dataclass(frozen=True)
class Window(RowObjective):
    """Cross-entropy where the student's confidence is below ½ + radius, else nothing."""

    radius: float

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return cross_entropy(log_p_BC, q_BC) * (sureness(log_p_BC.detach().double().exp()) < self.radius)


@dataclass(frozen=True)
class ConfidenceWindow(StepObjective):
    """Cross-entropy on rows where the student's confidence is below ½ + radius (EleutherAI's w2s).

    The mean runs over all rows, inside or not. A confidence is that in the first of the two strongest classes against
    the second; of two classes, the larger probability. Theirs takes `midweak` over all training rows at once.
    """

    radius: float | int | str = MIDWEAK  # or midweak: how far from ½ the teacher is on the median row of the batch
    VERSION: ClassVar[int] = 1
    reads_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        known = self.radius == MIDWEAK or (isinstance(self.radius, float) and 0 < self.radius <= 0.5)
        accepted = f"a number above 0, of 0.5 or less, or {MIDWEAK}"
        if not known:
            raise Refused("radius", self.radius, accepted, nearest(self.radius, [MIDWEAK]))

    def fixed(self, moment: Moment, logits_BC: Tensor | None, targets: Tensor) -> Window:
        if isinstance(self.radius, float):
            return Window(self.radius)
        return Window(float(sureness(distribution(targets.double())).quantile(0.5)))


def sureness(p_BC: Tensor) -> Tensor:
    """How far from ½ the confidence in the strongest class is, against the second, [B]: of two classes, |p − ½|."""
    first, second = p_BC.topk(2, dim=-1).values.unbind(-1)
    return first / (first + second) - 0.5
