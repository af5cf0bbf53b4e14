"""What the verdict found and where it erred in embedded worlds, by the size of a study: a table that came of runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_suffix(".csv")


class Size(NamedTuple):
    """How the verdict did in studies of one size."""

    worlds: int
    seeds: int  # in each arm of each world
    false_alarms: int  # `shown` without a conflict
    null_studies: int
    dose: float | None  # the smallest of planted errors that is shown in 80% of studies; None if none of the doses is


def size_at_most(n_worlds: int, n_seeds: int, table: Path = TABLE) -> Size | None:
    """The largest tabled size with no more worlds and no more seeds in each arm; None if there is none."""
    with table.open(encoding="utf-8", newline="") as file:
        sizes = [_size(*row.values()) for row in csv.DictReader(file)]
    fitting = [size for size in sizes if size.worlds <= n_worlds and size.seeds <= n_seeds]
    return max(fitting, key=lambda size: (size.worlds * size.seeds, size.worlds), default=None)


def _size(worlds: str, seeds: str, false_alarms: str, null_studies: str, dose: str) -> Size:
    return Size(int(worlds), int(seeds), int(false_alarms), int(null_studies), float(dose) if dose else None)
