"""The Pair: one preference example, and the rules that every source of pairs keeps.

A source is a frozen dataclass (its fields are its config) of plain values, so that equal sources are read once:

    identity()  what decides its rows, as plain JSON: digests instead of paths. Cheap; no torch.
    table()     its rows and what was dropped on the way to them.
    max_tokens  the longest row, in tokens of the model at hand; prompts are cut to it.
    long        of pairs: what happens to a response that does not fit: refuse | drop.
    append_eos  of pairs: whether policies read an end token after each response: auto | never.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from w2sd.identity import canonical, digest, identity

SPLITS = ("gt", "w2s", "test")
TARGET = "harmless"  # the facet that weak supervision is about
CONFLICTING = "helpful"  # the facet that pulls the other way
UNRELATED = "unrelated"  # a facet that neither helps nor pulls: a placebo
MIN_ROWS = 2  # in a split: one row has no standard error


class Pair(NamedTuple):
    """One preference example: `chosen` is the better answer to `prompt` in the sense of `facet`."""

    id: str  # 16 hex digits, a hash of the content: stable over files, orders and runs
    cluster: str  # rows that share a cluster are not independent (text: the prompt; world: the pair)
    split: str  # gt | w2s | test
    facet: str  # harmless | helpful | unrelated
    prompt: str
    chosen: str
    rejected: str
    stratum: str = ""  # true difficulty, where the source knows it (the embedded world)
    part: int = 0  # of the harmless w2s rows: 0 trains the last student, each earlier one of a chain has its own
    where: str = ""  # FILE:LINE, or NAME[ROW] counted from 0 (Parquet, hub), for a person to find it; generated: none


class Item(NamedTuple):
    """One example of classification: `text` belongs to the class `label`, one of those that its source declares."""

    id: str  # 16 hex digits, a hash of the content
    cluster: str  # items that share a cluster are not independent (of one question, say)
    split: str  # gt | w2s | test
    text: str
    label: int
    facet: str = TARGET  # items have one facet only
    stratum: str = ""
    part: int = 0
    where: str = ""


Example = TypeVar("Example", Pair, Item)


class Table(NamedTuple, Generic[Example]):
    """The rows of a source, and how many were dropped for which reason."""

    examples: list[Example]
    dropped: dict[str, int]

    def rows(self, split: str, facet: str = TARGET, part: int | None = 0) -> list[Example]:
        """The rows of one split, facet and part (None: of all parts), in the source's order."""
        wanted = (split, facet)
        return [x for x in self.examples if (x.split, x.facet) == wanted and (part is None or x.part == part)]

    def split(self, split: str) -> list[Example]:
        """All rows of a split, whatever their facet and part."""
        return [x for x in self.examples if x.split == split]


def place_of(example: Pair | Item) -> str:
    """What refusals call it: where it stands, or its id where nobody wrote it."""
    return example.where or f"{'item' if isinstance(example, Item) else 'pair'} {example.id}"


def reasons(dropped: Mapping[str, int]) -> str:
    """What was dropped, for refusals."""
    return ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n) or "none"


def texts_of(example: Pair | Item) -> tuple[str, ...]:
    """All that there is to read."""
    return (example.text,) if isinstance(example, Item) else (example.prompt, example.chosen, example.rejected)


def classes_of(source: Any) -> tuple[str, ...] | None:
    """The classes of a source of items, in the order of their labels; a source of pairs has none."""
    return getattr(source, "classes", None)


def drops_long(source: Any) -> bool:
    """Whether pairs with a response that does not fit are left out; a text with a class is cut, never left out."""
    return getattr(source, "long", None) == "drop" and not classes_of(source)


def read(source: Any) -> Table:
    """The table of a source, made once per process as long as its content stays the same."""
    return _read(source, canonical(identity(source)))


@lru_cache(maxsize=4)
def _read(source: Any, content: str) -> Table:
    return source.table()


def coin(pair_id: str) -> bool:
    """Whether the chosen answer goes into the second slot.

    Training rows are presented as (first, second) in an order that this coin decides, so that nothing that
    sees only rows and targets can read the truth from the order. It depends on the id alone: the same pair is
    presented the same way to every model.
    """
    return hashlib.sha256(b"slot\x1f" + pair_id.encode()).digest()[0] % 2 == 1


def draw(*parts: str) -> float:
    """A number in [0, 1), as if drawn at random, that these texts decide. 24 bits: float32 holds it exactly."""
    return int(digest("draw", *parts)[:6], 16) / 2**24


def clean(pairs: Iterable[Pair]) -> Table[Pair]:
    """Drop what must not be trained or tested on, and count it.

    Order matters and is fixed: pairs with equal sides, exact duplicates (same id within a facet), then clusters
    that appear in more than one split. A leaking cluster stays where it can do least harm to the measurement:
    test first, then w2s, then gt; the other splits lose it.
    """
    kept: dict[tuple[str, str, str], Pair] = {}
    dropped = {"equal_sides": 0, "duplicates": 0}
    for pair in pairs:
        key = (pair.split, pair.facet, pair.id)
        if pair.chosen == pair.rejected:
            dropped["equal_sides"] += 1
        elif key in kept:
            dropped["duplicates"] += 1
        else:
            kept[key] = pair
    rows = _without_leaks(list(kept.values()))
    return Table(rows, dropped | {"leaks": len(kept) - len(rows)})


def clean_items(items: Iterable[Item]) -> Table[Item]:
    """The same for items, whose id knows their text but not their label: one text of two classes is dropped whole."""
    kept: dict[tuple[str, str], Item] = {}
    n: Counter[tuple[str, str]] = Counter()
    contradicted = set()
    for item in items:
        key = (item.split, item.id)
        n[key] += 1
        if kept.setdefault(key, item).label != item.label:
            contradicted.add(key)
    whole = [item for key, item in kept.items() if key not in contradicted]
    rows = _without_leaks(whole)
    dropped = {"contradictions": sum(n[key] for key in contradicted)}
    dropped["duplicates"] = n.total() - len(whole) - dropped["contradictions"]
    return Table(rows, dropped | {"leaks": len(whole) - len(rows)})


def _without_leaks(rows: list[Example]) -> list[Example]:
    """The rows whose cluster is at home in their split."""
    home: dict[str, str] = {}
    for split in reversed(SPLITS):
        for row in rows:
            if row.split == split:
                home.setdefault(row.cluster, split)
    return [row for row in rows if home[row.cluster] == row.split]
