"""An objective is a pure function: scores and targets to one loss per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Scores = TypeVar("Scores", contravariant=True)  # PairScores of a reward model, PairLogProbs of a policy

OWN, REFERENCE_FREE, LEGACY = "own", "reference_free", "legacy"
READINGS = (OWN, REFERENCE_FREE, LEGACY)


class Moment(NamedTuple):
    """Where a training is: so many of its steps are done."""

    step: int
    n_steps: int


class Objective(Protocol[Scores]):
    """Built from its few coefficients, called on scores. It sees no model, no batch and no truth.

    A reading names which margin speaks for a student, and in which units: `own` (that of the loss), `reference_free`
    (without the reference) or `legacy` (that of the code of Yang et al. 2024). Where there is one margin only, it is
    every reading.

    An objective may have more to say while a run is planned: `under_truth`, the objective of the models that are
    trained on the data's own labels instead of a teacher's (else it is the same); and `check(fit, n_classes)`, which
    refuses what it cannot be computed under (`n_classes` is None for pairs).
    """

    student: ClassVar[str]  # whose scores it reads: "reward" | "policy"
    reads_classes: ClassVar[bool]  # whether it also reads those of a classifier
    needs_reference: ClassVar[bool]  # whether the scores must have those of a reference beside them

    @property
    def labelled_by(self) -> str:
        """The reading that makes weak labels."""

    @property
    def measured_by(self) -> str:
        """The reading that is measured."""

    def __call__(self, scores: Scores, targets: Tensor) -> Tensor:
        """The loss of each example; `targets` is P(first slot is better), in [0, 1]."""

    def margin(self, scores: Scores, reading: str = OWN) -> Tensor:
        """How much better the first answer is: above 0 where it is preferred; `own` is in the units of the loss."""

    def confidence(self, scores: Scores, reading: str = OWN) -> Tensor:
        """P(first slot is better) in the scale of this objective, in [0, 1]."""
