"""Run what a plan lacks, each stage once, and keep what finished whatever happens next."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from w2sd.config import RunConfig, describe
from w2sd.errors import StageFailed
from w2sd.kinds import KINDS
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.progress import Advance, StageTable
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store, write_json


def survey(plan: Plan, store: Store, force: list[str], already: Collection[str] = ()) -> dict[str, str]:
    """For every stage whether it is `cached`, `to do`, or `not needed`: gone, with all that was made from it there.

    A forced stage is to do, and so is everything made from it; not again what was made `already`, by an earlier job of
    the same sweep.
    """
    renewed = _renewed(plan, force) - set(already)
    states: dict[str, str] = {}
    used = {upstream.key for stage in plan.values() for upstream in stage.inputs.values()}
    needed = {stage.key for stage in plan.values()} - used  # the ends of the graph are what the run is for
    for name, stage in reversed(plan.items()):
        there = store.has(stage.kind, stage.key)
        if stage.key in renewed or (stage.key in needed and not there):
            states[name] = "to do"
            needed |= {upstream.key for upstream in stage.inputs.values()}
        else:
            states[name] = "cached" if there else "not needed"
    return {name: states[name] for name in plan}


def launch(plan: Plan, states: dict[str, str], run: RunConfig, store: Store, already: Collection[str] = ()) -> None:
    """Compute the stages that are to do, in order; a stage that fails leaves the ones before it in the store."""
    execute = _in_process if run.settings.launch == "process" or run.trainer.is_shared else _inline
    renewed, done = _renewed(plan, run.settings.force) - set(already), set()
    with StageTable(plan, states) as table:
        for name, stage in plan.items():
            if states[name] != "to do":
                continue
            if stage.key in done:
                table.finish(name, "cached")
                continue
            with store.lock(stage.key, lambda name=name: table.note(name, "another run is at it; waiting")):  # type: ignore[misc]
                if stage.key not in renewed and store.has(stage.kind, stage.key):  # since the survey
                    table.finish(name, "cached")
                else:
                    table.start(name)
                    if stage.key in renewed:
                        store.forget(stage.key)
                    try:
                        execute(stage, run, store, table.advance)
                    except BaseException:
                        table.finish(name, "failed")
                        raise
                    table.finish(name)
            done.add(stage.key)


def _renewed(plan: Plan, force: list[str]) -> set[str]:
    """The keys of forced stages and of everything made from them."""
    renewed: set[str] = set()
    for stage in plan.values():
        if stage.kind in force or any(upstream.key in renewed for upstream in stage.inputs.values()):
            renewed.add(stage.key)
    return renewed


def runtime(run: RunConfig) -> dict[str, Any]:
    """What a stage needs to know and what its result must not depend on."""
    return {
        "trainer": describe(run.trainer),
        "logger": describe(run.logger),
        "name": run.settings.name,
        "out": str(Path(run.settings.out).expanduser().absolute()),
        "trusted": list(run.settings.trusted),
    }


def _inline(stage: Stage, run: RunConfig, store: Store, advance: Advance) -> None:
    worker = importlib.import_module("w2sd.worker")  # by name: only here does the planner's process meet torch
    worker.execute(stage.spec(), runtime(run), store, advance)


def _in_process(stage: Stage, run: RunConfig, store: Store, advance: Advance) -> None:
    """The same in an interpreter of its own, or in several: memory and devices are free again when the stage ends."""
    work = store.work(stage.key)
    write_json(work / "spec.json", {"stage": stage.spec(), "runtime": runtime(run), "store": str(store.root)})
    group = _group(stage, run)
    command = [sys.executable, *group, "-m", "w2sd.worker", str(work / "spec.json")]
    with (
        (work / "worker.log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            said = _follow(process, advance)
        except BaseException:
            if group:
                process.terminate()  # torchrun ends the group; killed itself, it would leave it running
                process.wait()
            else:
                process.kill()
            raise
    if code := process.returncode:
        raise StageFailed(said or f"{stage.kind}: the worker ended with code {code}; its log is {work / 'worker.log'}")


def _group(stage: Stage, run: RunConfig) -> list[str]:
    """The words before a worker's that start it as a group of processes: on this machine alone, at a free port."""
    if not run.trainer.is_shared or not KINDS[stage.kind].is_shared:
        return []
    here = ["--standalone", "--local-addr=127.0.0.1"]  # no name of this machine has to resolve
    return ["-m", "torch.distributed.run", *here, f"--nproc-per-node={run.trainer.devices}"]


def _follow(process: subprocess.Popen[str], advance: Callable[[int, int], None]) -> str:
    """Pass on the worker's progress; return the line in which it said why it stopped, if it did."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "@progress":
            done, total = rest.split()
            advance(int(done), int(total))
        elif word == "@failed":
            said = rest
    return said
