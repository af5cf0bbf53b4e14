"""How fast stages read their data: a line per kind, of those that train or score."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import pandas as pd

from w2sd.report import notation
from w2sd.report.tables import Table

HEADS = ("kind", "stages", "pairs/CPU-s", "tokens/s", "padding", "packed", "peak MB")
NOTE = (
    "Medians over stages, peaks their largest; from the end of a stage's first batch to the end of its last. Documents "
    "and answers where there are no pairs. Packed: rows without padding, each prompt once. Stages that ran in one "
    "process share its peak."
)


def table(stages: pd.DataFrame) -> Table | None:
    """The kinds among these stages that tell how fast they were, from cause to effect; None where none does."""
    told = stages[stages["padding"].notna()]
    if not len(told):
        return None
    on_gpu = bool(told["peak_gpu_mb"].notna().any())
    rows = []
    for kind, part in told.groupby("kind", sort=False):
        cells = [_of(part["pairs_per_cpu_s"], _rate), _of(part["tokens_per_s"], _rate)]
        cells += [_of(part["padding"], notation.percent), _packed(part["packed"])]
        cells += [_of(part[peak], _rate, max) for peak in ("peak_rss_mb", "peak_gpu_mb")[: 1 + on_gpu]]
        rows.append((str(kind), str(len(part)), *cells))
    return Table("", (*HEADS, "on GPU")[: len(HEADS) + on_gpu], tuple(rows), (NOTE,))


def _of(column: pd.Series, write: Callable[[float], str], summary: Callable[[Iterable[float]], float] = median) -> str:
    known: list[Any] = [value for value in column if not pd.isna(value)]
    return write(summary(known)) if known else notation.NOTHING


def _packed(column: pd.Series) -> str:
    known = [bool(value) for value in column if not pd.isna(value)]
    if len(set(known)) > 1:
        return f"{sum(known)} of {len(known)}"
    return ("yes" if known[0] else "no") if known else notation.NOTHING


def _rate(value: float) -> str:
    return notation.number(float(value) if value < 10 else round(value))
