"""The chain of students, from weak to strong: each one learns from the labels of the one before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from w2sd.errors import Refused, require


@dataclass(frozen=True)
class Direct:
    """The weak model teaches the strong one, with nobody in between."""

    VERSION: ClassVar[int] = 1
    reuse_prompts: ClassVar[bool] = False
    conflict_everywhere: ClassVar[bool] = False

    def hops(self, weak: Any, strong: Any) -> dict[str, Any]:
        """The models that are students before the last, by name: none."""
        return {}


@dataclass(frozen=True)
class SelfTraining:
    """The strong model teaches itself: a student, then `rounds` times a fresh one on its predecessor's labels.

    All of them on the same prompts (the strong-to-strong iterations of EleutherAI's w2s).
    """

    rounds: int = 1
    VERSION: ClassVar[int] = 1
    reuse_prompts: ClassVar[bool] = True
    conflict_everywhere: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(1 <= self.rounds <= 100, "rounds", self.rounds, "an integer from 1 to 100")

    def hops(self, weak: Any, strong: Any) -> dict[str, Any]:
        """The strong model, as often as it will be a teacher."""
        return {f"round_{n}": strong for n in range(1, self.rounds + 1)}


@dataclass(frozen=True)
class Bootstrap:
    """Intermediate students, each taught by the one before it on prompts of its own (Burns et al. 2023, 4.3.1)."""

    between: dict[str, Any] = field(default_factory=dict)  # models from weak to strong, in this order
    reuse_prompts: bool = False  # label the same prompts at every hop
    conflict_everywhere: bool = False  # the conflict at every hop, not at the last alone
    only_between: bool = False  # use only models whose height lies between weak and strong on their common ladder
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(
            len(self.between) > 0, "between", self.between, "at least one model, as in model@chain.between.one=world_m"
        )
        for name, model in self.between.items():
            accepted = f"a model; choose one with model@chain.between.{name}=OPTION"
            require(hasattr(model, "open_backbone"), f"between.{name}", model, accepted)
            is_rung = not self.only_between or _ladder(model) != ""
            require(is_rung, f"between.{name}", model, "a rung of a ladder beside only_between=true")

    def hops(self, weak: Any, strong: Any) -> dict[str, Any]:
        """The models that are students before the last, by name."""
        if not self.only_between:
            return self.between
        ladder = _ladder(strong)
        rungs = {name: model for name, model in self.between.items() if model.ladder == ladder}
        if _ladder(weak) != ladder or not rungs:
            given = " and ".join(_ladder(model) or "a model of no ladder" for model in (weak, strong))
            if ladder and _ladder(weak) == ladder:
                accepted = "a rung of this ladder, of which none is listed: +model@chain.between.NAME=OPTION"
                raise Refused("chain", f"between {given}", accepted)
            accepted = "weak and strong models of one ladder, or chain=bootstrap model@chain.between.one=OPTION"
            raise Refused("chain", f"between {given}", f"{accepted}; ladders: {self._ladders()}")
        within = {name: model for name, model in rungs.items() if weak.height < model.height < strong.height}
        return dict(sorted(within.items(), key=lambda named: named[1].height))

    def _ladders(self) -> str:
        return ", ".join(dict.fromkeys(model.ladder for model in self.between.values()))


def _ladder(model: Any) -> str:
    """Which ladder a model is a rung of; the empty word where it is of none. Its `height` is its place there."""
    return getattr(model, "ladder", "")
