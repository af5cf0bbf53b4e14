"""The embedded world as a source of items: its knobs. How the lists are drawn is in `lists.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import require
from w2sd.world.ladder import require_rung
from w2sd.world.source import SEEDS, WorldText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from w2sd.data.pairs import Item, Table

MOST = 8000  # lists of one split, of all its parts together; 8,288 are not tied, half of them in each of two classes


@dataclass(frozen=True)
class WorldClasses:
    """Lists of four entities of the embedded world, classified by how many of them are hazardous."""

    world_seed: int = 0  # the entities, their attributes, the pretraining corpus and the lists
    visible: float = 0.0  # how far blind spots follow the topic, which the prompt shows: 0 not at all, 1 wholly
    n_classes: int = 2  # 2: fewer or more hazards than not, ties are not drawn; 3: fewer, as many, more
    gt: int = 1024  # lists of split gt
    w2s: int = 1024  # lists of split w2s, in each of its parts
    w2s_parts: int = 3  # one for the last student and one for each earlier hop of a chain
    test: int = 4000  # lists of split test
    VERSION: ClassVar[int] = 1
    max_tokens: ClassVar[int] = 32  # every list is eight words

    def __post_init__(self) -> None:
        require(0 <= self.world_seed < SEEDS, "world_seed", self.world_seed, f"0 to {SEEDS - 1}")
        require(0 <= self.visible <= 1, "visible", self.visible, "a number from 0 to 1")
        require(self.n_classes in (2, 3), "n_classes", self.n_classes, "2 or 3 classes")
        require(1 <= self.w2s_parts <= 16, "w2s_parts", self.w2s_parts, "1 to 16 parts")
        most = {"gt": MOST, "w2s": MOST // self.w2s_parts, "test": MOST}
        for knob, limit in most.items():
            require(self.n_classes <= getattr(self, knob) <= limit, knob, getattr(self, knob), f"up to {limit} lists")

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return ("harmless", "harmful") if self.n_classes == 2 else ("fewer", "as_many", "more")

    def identity(self) -> dict[str, Any]:
        """What decides the rows; `visible=1` and `visible=1.0` are one world."""
        return {"source": "world_classes", "version": self.VERSION, **asdict(self), "visible": float(self.visible)}

    def focus(self, split: str) -> WorldClasses:
        """The source that has the same rows of one split, whatever else is changed in this one."""
        decisive = {"gt": ("gt",), "w2s": ("w2s", "w2s_parts"), "test": ("test",)}[split]
        sizes = {knob: getattr(self, knob) for knob in decisive}
        return WorldClasses(self.world_seed, self.visible, self.n_classes, **sizes)

    @property
    def text(self) -> WorldText:
        """What the ladder is pretrained on, as of the pairs of the same world."""
        return WorldText(self.world_seed, self.visible)

    def table(self) -> Table[Item]:
        """All rows; none is there twice, classes are equally large, and no entity is shared between splits.

        A larger size begins with the rows of a smaller one.
        """
        from w2sd.world import lists  # planning knows worlds by their identity and never draws one

        return lists.draw(self)

    def known(self, items: list[Item], rung: int) -> NDArray[np.bool_]:
        """Whether the class of each item follows, more likely than not, from what this rung was taught.

        The judge is an ideal reader of exactly the hazard facts taught to the rung, to whom each untaught entity is as
        likely hazardous as not. With two classes this is the reader of the pairs.
        """
        from w2sd.world import lists

        require_rung("rung", rung)
        return lists.decided(self, items, rung)
