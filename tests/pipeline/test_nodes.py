"""Where a group of several machines is refused, and the words that start one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.builders import refused
from w2sd.parts.trainer import Trainer
from w2sd.pipeline import checks, launch

TWO = Trainer(strategy="ddp", devices=4, nodes=2)
JOB = {"SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "a1"}


@pytest.fixture(autouse=True)
def _no_job_of_yours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*JOB, "SLURM_STEP_NUM_TASKS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "around",
    [
        {},
        {"SLURM_JOB_NUM_NODES": "2"},
        {**JOB, "SLURM_JOB_NUM_NODES": "1"},
        {**JOB, "SLURM_JOB_NUM_NODES": "4"},
        {**JOB, "SLURM_STEP_NUM_TASKS": "2"},
    ],
    ids=["no job", "asked for from elsewhere", "a smaller job", "a larger job", "every node for itself"],
)
def test_nodes_that_cannot_be_reached_are_refused(around: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    known = around.get("SLURM_JOB_NUM_NODES", "not set")
    with refused("trainer.nodes", 2, f"1 SLURM_JOB_NUM_NODES {known}"):
        checks.check_nodes(TWO)
    checks.check_nodes(Trainer(strategy="ddp", devices=4))


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_NUM_TASKS": "1"}], ids=["batch script", "interactive"])
def test_the_nodes_of_a_job_are_accepted(step: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**JOB, **step}.items():
        monkeypatch.setenv(name, value)
    checks.check_nodes(TWO)


def test_a_group_of_several_nodes_meets_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    words = launch.torchrun(TWO, "0123456789ab")
    assert words[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert words[words.index(sys.executable) :][:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d", "--rdzv-id=0123456789ab"} < {*words}
    assert {"--kill-on-bad-exit=1", "--export=ALL"} < {*words}  # none is left waiting, and all see the same variables
    assert any(re.fullmatch(r"--rdzv-endpoint=a1:\d+", word) for word in words)
    assert len({word for _ in range(4) for word in launch.torchrun(TWO, "0") if "endpoint" in word}) > 1  # a free port
    assert "--standalone" not in words
    assert words.index(launch.NAMED) < words.index(sys.executable)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert "--cpus-per-task=8" in launch.torchrun(TWO, "0123456789ab")


@pytest.mark.parametrize(("place", "is_first"), [("0", "true"), ("1", "false")])
def test_every_node_is_told_its_name_and_whether_the_others_meet_there(place: str, is_first: str) -> None:
    script = "import os; print(os.environ['PET_LOCAL_ADDR'], os.environ['PET_RDZV_CONF'])"
    words = ["sh", "-c", launch.NAMED, "sh", sys.executable, "-c", script]
    around = {"SLURMD_NODENAME": "a1", "SLURM_NODEID": place, "PATH": os.environ["PATH"]}
    said = subprocess.run(words, env=around, capture_output=True, text=True, check=True).stdout
    assert said == f"a1 is_host={is_first}\n"


def test_a_group_on_one_machine_needs_no_job() -> None:
    words = launch.torchrun(Trainer(strategy="ddp", devices=4), "0123456789ab")
    assert words[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert {"--standalone", "--nproc-per-node=4", "--local-addr=127.0.0.1"} < {*words}
