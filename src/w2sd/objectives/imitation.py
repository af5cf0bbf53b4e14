"""Objectives that imitate a teacher: divergences of its distribution, and a window of confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import Refused, choose, nearest, require
from w2sd.objectives.base import OWN, Moment
from w2sd.objectives.reward import RowObjective, StepObjective, cross_entropy, distribution

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.objectives.scores import PairScores
    from w2sd.parts.fit import Fit

PROBABILITY, SCORE = "probability", "score"


@dataclass(frozen=True)
class ForwardKL(RowObjective):
    """KL(q ‖ p) = Σ q ln(q/p): cross-entropy without what no student can do about it, with the same gradient."""

    VERSION: ClassVar[int] = 1

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        from torch import xlogy

        return cross_entropy(log_p_BC, q_BC) + xlogy(q_BC, q_BC).sum(-1)


@dataclass(frozen=True)
class Reverse(RowObjective):
    """What the reverse losses share: a target that has no zero, for they take its logarithm."""

    clip: float = 1e-3  # least probability of a class in a target

    def __post_init__(self) -> None:
        require(0 < self.clip <= 0.1, "clip", self.clip, "a probability above 0, of 0.1 or less")

    def log_target(self, q_BC: Tensor) -> Tensor:
        """ln q, after q was clipped and made to sum to 1 again."""
        clipped_BC = q_BC.clamp(min=self.clip)
        return (clipped_BC / clipped_BC.sum(-1, keepdim=True)).log()


@dataclass(frozen=True)
class ReverseKL(Reverse):
    """KL(p ‖ q) = Σ p ln(p/q) (Yao et al. 2025): it costs little to be sure where the teacher is not quite."""

    VERSION: ClassVar[int] = 1

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return (log_p_BC.exp() * (log_p_BC - self.log_target(q_BC))).sum(-1)


@dataclass(frozen=True)
class ReverseCE(Reverse):
    """−Σ p ln q (Yao et al. 2025): the reverse divergence without its entropy, smallest where p is all on q's mode."""

    VERSION: ClassVar[int] = 1

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return -(log_p_BC.exp() * self.log_target(q_BC)).sum(-1)


@dataclass(frozen=True)
class Squared(RowObjective):
    """½ Σ (p − q)², of a pair (p − q)²: the loss of the misfit theorem (Charikar et al. 2024, theorem 1).

    Its gains are guaranteed over a convex set of students. Softmax outputs are none; `of=score` has one where the
    head alone is trained: p is then the scores themselves, with their mean moved to 1/C. Of a pair that is ½ + half
    its margin, and cut to [0, 1] it is the confidence.
    """

    of: str = PROBABILITY  # what is compared with the target: probability | score
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        choose("of", self.of, (PROBABILITY, SCORE))

    def check(self, fit: Fit, n_classes: int | None) -> None:
        accepted = "probability: what a classifier says is read as a softmax"
        require(self.of == PROBABILITY or n_classes is None, "objective.of", self.of, accepted)

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        p_BC = log_p_BC.exp()
        if self.of == SCORE:
            p_BC = log_p_BC - log_p_BC.mean(-1, keepdim=True) + 1 / log_p_BC.shape[-1]
        return (p_BC - q_BC).square().sum(-1) / 2

    def confidence(self, scores: PairScores, reading: str = OWN) -> Tensor:
        if self.of == PROBABILITY:
            return super().confidence(scores, reading)
        return ((1 + self.margin(scores, reading)) / 2).clamp(0, 1)


@dataclass(frozen=True)
class Product(RowObjective):
    """Cross-entropy to p^β q^α, normalised and not differentiated (the product loss of OpenAI's code).

    Teacher and student vote, and the student follows the outcome; where nothing holds it back it goes beyond q. With
    α = 1 and β = 0 it is the cross-entropy.
    """

    alpha: float = 1.0  # weight of the teacher's word
    beta: float = 1.0  # weight of the student's own
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 < self.alpha < math.inf, "alpha", self.alpha, "a number above 0")
        require(0 <= self.beta < math.inf, "beta", self.beta, "a number of 0 or more")

    def target(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        """What both agree on."""
        return (self.beta * log_p_BC.detach() + self.alpha * q_BC.log()).softmax(-1)

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return cross_entropy(log_p_BC, self.target(log_p_BC, q_BC))


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
