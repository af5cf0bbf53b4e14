"""What a program costs: its own CPU time and memory, and those of the processes it waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

# One thread, and no name looked up: what differs between two runs shall be the program alone.
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


class Cost(NamedTuple):
    """Of one run of a program."""

    cpu_s: float
    peak_mb: int
    output: str


def run(*arguments: str) -> Cost:
    """Run Python with these arguments; a failure ends the benchmark and shows what the program said."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=complained, env=os.environ | QUIET)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (said, complained):
            file.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{said.read()}\n{complained.read()}")
        unit = 1024**2 if sys.platform == "darwin" else 1024
        return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss // unit, said.read())


def ceiling(size: int = 1024, times: int = 20) -> float:
    """fp32 matrix products on one thread, in operations per CPU-second: the most that a model could reach."""
    import torch

    torch.set_num_threads(1)
    left, right = torch.randn(2, size, size)
    left @ right
    began = time.process_time()
    for _ in range(times):
        left @ right
    return 2 * size**3 * times / (time.process_time() - began)
