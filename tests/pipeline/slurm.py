"""A job of SLURM's on this machine, as far as w2sd looks at one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SRUN = """#!{python}
import itertools
import os
import signal
import subprocess
import sys
import time

options = list(itertools.takewhile(lambda word: word.startswith("--"), sys.argv[1:]))
said = dict(option[2:].split("=") for option in options)
assert said["nodes"] == said["ntasks"] and said["ntasks-per-node"] == "1", said
with open({record!r}, "a") as record:
    record.write(" ".join(options) + "\\n")
tasks = []
for n in range(int(said["nodes"])):
    place = {{"SLURM_NODEID": str(n), "SLURM_PROCID": str(n), "SLURM_NTASKS": said["ntasks"], "SLURM_LOCALID": "0"}}
    tasks.append(subprocess.Popen(sys.argv[1 + len(options) :], env={{**os.environ, **place}}))


def end(*_):
    for task in tasks:
        task.terminate()


signal.signal(signal.SIGTERM, end)
while any(task.poll() is None for task in tasks):
    if said["kill-on-bad-exit"] == "1" and any(task.poll() for task in tasks):
        end()
    time.sleep(0.02)
sys.exit(max(abs(task.returncode) for task in tasks))
"""


def job(n_nodes: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have what follows run in a job of so many nodes, all of them this machine. Returns the record of its steps."""
    record, srun = place / "steps", place / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable, record=str(record)))
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", str(n_nodes))
    monkeypatch.setenv("SLURMD_NODENAME", "localhost")
    return record
