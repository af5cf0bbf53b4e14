"""What torch.compile costs and gains in training. Prints a line of a Markdown table for each case.

python benchmarks/compiled.py [--sizes small mid] [--objectives reward] [--passes 5]

Two models with the same weights, one of them compiled, take turns over the same batches in one process, so that a busy
machine slows both alike. The first pass over the pairs is the one that compiles; gains are medians over the others.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch._inductor.config

import ours
import work
from w2sd.data.batch import PairRows
from w2sd.data.loader import Shuffled
from w2sd.models.prepare import compile_layers
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer

PAIRS = 256


def cpu_seconds() -> float:
    """Of this process, and of the compilers that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def a_pass(student: Any, optimiser: torch.optim.Optimizer, batches: list[Any]) -> tuple[float, float]:
    """One epoch: its CPU-seconds, and the loss of its last step."""
    began, loss = cpu_seconds(), 0.0
    for pieces in batches:
        optimiser.zero_grad()
        loss = 0.0
        for piece in pieces:
            part = student.losses(piece) / work.BATCH
            part.backward()
            loss += part.item()
        optimiser.step()
    return cpu_seconds() - began, loss


def measure(given: work.Work, size: str, objective: str, is_packed: bool, passes: int) -> str:
    """Rates with and without, what compiling took, and after how many steps it has paid."""
    encoded, n = ours.encode_all(given, len(given.pairs)), len(given.pairs)
    said = np.zeros((n, 2)) if objective == "dpo" else None
    rows = PairRows(
        encoded,
        np.zeros(n, bool),
        Trainer().micro_tokens,
        targets=np.ones(n),
        references=said,
        is_packed=is_packed,
    )
    batches = [rows[batch] for batch in Shuffled(n, work.BATCH, 0)]
    costs: list[list[float]] = [[], []]
    pairs = [ours.student_for(given, objective, Fit(), 1, 1, is_packed) for _ in costs]
    compile_layers(pairs[1].model.backbone)
    steps = [torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True) for student in pairs]
    for _ in range(passes):
        losses = []
        for student, optimiser, cost in zip(pairs, steps, costs, strict=True):
            seconds, loss = a_pass(student, optimiser, batches)
            cost.append(seconds)
            losses.append(loss)
        assert abs(losses[0] - losses[1]) < 1e-5 * abs(losses[0]), losses
    plain, fast = (median(cost[1:]) for cost in costs)
    gains = sorted(one / other for one, other in zip(*(cost[1:] for cost in costs), strict=True))
    compiling, a_step = costs[1][0] - fast, (plain - fast) / len(batches)
    pays = f"{compiling / a_step:,.0f}" if a_step > 0 else "never"
    layout, rates = "packed" if is_packed else "padded", f"{n / plain:.1f} | {n / fast:.1f}"
    gain = f"{median(gains):.2f} ({gains[0]:.2f}–{gains[-1]:.2f})"
    return f"| {size}, {objective}, {layout} | {rates} | {gain} | {compiling:.0f} | {pays} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=work.SHAPES, default=["small"])
    parser.add_argument("--objectives", nargs="+", choices=ours.OBJECTIVES, default=["reward"])
    parser.add_argument("--layouts", nargs="+", choices=("packed", "padded"), default=["packed", "padded"])
    parser.add_argument("--passes", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1  # in this process, whose time is taken
    torch._inductor.config.force_disable_caches = True  # a second run would find its programs on disk
    print("| | pairs per CPU-second | compiled | gain | CPU-seconds of compiling | steps until it has paid |")
    print("|---|---|---|---|---|---|")
    for size, objective, layout in product(asked.sizes, asked.objectives, asked.layouts):
        with tempfile.TemporaryDirectory() as folder:
            given = work.build(Path(folder), size, "single", PAIRS)
            torch.compiler.reset()
            print(measure(given, size, objective, layout == "packed", asked.passes), flush=True)


if __name__ == "__main__":
    main()
