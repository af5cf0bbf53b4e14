"""The chain of students, from weak to strong: each one learns from the labels of the one before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from w2sd.errors import require


@dataclass(frozen=True)
class Direct:
    """The weak model teaches the strong one, with nobody in between."""

    VERSION: ClassVar[int] = 1
    reuse_prompts: ClassVar[bool] = False
    conflict_everywhere: ClassVar[bool] = False

    @property
    def between(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Bootstrap:
    """Intermediate students, each taught by the one before it on prompts of its own (Burns et al. 2023, 4.3.1)."""

    between: dict[str, Any] = field(default_factory=dict)  # models from weak to strong, in this order
    reuse_prompts: bool = False  # label the same prompts at every hop
    conflict_everywhere: bool = False  # the conflict at every hop, not at the last alone
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(
            len(self.between) > 0, "between", self.between, "at least one model, as in model@chain.between.one=world_m"
        )
        for name, model in self.between.items():
            accepted = f"a model; choose one with model@chain.between.{name}=OPTION"
            require(hasattr(model, "open_backbone"), f"between.{name}", model, accepted)
