"""Which knobs tell the rows of a frame apart, and which are worth saying once."""

from __future__ import annotations

import re

import pandas as pd

from w2sd.report.notation import knob

# what may differ between runs without making the result another: named last, and only where nothing else helps
RUNTIME = ("store", "out", "plan_only", "force", "launch", "trusted", "traceback", "trainer", "logger")


def text(frame: pd.DataFrame, column: str) -> list[str]:
    """The column as it is written in tables: one text per row."""
    return [knob(None if _missing(value) else value) for value in frame[column]]


def telling(frame: pd.DataFrame) -> list[str]:
    """The columns that tell the rows apart: what was set by hand and varies, then whatever is still needed.

    A knob that only follows one already named (the fields of a part that was exchanged) adds nothing and is left out.
    """
    varying = [column for column in ("name", *frame.attrs["knobs"]) if len(set(text(frame, column))) > 1]
    by_hand = [column for column in overridden(frame) if column in varying and not _runtime(column)]
    chosen: list[str] = []
    cells = [""] * len(frame)
    for column in dict.fromkeys(("name", *by_hand, *sorted(varying, key=_rank), "id")):
        finer = [f"{cell}\0{value}" for cell, value in zip(cells, text(frame, column), strict=True)]
        if column in by_hand or len(set(finer)) > len(set(cells)):
            chosen.append(column)
            cells = finer
    return chosen


def shared(frame: pd.DataFrame) -> dict[str, str]:
    """What is the same in every row and worth saying once: the experiment, and whatever was set by hand."""
    columns = dict.fromkeys(("name", *overridden(frame)))
    values = {column: set(text(frame, column)) for column in columns if not _runtime(column)}
    return {column: only.pop() for column, only in values.items() if len(only) == 1}


def overridden(frame: pd.DataFrame) -> list[str]:
    """The columns that some command line set, in the order of first mention; `model@weak=x` sets `weak`."""
    keys = (
        re.sub(r"^.*@", "", override.lstrip("+~").partition("=")[0]) for row in frame["overrides"] for override in row
    )
    return [key for key in dict.fromkeys(keys) if key in frame.attrs["knobs"]]


def is_seed(column: str) -> bool:
    """Whether rows that differ in this knob alone are repetitions of each other."""
    return column == "id" or re.search(r"(^|[._])seed$", column) is not None


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


def _rank(column: str) -> tuple[bool, bool, int, str]:
    return _runtime(column), is_seed(column), column.count("."), column


def _runtime(column: str) -> bool:
    return column.partition(".")[0] in RUNTIME


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value
