"""What one arm costs in CPU time, by objective: what the stages of the jobs in a store took.

    python benchmarks/arm_cost.py STORE

The first arm of a seed is everything from the teacher's labels to the student's predictions. Every other arm of that
seed finds labels, fine-tuning and references in the store: what is left is training and evaluation.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from w2sd.pipeline.store import Store, read_json

KINDS = ("label", "sft", "reference", "train", "evaluate")
ONCE_MORE = ("train", "evaluate")
OF_LABELS = ("label/weak", "reference/weak_w2s")


def costs(root: Path) -> dict[str, list[dict[str, float]]]:
    """By objective, for each job of the store: the CPU-seconds of the student's arm by kind of stage."""
    store, found = Store(root), defaultdict(list)
    for path in sorted((root / "jobs").glob("*.json")):
        job, cost = read_json(path), dict.fromkeys(KINDS, 0.0)
        for name, stage in job["stages"].items():
            kind, _, role = name.partition("/")
            if kind in KINDS and (name in OF_LABELS or role.startswith("student")):
                cost[kind] += store.read(kind, stage["key"], "runtime.json")["cpu_seconds"]
        found[job["choices"]["objective"]].append(cost)
    return found


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
    print(table(costs(Path(sys.argv[1]))))
