"""Whatever kills a run, its processes end with it, and hold the locks of their stages until then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import w2sd
from w2sd.pipeline import locks

PATIENCE_S = 10.0
STUBBORN = """
import os, signal, sys, time, types

def run(task):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (task.work / f"pid_{os.getpid()}").touch()
    time.sleep(600)

stage = types.ModuleType("w2sd.stages.pretrain")
stage.run = run
engine = types.ModuleType("w2sd.stages.engine")
engine.has_gpu = lambda: False
preflight = types.ModuleType("w2sd.stages.preflight")
preflight.check, preflight.device = lambda config: None, lambda trainer: "cpu"
sys.modules.update({module.__name__: module for module in (stage, engine, preflight)})
"""

GROUP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
CASES = [
    pytest.param(("launch=process",), 1, "run", id="process"),
    pytest.param(("-m", "hydra/launcher=two_jobs", "seed=0,1"), 2, "run", id="two_jobs"),
    pytest.param(GROUP, 2, "run", id="group", marks=pytest.mark.ddp),
    pytest.param(GROUP, 2, "agent", id="agent", marks=pytest.mark.ddp),
]


def processes() -> dict[int, tuple[int, str]]:
    """Of each living process its parent and its command, as `ps` has them."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    return {int(pid): (int(parent), *args) for pid, parent, state, *args in rows if not state.startswith("Z")}  # type: ignore[misc]


def below(root: int) -> dict[int, str]:
    """The commands of a process and of all that descend from it."""
    known = processes()
    family = {root}
    while more := {pid for pid, (parent, *_) in known.items() if parent in family} - family:
        family |= more
    return {pid: known[pid][1] for pid in family & known.keys()}


@pytest.mark.parametrize(("words", "n_workers", "killed"), CASES)
def test_no_process_outlives_the_one_that_started_it(
    words: tuple[str, ...], n_workers: int, killed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUBBORN)  # what every interpreter reads first
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(w2sd.__file__).parents[1]}")
    store = tmp_path / "store"
    command = [sys.executable, "-m", "w2sd", *words, "debug=fast", f"store={store}", f"out={tmp_path / 'report'}"]
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(command, stdout=said, stderr=said)
    deadline = time.monotonic() + 60
    while len(list(store.glob("work/*/pid_*"))) < n_workers:
        assert run.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = below(run.pid)
    [root] = (
        [pid for pid, args in family.items() if "torch.distributed.run" in args] if killed == "agent" else [run.pid]
    )
    os.kill(root, signal.SIGKILL)
    since = time.monotonic()
    workers = {int(path.name.removeprefix("pid_")) for path in store.glob("work/*/pid_*")}
    if killed == "run":
        run.wait()
        for path in (store / "locks").iterdir() if "launch=process" in words else ():
            assert workers <= processes().keys()
            assert locks.take(path) is None  # the worker has it
    if killed == "agent":
        family.pop(run.pid)  # which says why it ends
    while family.keys() & processes().keys() and time.monotonic() - since < PATIENCE_S:
        time.sleep(0.2)
    left = {pid: args for pid, args in family.items() if pid in processes()}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}
    for path in (store / "locks").glob("*"):
        assert locks.take(path) is not None
    if killed == "agent":
        assert run.wait() == 1
        assert re.search(r"^w2sd: pretrain: the worker ended with code -9; .*$", (tmp_path / "said").read_text(), re.M)


JOB = """
import multiprocessing, os, sys, time
from w2sd import cli
from w2sd.signals import POLL_S

def _run(*_):
    time.sleep(2 * POLL_S)
    print(os.getpid(), flush=True)
    time.sleep(600)

cli._run = _run

if __name__ == "__main__":
    job = multiprocessing.get_context(sys.argv[1]).Process(target=cli.run, args=(None,))
    job.start()
    job.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_job_of_any_launcher_lives_as_long_as_the_run_and_no_longer(method: str, tmp_path: Path) -> None:
    """A server of forks is its parent as the system has it; the run is not."""
    (tmp_path / "job.py").write_text(JOB)
    with subprocess.Popen([sys.executable, str(tmp_path / "job.py"), method], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        job = int(run.stdout.readline())
        run.kill()
    since = time.monotonic()
    while job in processes() and time.monotonic() - since < PATIENCE_S:
        time.sleep(0.2)
    assert job not in processes()
