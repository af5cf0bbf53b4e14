"""How weights are fitted: an optimisation, and the language modelling that may come before a training.

Everything here is part of a trained model's key.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from w2sd.errors import choose, require

SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("32-true", "bf16-mixed")


@dataclasses.dataclass(frozen=True)
class Fit:
    """AdamW over global batches. The batch is the knob of science; how it is cut up for memory is the trainer's."""

    lr: float = 1e-5
    epochs: int = 1
    batch: int = 32  # pairs per step
    betas: list[float] = dataclasses.field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    schedule: str = "cosine"  # after the warm-up: cosine | linear | constant
    warmup: float = 0.0  # share of all steps
    floor: float = 0.0  # where cosine and linear end, as a share of lr
    clip: float = 0.0  # norm of the gradient; 0: no clipping
    dropout: bool = False  # as the model's config says, or none
    precision: str = "32-true"
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", self.lr, "a number above 0")
        require(self.epochs >= 1, "epochs", self.epochs, "an integer of 1 or more")
        require(self.batch >= 1, "batch", self.batch, "an integer of 1 or more")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "a number of 0 or more")
        require(0 <= self.clip < math.inf, "clip", self.clip, "a number of 0 or more (0: no clipping)")
        for knob in ("warmup", "floor"):
            require(0 <= getattr(self, knob) <= 1, knob, getattr(self, knob), "a share in [0, 1]")
        choose("schedule", self.schedule, SCHEDULES)
        choose("precision", self.precision, PRECISIONS)

    def factor(self, step: int, n_steps: int) -> float:
        """What multiplies `lr` at `step` of `n_steps`.

        >>> Fit(warmup=.1, schedule="constant").factor(0, 125) == 1 / 13
        True
        >>> round(Fit().factor(62, 125), 12)
        0.506283019942
        """
        n_warm = math.floor(self.warmup * n_steps)
        if step < n_warm:
            return (step + 1) / (n_warm + 1)
        done = min(1.0, (step - n_warm) / max(1, n_steps - n_warm))
        falling = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[self.schedule]
        return self.floor + (1 - self.floor) * falling if self.schedule != "constant" else 1.0


def pretraining(lr: float, batch: int, epochs: int = 1) -> Fit:
    """How small models are pretrained on documents: each is read once where there are enough of them.

    A change here must bump the VERSION of every model that is pretrained so: its key has these arguments alone.
    """
    return Fit(
        lr=lr, epochs=epochs, batch=batch, betas=[0.9, 0.98], weight_decay=0.01, warmup=0.05, floor=0.02, clip=1.0
    )


@dataclasses.dataclass(frozen=True)
class Sft:
    """The fine-tuning on preferred answers that a policy begins with, and that its reference ends with."""

    fit: Fit = dataclasses.field(default_factory=Fit)
    on_conflict: bool = False  # also on the answers of a conflict's rows: each arm then has a fine-tuning of its own
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(isinstance(self.fit, Fit), "fit", self.fit, "an optimisation, as in the group fit")


@dataclasses.dataclass(frozen=True)
class Generative:
    """Language modelling on the texts of the task, without labels, before any is seen (Burns et al. 2023, section 5.2).

    Students and ceiling get it, the ceiling because a gap would otherwise be recovered that is not weak supervision's.
    """

    fit: Fit = dataclasses.field(default_factory=Fit)
    teacher: bool = False  # the weak model as well
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(isinstance(self.fit, Fit), "fit", self.fit, "an optimisation, as in the group fit")

    def suited(self, model: Any) -> Generative:
        """What this model gets."""
        return self


@dataclasses.dataclass(frozen=True)
class GenerativeByModel:
    """The same with a recipe that suits the model, so that one name does on every ladder."""

    made_here: Generative = dataclasses.field(default_factory=Generative)  # models that are pretrained by us
    pretrained: Generative = dataclasses.field(default_factory=Generative)  # all others
    teacher: bool = False  # the weak model as well, whichever of the two suits it
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for knob in ("made_here", "pretrained"):
            recipe = getattr(self, knob)
            require(isinstance(recipe, Generative), knob, recipe, "an option of the group generative other than none")

    def suited(self, model: Any) -> Generative:
        """What this model gets: `made_here` if it is pretrained by us (it has `fit()`), else `pretrained`."""
        recipe = self.made_here if hasattr(model, "fit") else self.pretrained
        return dataclasses.replace(recipe, teacher=self.teacher or recipe.teacher)
