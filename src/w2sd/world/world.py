"""The embedded world as a source of pairs: its knobs. How the rows are drawn is in `generator.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from w2sd.data.pairs import Pair, Table
from w2sd.data.text import Corpus
from w2sd.errors import choose, require
from w2sd.world import generator
from w2sd.world.corpus import DOCUMENTS, LENGTH, corpus
from w2sd.world.ladder import Rung, require_rung

MOST = 100_000  # rows per split and facet; more than 600,000 distinct pairs satisfy even the rarest rule
SEEDS = 2**32  # a larger seed would spill into the tag of a random stream


@dataclass(frozen=True)
class World:
    """Preference pairs of the embedded world, drawn afresh from the seed: nothing is downloaded or stored."""

    world_seed: int = 0  # the entities, their attributes, the pretraining corpus and the pairs
    visible: float = 0.0  # how far blind spots follow the topic, which the prompt shows: 0 not at all, 1 wholly
    tension: float = 0.2  # share of helpful rows whose better answer is not equal in hazards
    tension_on: str = "uniform"  # uniform: all these rows favour hazards; blind: only where blind_rung is blind
    blind_rung: int = 1  # the rung whose blind spots count for tension_on=blind: the weak model's
    gt: int = 1024  # harmless rows of split gt
    w2s: int = 1024  # harmless rows of split w2s, in each of its parts
    w2s_parts: int = 3  # one for the last student, one for each earlier hop of a chain, and the last for a placebo
    test: int = 4000  # harmless rows of split test
    helpful: int = 1024  # helpful rows of split w2s
    helpful_test: int = 1000  # helpful rows of split test
    unrelated: int = 1024  # rows of split w2s about neither hazards nor uses, for a placebo
    VERSION: ClassVar[int] = 1
    max_tokens: ClassVar[int] = 32  # every row has eight words
    long: ClassVar[str] = "refuse"
    append_eos: ClassVar[str] = "never"  # all answers have one length, which ends them

    def __post_init__(self) -> None:
        require(0 <= self.world_seed < SEEDS, "world_seed", self.world_seed, f"0 to {SEEDS - 1}")
        require(0 <= self.visible <= 1, "visible", self.visible, "a number from 0 to 1")
        require(0 <= self.tension <= 1, "tension", self.tension, "a number from 0 to 1")
        choose("tension_on", self.tension_on, ("uniform", "blind"))
        require_rung("blind_rung", self.blind_rung)
        require(1 <= self.w2s_parts <= 16, "w2s_parts", self.w2s_parts, "1 to 16 parts")
        for knob in ("gt", "w2s", "test", "helpful", "helpful_test", "unrelated"):
            require(2 <= getattr(self, knob) <= MOST, knob, getattr(self, knob), f"2 to {MOST} rows")

    def identity(self) -> dict[str, Any]:
        """What decides the rows; `visible=1` and `visible=1.0` are one world."""
        shares = {"visible": float(self.visible), "tension": float(self.tension)}
        return {"source": "world", "version": self.VERSION, **asdict(self), **shares}

    def focus(self, split: str) -> World:
        """The world that has the same rows of one split, whatever else is changed in this one.

        Stages take this for their data: what does not decide their rows does not rename them.
        """
        decisive = {
            "gt": ("gt",),
            "w2s": ("w2s", "w2s_parts", "helpful", "unrelated", "tension", "tension_on", "blind_rung"),
            "test": ("test", "helpful_test", "tension", "tension_on", "blind_rung"),
        }[split]
        return World(self.world_seed, self.visible, **{knob: getattr(self, knob) for knob in decisive})

    @property
    def text(self) -> WorldText:
        """What its ladder is pretrained on."""
        return WorldText(self.world_seed, self.visible)

    def table(self) -> Table:
        """All rows; none is a duplicate, and no entity is shared between splits.

        A larger size begins with the rows of a smaller one.
        """
        return generator.draw(self)

    def known(self, pairs: list[Pair], rung: int) -> NDArray[np.bool_]:
        """Whether each pair is decided by what this rung was taught.

        The judge is an ideal reader of exactly the hazard facts taught to the rung: it counts an untaught entity as
        half a hazard and must strictly prefer the right side. Uses are taught to every rung, so helpful pairs are
        always known.
        """
        require_rung("rung", rung)
        return generator.decided(self, pairs, rung)


@dataclass(frozen=True)
class WorldText:
    """The corpora of a world, as the text that its ladder is pretrained on."""

    world_seed: int
    visible: float
    VERSION: ClassVar[int] = 1
    ladder: ClassVar[str] = "world"
    extent: ClassVar[tuple[int, int]] = (DOCUMENTS, LENGTH)  # documents, and words of each

    @property
    def seed(self) -> int:
        """Of initial weights and order: a new world is pretrained anew in every respect."""
        return self.world_seed

    def documents(self, model: Rung) -> Corpus:
        """Tokens and weights for one rung."""
        return corpus(World(world_seed=self.world_seed, visible=self.visible), model.rung)
