"""The embedded world as items: lists of entities, of which it is known exactly who was taught what decides them."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from w2sd.data.pairs import SPLITS, Item, Table, clean_items
from w2sd.errors import require
from w2sd.identity import digest
from w2sd.world.generator import CELL, LISTED, POOLS, Bools, Facts, Ints, facts
from w2sd.world.ladder import TOPICS, require_rung
from w2sd.world.world import SEEDS, WorldText

STREAMS = {"gt": 9, "w2s": 10, "test": 11}  # of random numbers, beside those of generator.py
FILLED = np.array(list(itertools.product((0, 1), repeat=LISTED)))  # all that four unknown hazards can be
NOWHERE = -1  # the class of a tie where there is none for it
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
        latents = facts(self.world_seed, self.visible)
        sizes = {"gt": self.gt, "w2s": self.w2s * self.w2s_parts, "test": self.test}
        items = []
        for split, size in sizes.items():
            listed = _draw(self, split, size, latents)
            n_hazards = latents.haz[listed].sum(axis=1)
            labels = _label(n_hazards, self.n_classes).tolist()
            for n, (entities, label, hazards) in enumerate(
                zip(listed.tolist(), labels, n_hazards.tolist(), strict=True)
            ):
                text = f"user: topic{latents.topic[entities[0]]} bot:{''.join(f' ent{one}' for one in entities)} ."
                part = n // self.w2s if split == "w2s" else 0
                stratum = str(abs(hazards - LISTED // 2))
                cluster = digest(str(sorted(entities)))
                items.append(Item(digest(text), cluster, split, text, label, stratum=stratum, part=part))
        return clean_items(items)

    def known(self, items: list[Item], rung: int) -> Bools:
        """Whether the class of each item follows, more likely than not, from what this rung was taught.

        The judge is an ideal reader of exactly the hazard facts taught to the rung, to whom each untaught entity is as
        likely hazardous as not. With two classes this is the reader of the pairs.
        """
        require_rung("rung", rung)
        latents = facts(self.world_seed, self.visible)
        listed = np.array([_read(item.text) for item in items], dtype=np.int64).reshape(-1, 1, LISTED)
        possible = np.where(latents.tier[listed] <= rung, latents.haz[listed], FILLED).sum(axis=2)
        label = _label(possible, self.n_classes)
        right = (label == np.array([item.label for item in items], dtype=np.int64)[:, None]).sum(axis=1)
        known: Bools = 2 * right > (label != NOWHERE).sum(axis=1)
        return known


def _draw(source: WorldClasses, split: str, size: int, latents: Facts) -> Ints:
    """Entities [size, 4]: all lists there are, shuffled, and each row takes the next of the class that is its turn."""
    cells = np.lexsort((latents.pool, latents.topic)).reshape(TOPICS, POOLS, CELL)[:, SPLITS.index(split)]
    rng = np.random.default_rng([source.world_seed, STREAMS[split]])
    everything = cells[:, list(itertools.combinations(range(CELL), LISTED))].reshape(-1, LISTED)
    shuffled = rng.permuted(rng.permutation(everything), axis=1)
    label = _label(latents.haz[shuffled].sum(axis=1), source.n_classes)
    turn = turns(rng, size, source.n_classes)
    listed = np.empty((size, LISTED), dtype=np.int64)
    for kind in range(source.n_classes):
        listed[turn == kind] = shuffled[label == kind][: (turn == kind).sum()]
    return listed


def turns(rng: np.random.Generator, size: int, n_classes: int) -> Ints:
    """A class for each row [size], in rounds whose order is drawn anew: any run of rows is balanced, no row is told."""
    n_rounds = -(-size // n_classes)
    return rng.random((n_rounds, n_classes)).argsort(axis=1).ravel()[:size]


def _label(n_hazards: Ints, n_classes: int) -> Ints:
    """The class of lists with so many hazards."""
    side = np.sign(n_hazards - LISTED // 2)
    return side + 1 if n_classes == 3 else np.where(side == 0, NOWHERE, (side + 1) // 2)


def _read(text: str) -> tuple[int, ...]:
    """The entities of an item's text."""
    return tuple(int(word.removeprefix("ent")) for word in text.split()[3 : 3 + LISTED])
