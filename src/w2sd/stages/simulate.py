"""Stage `simulate`: a theory in its own toy. There are no models, no data, and no torch."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2sd.task import Task


def run(task: Task) -> dict[str, Any]:
    """Write `curves.csv`, every point of the simulation in a line of its own; return the flat figures."""
    found = task.params["theory"].simulate(task.params["seed"], task.advance)
    with (task.out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(found.curves)
        writer.writerows(zip(*found.curves.values(), strict=True))
    return dict(found.metrics)
