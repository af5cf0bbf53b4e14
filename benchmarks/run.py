"""w2sd beside TRL's public trainers on identical work, in one interleaved run. Prints Markdown.

    python benchmarks/run.py [--cases small-single mid-single] [--objectives reward dpo] [--repeats 3] [--pairs N]
    python benchmarks/run.py --tune          # what was tried to find TRL's best settings

Every measurement is a process of its own; the two sides take turns, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from itertools import product
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import timing
import work
from table import Measured, render

HERE = Path(__file__).parent
STEPS, TOLERANCE = "4", 1e-4  # how many are compared, and how far apart the two losses of one may be, relatively
PAIRS = {"single": 512, "multi": 256}
PARTS = ("train", "evaluate", "reference")
TRIED = (  # beside the best, where nobody knows yet which it is
    {"micro": 2, "evaluate": 2},
    {"micro": 4, "evaluate": 4},
    {"micro": 8, "evaluate": 8},
    {"micro": 16, "evaluate": 16},
    {"micro": 4, "evaluate": 4, "sampling": "random"},
    {"micro": 4, "evaluate": 4, "attention": "eager"},
)


class Case(NamedTuple):
    """One size of model on one kind of data."""

    size: str
    data: str


OBJECTIVES = ("reward", "simpo", "dpo")
CASES = {
    f"{size}-{data}": Case(size, data)
    for size, data in (("tiny", "single"), ("small", "single"), ("small", "multi"), ("mid", "single"))
}


def say(line: str) -> None:
    """Progress, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def ours(given: work.Work, objective: str, *more: str) -> Any:
    return json.loads(timing.run(str(HERE / "ours.py"), str(given.folder), objective, *more).output.splitlines()[-1])


def theirs(given: work.Work, objective: str, *more: str) -> Any:
    found = timing.run(str(HERE / "trl_peer.py"), str(given.folder), objective, *more)
    return json.loads(found.output.splitlines()[-1])


def check(given: work.Work, objective: str) -> None:
    """Refuse to time what is not the same work: the losses of the first steps have to agree."""
    left, right = ours(given, objective, "--check", STEPS), theirs(given, objective, "--check", STEPS)
    apart = max(abs(a - b) / abs(b) for a, b in zip(left, right, strict=True))
    say(f"  {objective}: losses of {len(left)} steps agree to {apart:.1e} ({', '.join(f'{x:.4f}' for x in left)})")
    if apart > TOLERANCE:
        raise SystemExit(f"{objective}: w2sd's losses {left} are not TRL's {right}; nothing was timed")


def compare(given: work.Work, objectives: list[str], repeats: int) -> list[Measured]:
    """All measurements, taking turns; a ceiling in each turn."""
    found: list[Measured] = []
    for turn in range(repeats):
        for objective in objectives:
            sides = [("w2sd", ours, objective), ("TRL", theirs, objective)]
            if objective == "dpo":
                sides.append(("TRL", theirs, "dpo-cached"))
            for side, measure, name in sides[:: 1 if turn % 2 else -1]:
                one = measure(given, name)
                if (one["pairs"], one["tokens"]) != (len(given.pairs), given.tokens):
                    raise SystemExit(f"{side} read {one['tokens']} tokens of {one['pairs']} pairs, not {given.tokens}")
                found.append(Measured(side, name, turn, one["pairs"], one["seconds"], one["peak_mb"]))
                say(f"  turn {turn + 1}: {side} {name} {seconds(one)}, {one['peak_mb']} MB")
        found.append(Measured("ceiling", "", turn, 0, {"operations": timing.ceiling()}, 0))
    return found


def seconds(one: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in one["seconds"].items())


def tune(given: work.Work, objectives: list[str], repeats: int) -> list[str]:
    """TRL's rates under every option that was thought of, taking turns."""
    names = [name for objective in objectives for name in {"dpo": ["dpo", "dpo-cached"]}.get(objective, [objective])]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn, name, options in product(range(repeats), names, TRIED):
        one = theirs(given, name, "--options", json.dumps(options))
        found.setdefault((name, ", ".join(f"{option} {value}" for option, value in options.items())), []).append(one)
        say(f"  turn {turn + 1}: {name} {options} {seconds(one)}")
    lines = [
        "| objective | options | pairs per CPU-second: training | evaluation | reference |",
        "|---|---|---|---|---|",
    ]
    for (name, options), turns in found.items():
        parts = [[one["pairs"] / one["seconds"].get(part, inf) for one in turns] for part in PARTS]
        lines.append(f"| {name} | {options} | {' | '.join(f'{median(part):.1f}' for part in parts)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="how many, a multiple of 32; otherwise 512, and 256 of several turns")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes here")
    asked = parser.parse_args()
    lacking = [name for name in ("trl", "accelerate") if importlib.util.find_spec(name) is None]
    if lacking:
        raise SystemExit(f"the benchmark needs {', '.join(lacking)}: make setup EXTRAS=bench")
    if asked.pairs is not None and (asked.pairs < 4 * work.BATCH or asked.pairs % work.BATCH):
        parser.error(f"--pairs {asked.pairs}: a multiple of {work.BATCH}, {4 * work.BATCH} or more")
    for name in asked.cases:
        size, data = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            given = work.build(Path(folder), size, data, asked.pairs or PAIRS[data])
            n = len(given.pairs)
            say(f"{name}: {n} pairs of {given.origin}, {given.tokens / n:.1f} tokens each, prompts counted twice")
            if asked.tune:
                print("\n".join([f"\n**{name}**, {n} pairs", "", *tune(given, asked.objectives, asked.repeats)]))
                continue
            if asked.profile:
                print("\n".join(f"{name}, {each}: {ours(given, each, '--profile')}" for each in asked.objectives))
                continue
            for objective in asked.objectives:
                check(given, objective)
            print("\n".join(render(name, given, compare(given, asked.objectives, asked.repeats))), flush=True)


if __name__ == "__main__":
    main()
