"""The auxiliary confidence loss: more and more, the student is held to its own predictions (Burns et al. 2023, 4.3.2).

    L = (1 − a) CE(p, q) + a CE(p, hard(p))        p: the student, q: its weak label, a: rises to alpha in a warm-up

A threshold decides which predictions are hardened to which class. It is one of the whole global batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from w2sd.errors import Refused, choose, require
from w2sd.objectives.base import Moment
from w2sd.objectives.reward import RowObjective, StepObjective, cross_entropy, distribution

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.parts.fit import Fit

LINEAR, JUMP = "linear", "jump"
HALF, MEAN_LABEL, MEDIAN_LABEL = "half", "mean_label", "median_label"


@dataclass(frozen=True)
class Warmup(StepObjective):
    """What comes in little by little."""

    alpha: float = 0.5  # share of the student's own predictions after the warm-up
    warmup: float = 0.2  # of all steps
    warmup_steps: int = 0  # the same in steps; 0: the share

    def __post_init__(self) -> None:
        for knob in ("alpha", "warmup"):
            require(0 <= getattr(self, knob) <= 1, knob, getattr(self, knob), "a share in [0, 1]")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "an integer of 0 or more")

    def share(self, moment: Moment) -> float:
        """a at this moment."""
        n_warm = self.warmup_steps or self.warmup * moment.n_steps
        return self.alpha * (min(1.0, moment.step / n_warm) if n_warm else 1.0)


@dataclass(frozen=True)
class Hardened(RowObjective):
    """One step of `LogConf`, its numbers known: cross-entropy to weak label and own hardened prediction, in shares.

    With two classes a prediction is hardened to the first where its probability is above `low` and `high`, to the
    second where it is below both, and to ½ between them. Without those, and with more classes, to the strongest.
    """

    share: float
    low: float | None = None
    high: float | None = None

    def hard(self, log_p_BC: Tensor) -> Tensor:
        """The student's own prediction, without gradient; what is equally strong has equal parts."""
        if self.low is None or self.high is None:
            strongest_BC = log_p_BC == log_p_BC.amax(-1, keepdim=True)
            return (strongest_BC / strongest_BC.sum(-1, keepdim=True)).to(log_p_BC.dtype)
        p_B = first(log_p_BC.detach())
        return distribution(((p_B - self.low).sign() + (p_B - self.high).sign() + 2) / 4).to(log_p_BC.dtype)

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return cross_entropy(log_p_BC, (1 - self.share) * q_BC + self.share * self.hard(log_p_BC))


@dataclass(frozen=True)
class LogConf(Warmup):
    """The auxiliary confidence loss, in the form of the paper or (`logconf_legacy`) of the code that was released.

    Thresholds, for two classes: `half` hardens half of the batch to each class (the paper: classes are balanced, as
    the slots of pairs are); `mean_label` as many as the weak labels have on average (OpenAI's code). `median_label`
    takes the quantile at the median of the labels, as does an unused loss in the code of Yang et al. 2024, so that
    the more labels say one class, the fewer are hardened to it. The paper's form hardens more than two classes to the
    strongest one; the others are refused.

    The legacy warm-up creeps to alpha × warmup and then jumps to alpha. Of two classes, a batch of fewer than
    `min_rows`, as the last of an epoch may be, is too small for a threshold and is learnt from its weak labels alone.
    """

    threshold: str = HALF  # what decides how many are hardened to which class: half | mean_label | median_label
    ramp: str = LINEAR  # the warm-up: linear | jump (alpha × the share of steps done, then alpha)
    min_rows: int = 8  # of a batch that has a threshold
    VERSION: ClassVar[int] = 2
    reads_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("threshold", self.threshold, (HALF, MEAN_LABEL, MEDIAN_LABEL))
        choose("ramp", self.ramp, (LINEAR, JUMP))
        require(self.min_rows >= 2, "min_rows", self.min_rows, "an integer of 2 or more")
        if self.ramp == JUMP and self.warmup_steps:
            raise Refused("warmup_steps", self.warmup_steps, "0 with ramp=jump, which is about shares")

    def check(self, fit: Fit, n_classes: int | None) -> None:
        n_classes = n_classes or 2
        self._refuse_classes(n_classes)
        accepted = f"{self.min_rows} or more: a threshold is a quantile of the batch (objective.min_rows)"
        require(n_classes != 2 or fit.batch >= self.min_rows, "fit.batch", fit.batch, accepted)

    def _refuse_classes(self, n_classes: int) -> None:
        if n_classes != 2 and self.threshold != HALF:
            raise Refused("objective.threshold", self.threshold, f"half: there are {n_classes} classes")

    def share(self, moment: Moment) -> float:
        done = moment.step / moment.n_steps
        return self.alpha * done if self.ramp == JUMP and done <= self.warmup else super().share(moment)

    def fixed(self, moment: Moment, logits_BC: Tensor | None, targets: Tensor) -> Hardened:
        assert logits_BC is not None
        self._refuse_classes(logits_BC.shape[-1])
        if logits_BC.shape[-1] != 2:
            return Hardened(self.share(moment))
        if len(targets) < self.min_rows:
            return Hardened(0.0)
        return Hardened(self.share(moment), *self.limits(logits_BC, targets))

    def limits(self, logits_BC: Tensor, targets: Tensor) -> tuple[float, float]:
        """Below and above which probability of the first class a prediction is hardened."""
        p_B, q_B = first(logits_BC.log_softmax(-1)), distribution(targets.double())[:, 0]
        if self.threshold == HALF:
            p_B, n = p_B.sort().values, len(p_B)
            # of an odd number the middle one is between the two, however its recomputation is rounded
            return float(p_B[n // 2 - 1 :][:2].mean()), float(p_B[(n - 1) // 2 :][:2].mean())
        level = 1 - q_B.mean() if self.threshold == MEAN_LABEL else q_B.median()  # torch takes the lower of two
        threshold = math.nextafter(float(p_B.quantile(level)), -math.inf)  # which itself is above
        return threshold, threshold


@dataclass(frozen=True)
class Sharpened(RowObjective):
    """One step of `Entropy`, its share known."""

    share: float

    def loss(self, log_p_BC: Tensor, q_BC: Tensor) -> Tensor:
        return cross_entropy(log_p_BC, (1 - self.share) * q_BC + self.share * log_p_BC.exp())


@dataclass(frozen=True)
class Entropy(Warmup):
    """(1 − a) CE(p, q) + a H(p): the student's predictions as they are, instead of hardened (EleutherAI's w2s).

    The entropy is differentiated. In EleutherAI's code it is not, and then pulls nowhere: what is left there is
    cross-entropy at a smaller learning rate.
    """

    VERSION: ClassVar[int] = 1
    reads_scores: ClassVar[bool] = False

    def fixed(self, moment: Moment, logits_BC: Tensor | None, targets: Tensor) -> Sharpened:
        return Sharpened(self.share(moment))


def first(log_p_B2: Tensor) -> Tensor:
    """The probability of the first of two classes, in double precision; that of the other is not lost beside it."""
    return (log_p_B2[:, 0] - log_p_B2[:, 1]).double().sigmoid()
