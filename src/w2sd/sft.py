"""What policies are fine-tuned on before they are trained; reward models do without."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from w2sd.errors import require
from w2sd.fit import Fit


@dataclasses.dataclass(frozen=True)
class Sft:
    """The fine-tuning on preferred answers that a policy begins with, and that its reference ends with."""

    fit: Fit = dataclasses.field(default_factory=Fit)
    on_conflict: bool = False  # also on the answers of a conflict's rows: each arm then has a fine-tuning of its own
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(isinstance(self.fit, Fit), "fit", self.fit, "an optimisation, as in the group fit")


@dataclasses.dataclass(frozen=True)
class NoSft:
    """None: policies begin as the language models that they are."""

    VERSION: ClassVar[int] = 1
