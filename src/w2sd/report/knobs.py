"""Which knobs tell the rows of a frame apart, and which are worth saying once."""

from __future__ import annotations

import re

import pandas as pd

from w2sd.config import known_class
from w2sd.data.formats import Format
from w2sd.report.notation import knob

# what may differ between runs without making the result another: named last, and only where nothing else helps
RUNTIME = (
    "store",
    "out",
    "plan_only",
    "force",
    "launch",
    "jobs",
    "trusted",
    "traceback",
    "trainer",
    "logger",
    "samples",
)


def text(frame: pd.DataFrame, column: str) -> list[str]:
    """The column as it is written in tables: one text per row."""
    return [knob(None if _missing(value) else value) for value in frame[column]]


def telling(frame: pd.DataFrame) -> list[str]:
    """The columns that tell the rows apart: what was set by hand and varies, then whatever is still needed.

    A knob that only follows those already named (the fields of a part that was exchanged) adds nothing and is left
    out; of those that add something, the one that tells most rows apart comes first.
    """
    columns = {column: text(frame, column) for column in ("name", *frame.attrs["knobs"], "id")}
    varying = {column: cells for column, cells in columns.items() if len(set(cells)) > 1}
    chosen = [c for c in ("name", *overridden(frame)) if c in varying and not _runtime(c)]
    rows = list(zip(*(varying[column] for column in chosen), strict=True)) if chosen else [()] * len(frame)

    def gain(column: str) -> int:
        return len({(*row, cell) for row, cell in zip(rows, varying[column], strict=True)}) - len(set(rows))

    while useful := [column for column in varying if gain(column) > 0]:
        best = min(useful, key=lambda column: (*_rank(column), -gain(column), column.count("."), column))
        chosen.append(best)
        rows = [(*row, cell) for row, cell in zip(rows, varying[best], strict=True)]
    return chosen


def shared(frame: pd.DataFrame) -> dict[str, str]:
    """What is the same in every row and worth saying once: the experiment, and whatever was set by hand."""
    values = {c: set(text(frame, c)) for c in dict.fromkeys(("name", *overridden(frame))) if not _runtime(c)}
    return {c: only.pop() for c, only in values.items() if len(only) == 1 and not _has_varying_field(frame, c)}


def overridden(frame: pd.DataFrame) -> list[str]:
    """The columns that some command line set, in the order of first mention; `model@weak=x` sets `weak`."""
    keys = (
        re.sub(r"^.*@", "", override.lstrip("+~").partition("=")[0]) for row in frame["overrides"] for override in row
    )
    return [key for key in dict.fromkeys(keys) if key in frame.attrs["knobs"]]


def is_seed(column: str) -> bool:
    """Whether rows that differ in this knob alone are repetitions of each other."""
    return column == "id" or re.search(r"(^|[._])seed$", column) is not None


def unit(frame: pd.DataFrame) -> str:
    """What is counted in these jobs: pairs, or rows where some have data with classes."""
    columns = [text(frame, column) for column in ("data.format._target_", "data._target_") if column in frame]
    for targets in set(zip(*columns, strict=True)):  # a format tells; a source without one is all there is to ask
        known = [found for target in targets if (found := known_class({"_target_": target}))]
        if known and getattr(known[0], "classes", Format.classes) is not Format.classes:  # a format of pairs has none
            return "rows"
    return "pairs"


def same(one: str, other: str) -> bool:
    """Whether two texts mean the same value: equal, or equal as numbers."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def order(values: tuple[str, ...]) -> list[tuple[int, float, str]]:
    """A sorting key under which numbers come in their own order and before words."""
    keys = []
    for value in values:
        try:
            keys.append((0, float(value), ""))
        except ValueError:
            keys.append((1, 0.0, value))
    return keys


def _rank(column: str) -> tuple[bool, bool, bool]:
    return column == "id", _runtime(column), is_seed(column)


def _has_varying_field(frame: pd.DataFrame, part: str) -> bool:
    fields = (column for column in frame.attrs["knobs"] if column.startswith(f"{part}."))
    return any(len(set(text(frame, field))) > 1 for field in fields)


def _runtime(column: str) -> bool:
    return column.partition(".")[0] in RUNTIME


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value
