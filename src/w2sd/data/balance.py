"""As many texts of one class as of every other, and no more than asked for: samples that a hash of the text draws.

Neither the order of a file (many are sorted by class) nor a seed decides which texts are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from w2sd.data.files import MIN_ROWS
from w2sd.data.pairs import Item
from w2sd.errors import Refused
from w2sd.identity import digest

SHOWN = 5  # classes in a refusal


def in_hash_order(items: Iterable[Item], units: Mapping[str, str]) -> list[Item]:
    """Unit by unit, so that what is taken from the front of every class belongs together."""
    return sorted(items, key=lambda item: (digest("take", units[item.id]), item.id))


def evened(items: Sequence[Item], group: Callable[[Item], Hashable], n_classes: int) -> list[Item]:
    """In each group the first of every class, as many as of the class that has the fewest there."""
    n = Counter((group(item), item.label) for item in items)
    most = {key: min(n[key, label] for label in range(n_classes)) for key, _ in n}
    return first(items, lambda item: (group(item), item.label), lambda key: most[key[0]])


def first(items: Iterable[Item], group: Callable[[Item], tuple], most: Callable[[tuple], int]) -> list[Item]:
    """In each group the first `most`."""
    seen: Counter[tuple] = Counter()
    kept = []
    for item in items:
        key = group(item)
        seen[key] += 1
        if seen[key] <= most(key):
            kept.append(item)
    return kept


def refuse_lacking(
    items: Iterable[Item],
    classes: Sequence[str],
    knobs: Mapping[str, tuple[str, object]],
    w2s_parts: int,
    dropped: Mapping[str, int],
) -> None:
    """Refuse a split, or a part of w2s, with hardly a text of some class; `knobs` name what is at fault."""
    n = Counter((item.split, item.part, item.label) for item in items)
    for split, (knob, value) in knobs.items():
        for part in range(w2s_parts if split == "w2s" else 1):
            found = sorted((n[split, part, label], label) for label in range(len(classes)))
            if found[0][0] < MIN_ROWS:
                place = f"split {split}" + (f", part {part}" if split == "w2s" and w2s_parts > 1 else "")
                counts = ", ".join(f"{count} of {classes[label]!r}" for count, label in found[:SHOWN])
                why = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
                more = ", ..." if len(classes) > SHOWN else ""
                accepted = f"at least {MIN_ROWS} texts of each class for {place}, found {counts}{more}"
                raise Refused(knob, value, f"{accepted} (dropped in all: {why})")
