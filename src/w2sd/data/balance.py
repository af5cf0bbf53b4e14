"""As many texts of one class as of every other, and no more than asked for: samples that a hash of the text draws.

Neither the order of a file (many are sorted by class) nor a seed decides which texts are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from w2sd.data.pairs import MIN_ROWS, SPLITS, Example, Item, Table, reasons
from w2sd.errors import Refused
from w2sd.identity import digest

SHOWN = 5  # classes in a refusal


def sample(
    rows: list[Item],
    units: Mapping[str, str],
    dropped: dict[str, int],
    knobs: Mapping[str, tuple[str, object]],
    classes: Sequence[str],
    paired: bool,
    balance: bool,
    limit: int,
    w2s_parts: int,
) -> Table[Item]:
    """The rows that remain when classes are balanced and no split has more than the limit, in their order.

    Args:
        units: of every id, what is drawn as one: the text, or the question that it is an answer to.
        dropped: what was dropped before, by reason.
        knobs: of every split, the knob and value that a refusal names.
        paired: whether a unit has as many texts of one class as of every other.
    """
    n = len(classes)
    drawn = sorted(rows, key=lambda item: (digest("take", units[item.id]), item.id))  # unit by unit in every class
    if balance and paired:
        drawn = evened(drawn, lambda item: units[item.id], n)
    so_far = dropped | {"unbalanced": len(rows) - len(drawn)}
    refuse_lacking([item._replace(part=0) for item in drawn], classes, knobs, 1, so_far)
    by_parts = dict.fromkeys(SPLITS, ("data.w2s_parts", w2s_parts))
    refuse_lacking(drawn, classes, by_parts, w2s_parts, so_far)
    if balance:
        drawn = evened(drawn, lambda item: (item.split, item.part), n)
    kept = drawn
    if limit and balance:
        kept = first(drawn, lambda item: (item.split, item.part, item.label), lambda _: limit // n)
    elif limit:
        kept = first(drawn, lambda item: (item.split, item.part), lambda _: limit)
    dropped |= {"unbalanced": len(rows) - len(drawn), "over_limit": len(drawn) - len(kept)}
    by_limit = dict.fromkeys(SPLITS, ("data.limit", limit))  # what is lacking only now
    refuse_lacking(kept, classes, by_limit, w2s_parts, dropped)
    ids = {item.id for item in kept}
    return Table([item for item in rows if item.id in ids], dropped)


def evened(items: Sequence[Item], group: Callable[[Item], Hashable], n_classes: int) -> list[Item]:
    """In each group the first of every class, as many as of the class that has the fewest there."""
    n = Counter((group(item), item.label) for item in items)
    most = {key: min(n[key, label] for label in range(n_classes)) for key, _ in n}
    return first(items, lambda item: (group(item), item.label), lambda key: most[key[0]])


def first(
    examples: Iterable[Example], group: Callable[[Example], tuple], most: Callable[[tuple], int]
) -> list[Example]:
    """In each group the first `most`."""
    seen: Counter[tuple] = Counter()
    kept = []
    for example in examples:
        key = group(example)
        seen[key] += 1
        if seen[key] <= most(key):
            kept.append(example)
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
            by_class = sorted((n[split, part, label], label) for label in range(len(classes)))
            if by_class[0][0] < MIN_ROWS:
                place = f"split {split}" + (f", part {part}" if split == "w2s" and w2s_parts > 1 else "")
                counts = ", ".join(f"{count} of {classes[label]!r}" for count, label in by_class[:SHOWN])
                more = ", ..." if len(classes) > SHOWN else ""
                accepted = f"at least {MIN_ROWS} texts of each class for {place}, found {counts}{more}"
                raise Refused(knob, value, f"{accepted} (dropped in all: {reasons(dropped)})")
