"""Language modelling on the texts of the task, before any label."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from w2sd.errors import require
from w2sd.fit import Fit


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


@dataclasses.dataclass(frozen=True)
class NoGenerative:
    """None: models see nothing of the task before its labels."""

    VERSION: ClassVar[int] = 1
