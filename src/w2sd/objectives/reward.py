"""Objectives of reward models and classifiers: of a pair's two scores, or of a distribution over classes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import choose
from w2sd.objectives.base import OWN, READINGS, Moment, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.objectives.scores import ClassScores, PairScores


class RewardObjective(Objective):
    """What objectives of reward models share: one margin, whichever way it is read."""

    student: ClassVar[str] = "reward"

    def margin(self, scores: PairScores, reading: str = OWN) -> Tensor:
        choose("reading", reading, READINGS)
        return scores.margin


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


class ClassObjective(RewardObjective):
    """What compares the student's distribution p with its target q, of a pair as of a row with any number of classes.

    Targets are q itself, [B, C], or for pairs P(first slot is better), [B].
    """

    reads_classes: ClassVar[bool] = True

    @property
    def under_truth(self) -> RewardObjective:
        """Plain cross-entropy: all that is here is about learning from a teacher, as in the papers and their code."""
        return RewardBCE()


class RowObjective(ClassObjective):
    """One whose loss of a row depends on that row alone."""

    def __call__(self, scores: PairScores | ClassScores, targets: Tensor) -> Tensor:
        log_p_BC = scores.logits.log_softmax(-1)
        return self.loss(log_p_BC, distribution(targets).to(log_p_BC.dtype))

    @abstractmethod
    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        """The loss of each row."""


class StepObjective(ClassObjective):
    """One that is another one at every step: it depends on how far the training is, or on the whole global batch.

    `fixed` says what it is at a step. The student asks for that before it descends the first piece of a batch, so that
    neither their number nor that of processes decides a loss. Called itself, it takes the rows that it is given for a
    whole batch, after the end of the training.
    """

    reads_scores: ClassVar[bool]  # whether `fixed` needs the logits: a batch in several pieces is then read twice

    @abstractmethod
    def fixed(self, moment: Moment, logits_BC: Tensor | None, targets: Tensor) -> RowObjective:
        """What it is at this moment, for these rows, which are the whole global batch."""

    def __call__(self, scores: PairScores | ClassScores, targets: Tensor) -> Tensor:
        return self.fixed(Moment(1, 1), scores.logits.detach(), targets)(scores, targets)


def distribution(targets: Tensor) -> Tensor:
    """Targets as distributions, [B, C]; those of pairs are over their slots."""
    from torch import stack

    return stack([targets, 1 - targets], dim=-1) if targets.ndim == 1 else targets


def cross_entropy(log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
    """−Σ q ln p of each row: what losses of several terms are made of. By itself it is `RewardBCE`."""
    return -(q_BC * log_p_BC).sum(-1)
