"""An objective is a pure function: scores and targets to one loss per example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OWN, REFERENCE_FREE, LEGACY = "own", "reference_free", "legacy"
READINGS = (OWN, REFERENCE_FREE, LEGACY)


class Moment(NamedTuple):
    """Where a training is: so many of its steps are done."""

    step: int
    n_steps: int


class Objective(ABC):
    """Built from its few coefficients, called on scores. It sees no model, no batch and no truth.

    Scores are those of a reward model (`PairScores`), of a classifier (`ClassScores`) or of a policy (`PairLogProbs`).

    A reading names which margin speaks for a student, and in which units: `own` (that of the loss), `reference_free`
    (without the reference) or `legacy` (that of the code of Yang et al. 2024). Where there is one margin only, it is
    every reading.

    An objective may have more to say while a run is planned: `under_truth`, the objective of the models that are
    trained on the data's own labels instead of a teacher's (else it is the same); and `check(fit, n_classes)`, which
    refuses what it cannot be computed under (`n_classes` is None for pairs).
    """

    student: ClassVar[str]  # whose scores it reads: "reward" | "policy"
    reads_classes: ClassVar[bool] = False  # whether it also reads those of a classifier
    needs_reference: ClassVar[bool] = False  # whether the scores must have those of a reference beside them
    labelled_by: str = OWN  # the reading that makes weak labels
    measured_by: str = OWN  # the reading that is measured

    @abstractmethod
    def __call__(self, scores: Any, targets: Tensor) -> Tensor:
        """The loss of each example; `targets` is P(first slot is better), in [0, 1]."""

    @abstractmethod
    def margin(self, scores: Any, reading: str = OWN) -> Tensor:
        """How much better the first answer is: above 0 where it is preferred; `own` is in the units of the loss."""

    def confidence(self, scores: Any, reading: str = OWN) -> Tensor:
        """P(first slot is better) in the scale of this objective, in [0, 1]."""
        return self.margin(scores, reading).sigmoid()
