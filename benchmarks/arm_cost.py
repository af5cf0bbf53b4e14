"""What one arm costs in CPU time, by objective: what the stages of the jobs in a store took.

    python benchmarks/arm_cost.py STORE

The first arm of a seed is everything from the teacher's labels to the student's predictions. Every other arm of that
seed finds labels, fine-tuning and references in the store: what is left is training and evaluation. A store whose jobs
differ in more than their seeds, or in more between arms than these are made of, has no one cost and is refused.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from w2sd.atomic import read_sealed
from w2sd.errors import Refused
from w2sd.pipeline.store import Store
from w2sd.report.knobs import RUNTIME, is_seed

KINDS = ("label", "sft", "reference", "train", "evaluate")
ONCE_MORE = ("train", "evaluate")
OF_AN_ARM = ("objective", "fit", "sft")  # what may differ between arms, and not within one
FREE = {*RUNTIME, "name"} - {"trainer"}  # what costs nothing
OF_LABELS = ("label/weak", "reference/weak_w2s")


def costs(root: Path) -> dict[str, list[dict[str, float]]]:
    """By objective, for each job of the store: the CPU-seconds of the student's arm by kind of stage."""
    store, found, machines = Store(root), defaultdict(list), set()
    jobs = [read_sealed(path) for path in sorted((root / "jobs").glob("*.json"))]
    refuse_mixed(root, jobs)
    for job in jobs:
        cost = dict.fromkeys(KINDS, 0.0)
        for name, stage in job["stages"].items():
            kind, _, role = name.partition("/")
            if kind in KINDS and (name in OF_LABELS or role.startswith("student")):
                runtime = store.read(kind, stage["key"], "runtime.json")
                cost[kind] += runtime["cpu_seconds"]
                machines.add(runtime["hardware"]["cpu"])
        found[job["choices"]["objective"]].append(cost)
    if len(machines) > 1:
        raise Refused("STORE", str(root), f"stages that ran on one kind of processor; these on {sorted(machines)}")
    return found


def refuse_mixed(root: Path, jobs: list[dict[str, Any]]) -> None:
    """Refuse jobs whose medians would be of nothing in particular, by the knobs that tell them apart."""
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # values by arm and knob
    for job in jobs:
        arm = job["choices"]["objective"]
        for knob, value in _knobs({name: value for name, value in job["config"].items() if name not in FREE}):
            seen[arm if knob.partition(".")[0] in OF_AN_ARM else "", knob].add(repr(value))
    if mixed := sorted({knob for (_, knob), values in seen.items() if len(values) > 1}):
        accepted = f"jobs that differ in seeds and arms alone; these differ in {', '.join(mixed)}"
        raise Refused("STORE", str(root), accepted)


def _knobs(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _knobs(value, f"{prefix}{name}.")
        elif not is_seed(prefix + name):
            yield prefix + name, value


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over jobs, in Markdown; the arm that costs least comes first and is what the others are held to."""
    rows = {name: {kind: median(job[kind] for job in jobs) for kind in KINDS} for name, jobs in found.items()}
    first = {name: sum(row.values()) for name, row in rows.items()}
    again = {name: sum(row[kind] for kind in ONCE_MORE) for name, row in rows.items()}
    order = sorted(rows, key=lambda name: first[name])
    heads = ["arm", "jobs", *KINDS, "first arm of a seed", "train + evaluate"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name in order:
        cells = [name, str(len(found[name])), *(f"{cost:.2f}" if cost else "" for cost in rows[name].values())]
        cells += [f"{total[name]:.2f} ({total[name] / total[order[0]]:.2f}×)" for total in (first, again)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(table(costs(Path(sys.argv[1]))))
    except Refused as refusal:
        sys.exit(str(refusal))
