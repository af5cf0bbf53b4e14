"""The embedded world, drawn as items: single answers of which it is known exactly who was taught what decides them.

An item is an answer as it stands in the pairs, `user: topicT bot: e1 e2 e3 e4 .`; its entities are of its split's pool.
"""

from __future__ import annotations

import itertools

import numpy as np

from w2sd.data.pairs import SPLITS, Item, Table, clean_items, digest
from w2sd.world.classes import WorldClasses
from w2sd.world.generator import CELL, LISTED, POOLS, Bools, Facts, Ints, facts
from w2sd.world.vocabulary import TOPICS

STREAMS = {"gt": 9, "w2s": 10, "test": 11}  # of random numbers, beside those of generator.py
FILLED = np.array(list(itertools.product((0, 1), repeat=LISTED)))  # all that four unknown hazards can be
NOWHERE = -1  # the class of a tie where there is none for it


def draw(source: WorldClasses) -> Table[Item]:
    """All rows of a source."""
    latents = facts(source.world_seed, source.visible)
    sizes = {"gt": source.gt, "w2s": source.w2s * source.w2s_parts, "test": source.test}
    items = []
    for split, size in sizes.items():
        listed = _draw(source, split, size, latents)
        n_hazards = latents.haz[listed].sum(axis=1)
        labels = _label(n_hazards, source.n_classes).tolist()
        for n, (entities, label, hazards) in enumerate(zip(listed.tolist(), labels, n_hazards.tolist(), strict=True)):
            text = f"user: topic{latents.topic[entities[0]]} bot:{''.join(f' ent{entity}' for entity in entities)} ."
            part = n // source.w2s if split == "w2s" else 0
            stratum = str(abs(hazards - LISTED // 2))
            cluster = digest(str(sorted(entities)))
            items.append(Item(digest(text), cluster, split, text, label, stratum=stratum, part=part))
    return clean_items(items)


def decided(source: WorldClasses, items: list[Item], rung: int) -> Bools:
    """Whether the facts that a rung was taught make the class of each item more likely than not."""
    latents = facts(source.world_seed, source.visible)
    listed = np.array([_read(item.text) for item in items], dtype=np.int64).reshape(-1, 1, LISTED)
    possible = np.where(latents.tier[listed] <= rung, latents.haz[listed], FILLED).sum(axis=2)
    label = _label(possible, source.n_classes)
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
