"""What the command line costs: its start, and a sweep beside its jobs run one by one. Prints two Markdown tables.

python benchmarks/commands.py [--repeats 3] [--fast]
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from statistics import median

from timing import run

STARTS = (["--help"], ["--cfg", "job"], ["plan_only=true"])
CONFLICTS, SEEDS = ("none", "implicit", "explicit"), ("0", "1", "2")


def w2sd(folder: Path, *arguments: str) -> float:
    """CPU-seconds of a `w2sd` command with a store in `folder`."""
    return run("-m", "w2sd", *arguments, f"store={folder / 'store'}", f"out={folder / 'report'}").cpu_s


def starts(repeats: int) -> list[str]:
    """A table of what answers without computing anything."""
    lines = ["| command | CPU-seconds (lowest to highest) |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for command in STARTS:
            costs = [w2sd(Path(folder), *command) for _ in range(repeats)]
            lines.append(f"| `w2sd {' '.join(command)}` | {median(costs):.2f} ({min(costs):.2f} to {max(costs):.2f}) |")
    return lines


def sweep(*knobs: str) -> list[str]:
    """A table of nine jobs on the embedded world: as one sweep, as that sweep again, and each with a store alone."""
    swept = ["-m", f"conflict={','.join(CONFLICTS)}", f"seed={','.join(SEEDS)}", *knobs]
    with tempfile.TemporaryDirectory() as folder:
        together = w2sd(Path(folder), *swept)
        made = artifacts(Path(folder))
        again = w2sd(Path(folder), *swept)
        if artifacts(Path(folder)) != made:
            raise SystemExit("the repeated sweep computed something that was there already")
    apart = 0.0
    for conflict, seed in product(CONFLICTS, SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            apart += w2sd(Path(folder), f"conflict={conflict}", f"seed={seed}", *knobs)
    return [
        "| 3 conflicts × 3 seeds | CPU-seconds | of nine jobs apart |",
        "|---|---|---|",
        f"| nine jobs, each with its own store | {apart:.0f} | 100% |",
        f"| one sweep ({len(made)} stages) | {together:.0f} | {together / apart:.0%} |",
        f"| the same sweep again (computes nothing) | {again:.0f} | {again / apart:.0%} |",
    ]


def artifacts(folder: Path) -> dict[str, int]:
    """Every finished stage, and when it was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("store/artifacts/*/spec.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fast", action="store_true", help="the sweep on small worlds (debug=fast)")
    asked = parser.parse_args()
    print("\n".join([*starts(asked.repeats), "", *sweep(*(["debug=fast"] if asked.fast else []))]), flush=True)


if __name__ == "__main__":
    main()
