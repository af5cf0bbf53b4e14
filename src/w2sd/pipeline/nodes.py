"""The machines of a group of processes: this one alone, or all those of the SLURM job in which the run is."""

from __future__ import annotations

import os
import socket
import sys

from w2sd.errors import Refused
from w2sd.trainer import Trainer

# Run in a shell on each node: tells torchrun SLURM's name for it, by which the others reach it, and whether it is the
# first, where they meet. By itself torchrun asks what the machine calls itself, which may mean nothing anywhere.
NAMED = """[ "$SLURM_NODEID" = 0 ] && first=true || first=false
PET_LOCAL_ADDR=$SLURMD_NODENAME PET_RDZV_CONF=is_host=$first exec "$@\""""


def check(trainer: Trainer) -> None:
    """Refuse several nodes where they could not be reached: outside a job of SLURM's, or in one of another size."""
    if trainer.nodes == 1:
        return
    here = os.environ.get("SLURM_JOB_NUM_NODES")
    is_on_one = "SLURMD_NODENAME" in os.environ  # and not where the job was asked for, which the others may not reach
    is_alone = os.environ.get("SLURM_STEP_NUM_TASKS", "1") == "1"
    if here != str(trainer.nodes) or not is_on_one or not is_alone:
        job = "as many as the SLURM job has on whose first node w2sd is started, once and without srun"
        raise Refused("trainer.nodes", trainer.nodes, f"1, or {job} (SLURM_JOB_NUM_NODES is {here or 'not set'})")


def torchrun(trainer: Trainer, key: str) -> list[str]:
    """The words that start a group whose processes know each other, to which the module that they run is added."""
    words = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={trainer.devices}"]
    if trainer.nodes == 1:
        return [*words, "--standalone", "--local-addr=127.0.0.1"]  # at a free port; no name here has to resolve
    here = f"{os.environ['SLURMD_NODENAME']}:{_free_port()}"
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={here}", f"--rdzv-id={key}"]
    return [*_srun(trainer.nodes), "sh", "-c", NAMED, "sh", *words, f"--nnodes={trainer.nodes}", *meet]


def _srun(n: int) -> list[str]:
    """One process on each node, all of which end when one fails."""
    words = ["srun", f"--nodes={n}", f"--ntasks={n}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--export=ALL"]
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):  # which a step no longer takes from its job by itself
        words.append(f"--cpus-per-task={cores}")
    return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
