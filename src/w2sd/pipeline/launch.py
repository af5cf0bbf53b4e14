"""Run what a plan lacks, each stage once, and keep what finished whatever happens next."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from w2sd.atomic import write_json
from w2sd.config import RunConfig, describe
from w2sd.errors import StageFailed
from w2sd.parts.trainer import Resolved, Trainer, has_gpu
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.progress import Advance, StageTable
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Lock, Store
from w2sd.signals import end_if_told


def survey(
    plan: Plan, store: Store, force: list[str], already: Collection[str] = (), damaged: Collection[str] = ()
) -> dict[str, str]:
    """For every stage whether it is `cached`, `to do`, or `not needed`: gone, with all that was made from it there.

    A forced stage is to do, and so is everything made from it; not again what was made `already`, by an earlier job of
    the same sweep. So is what is damaged, needed or not, for a report may read it; `damaged` adds keys to what planning
    sees of that.
    """
    renewed = _renewed(plan, force) - set(already)
    states: dict[str, str] = {}
    used = {upstream.key for stage in plan.values() for upstream in stage.inputs.values()}
    needed = {stage.key for stage in plan.values()} - used  # the ends of the graph are what the run is for
    for name, stage in reversed(plan.items()):
        there = stage.key not in damaged and store.has(stage.kind, stage.key)
        is_lost = not there and (stage.key in needed or store.has_remains(stage.kind, stage.key))
        if stage.key in renewed or is_lost:
            states[name] = "to do"
            needed |= {upstream.key for upstream in stage.inputs.values()}
        else:
            states[name] = "cached" if there else "not needed"
    return {name: states[name] for name in plan}


def launch(
    plan: Plan,
    states: dict[str, str],
    run: RunConfig,
    store: Store,
    execute: Callable[[dict[str, Any], dict[str, Any], Store, Advance], None],
    already: Collection[str] = (),
) -> None:
    """Compute the stages that are to do; a stage that fails leaves those in the store that finished.

    `execute` is the worker's: a stage that needs no process of its own is run by it in this one.

    In order, except that a stage which another run is at waits for as long as there is something else to do. An input
    that turns out to be damaged is computed again, once.
    """
    is_apart = run.settings.launch == "process" or run.trainer.is_shared
    renewed = _renewed(plan, run.settings.force) - set(already)
    pending = {name: plan[name] for name in plan if states[name] == "to do"}
    done, damaged = set(already), set[str]()
    with StageTable(plan, states) as table:
        while pending:
            end_if_told()
            ready = _ready(pending)

            def note(ready: dict[str, str] = ready) -> None:
                for name in ready.values():
                    table.note(name, "another run is at it; waiting")

            with store.lock([*ready], note) as lock:
                key, name = lock.key, ready[lock.key]
                stage = pending[name]
                if key not in renewed and store.has(stage.kind, key, weights=True):  # since the survey
                    table.finish(name, "cached")
                elif broken := _broken(stage, store):  # checked here, once, and in none of the processes that read them
                    if again := damaged.intersection(broken):
                        store.find(min(again))  # which says what is wrong: to compute it once more would not help
                    damaged.update(broken)
                    done.difference_update(broken)
                    states = survey(plan, store, run.settings.force, done, damaged - done)
                    pending = {name: plan[name] for name in plan if states[name] == "to do"}
                    table.note(name, "an input is damaged or gone, and computed again")
                    continue
                else:
                    table.start(name)
                    if key in renewed:
                        store.forget(key)
                    try:
                        if is_apart:
                            _in_process(stage, run, store, table.advance, lock)
                        else:
                            execute(stage.spec(), runtime(stage, run), store, table.advance)
                    except BaseException as error:
                        store.drop_empty_work(key)
                        table.finish(name, "failed" if isinstance(error, Exception) else "stopped")
                        raise
                    table.finish(name)
            done.add(key)
            del pending[name]
            for name in [name for name, other in pending.items() if other.key == key]:
                table.finish(name, "cached")
                del pending[name]


def _broken(stage: Stage, store: Store) -> list[str]:
    """The keys of the inputs of a stage that are gone or damaged."""
    return [each.key for each in stage.inputs.values() if not store.has(each.kind, each.key, weights=True)]


def _ready(pending: Plan) -> dict[str, str]:
    """The names, by key, of the stages that wait for no other one."""
    missing = {stage.key for stage in pending.values()}
    names: dict[str, str] = {}
    for name, stage in pending.items():
        if missing.isdisjoint(upstream.key for upstream in stage.inputs.values()):
            names.setdefault(stage.key, name)
    return names


def _renewed(plan: Plan, force: list[str]) -> set[str]:
    """The keys of forced stages and of everything made from them."""
    renewed: set[str] = set()
    for stage in plan.values():
        if stage.kind in force or any(upstream.key in renewed for upstream in stage.inputs.values()):
            renewed.add(stage.key)
    return renewed


def runtime(stage: Stage, run: RunConfig) -> dict[str, Any]:
    """What a stage needs to know beside its own parameters; its key tells of none of it."""
    origin = stage.inputs["model"].params if "model" in stage.inputs else {}
    return {
        "trainer": describe(_trainer(stage, run)),
        "logger": describe(run.logger),
        "origin": {name: describe(value) for name, value in origin.items()},
        "name": run.settings.name,
        "out": str(Path(run.settings.out).expanduser().absolute()),
        "trusted": list(run.settings.trusted),
    }


def _trainer(stage: Stage, run: RunConfig) -> Resolved:
    """The trainer that was asked for, with what it leaves to the machine decided for the model of this stage."""
    if not stage.asks_model:
        return run.trainer.resolve(has_gpu=False)
    return run.trainer.resolve(has_gpu(), getattr(stage.origin.get("model"), "is_pretrained", False))


def _in_process(stage: Stage, run: RunConfig, store: Store, advance: Advance, lock: Lock) -> None:
    """Run a stage in an interpreter of its own, or in several: when it ends, memory and devices are free again.

    The worker holds the stage's lock too. Its standard input is a pipe on which nothing comes; when that is closed,
    this process has ended, and the worker ends, and with it every process of a group, which has the same one.
    """
    work = store.work(stage.key)
    settings = runtime(stage, run)
    trusted = settings.pop("trusted")  # said on the worker's command line: other people may write to the store
    write_json(work / "spec.json", {"stage": stage.spec(), "runtime": settings, "store": str(store.root)})
    is_shared = run.trainer.is_shared and stage.is_shared
    python = torchrun(run.trainer, stage.key) if is_shared else [sys.executable]
    command = [*python, "-m", "w2sd.worker", str(work / "spec.json"), *trusted]
    # A terminal tells a whole group of processes of Ctrl-C. The worker is in another one and hears of it from here
    # alone: told twice, it would be disturbed while it ends.
    apart: Any = {"process_group": 0, "stdin": subprocess.PIPE, "pass_fds": [lock.descriptor], "env": environment()}
    with (
        (work / "worker.log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, **apart) as process,
    ):
        try:
            failure = _follow(process, advance)
        except BaseException:
            process.terminate()  # not killed: torchrun ends its group, and a worker keeps what it has learnt
            process.wait()
            raise
    if code := process.returncode:
        raise StageFailed(
            failure or f"{stage.kind}: the worker ended with code {code}; its log is {work / 'worker.log'}"
        )


def environment() -> dict[str, str]:
    """That of this process, for another one that must not find modules where this one does not: in the folder here."""
    is_searched = os.getcwd() in map(os.path.abspath, sys.path)
    return {**os.environ, **({} if is_searched else {"PYTHONSAFEPATH": "1"})}


def _follow(process: subprocess.Popen[str], advance: Callable[[int, int], None]) -> str:
    """Pass on the worker's progress; return the line in which it said why it stopped, if it did."""
    failure = ""
    assert process.stdout is not None
    for line in process.stdout:
        if progress := re.fullmatch(r"@progress (\d+) (\d+)\n", line):
            advance(int(progress[1]), int(progress[2]))
        elif line.startswith("@failed "):
            failure = line.removeprefix("@failed ").rstrip("\n")
    return failure


# Run in a shell on each node: tells torchrun SLURM's name for it, by which the others reach it, and whether it is the
# first, where they meet. By itself torchrun asks what the machine calls itself, which may mean nothing anywhere.
NAMED = """[ "$SLURM_NODEID" = 0 ] && first=true || first=false
PET_LOCAL_ADDR=$SLURMD_NODENAME PET_RDZV_CONF=is_host=$first exec "$@\""""


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
