"""Run one stage and commit its artifact: in this process, or as `python -m w2sd.worker spec.json`."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from w2sd.atomic import read_json, write_json
from w2sd.config import build
from w2sd.errors import Refused, StageFailed
from w2sd.pipeline.stage import Stretch, Task
from w2sd.pipeline.store import Store
from w2sd.signals import exit_on_signals
from w2sd.stages.performance import figures, memory, reset_peak

PACKAGES = ("torch", "pytorch-lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "pyarrow", "w2sd")


def execute(
    spec: dict[str, Any], runtime: dict[str, Any], store: Store, advance: Callable[[int, int], None], rank: int = 0
) -> None:
    """Run the stage that `spec` describes; the first process of a group commits what it made.

    Its inputs are taken as they are: whoever launches it has checked their digests, once for all processes.
    """
    trusted = runtime["trusted"]
    params = {name: build(node, name, trusted) for name, node in spec["params"].items()}
    inputs = {role: store.folder(key) for role, key in spec["inputs"].items()}
    wall, cpu = time.perf_counter(), _cpu_seconds()
    reset_peak()
    stretches: list[Stretch] = []
    task = Task(
        key=spec["key"],
        kind=spec["kind"],
        trains=spec["trains"],
        params=params,
        inputs=inputs,
        out=Path(os.devnull),  # a folder to nobody: to write there is an error
        work=store.work(spec["key"]),
        trainer=build(runtime["trainer"], "trainer", trusted),
        logger=build(runtime["logger"], "logger", trusted),
        name=runtime["name"],
        logs=Path(runtime["out"]) / "logs" / f"{spec['kind']}-{spec['key']}",
        advance=advance,
        trusted=trusted,
        rank=rank,
        measured=stretches.append,
        tokens=store.tokens,
    )
    run = importlib.import_module(f"w2sd.stages.{spec['kind']}").run
    if rank:
        run(task)
        return
    with store.writing({**spec, "created": datetime.now(UTC).isoformat(timespec="seconds"), "git": _commit()}) as out:
        metrics = run(task._replace(out=out))
        write_json(out / "metrics.json", metrics)
        cost: dict[str, Any] = {
            "seconds": round(time.perf_counter() - wall, 3),
            "cpu_seconds": round(_cpu_seconds() - cpu, 3),
        }
        versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
        cost |= (figures(stretches, wall) if stretches else {}) | memory(task.trainer)
        machine = {"hardware": _hardware(), "versions": versions}
        write_json(out / "runtime.json", {**cost, **machine, "trainer": runtime["trainer"]})


def main(argv: list[str] | None = None) -> int:
    """The entry point of a worker process; speaks of its progress and its failure on standard output.

    Of a group that torchrun started, the first process speaks of progress, any of failure.
    """
    [path] = argv if argv is not None else sys.argv[1:]
    job = read_json(Path(path))
    rank = int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0

    def advance(done: int, total: int) -> None:
        if rank == 0:
            _say(f"@progress {done} {total}")

    try:
        with exit_on_signals():
            execute(job["stage"], job["runtime"], Store(job["store"]), advance, rank)
    except (Refused, StageFailed) as error:
        _say(f"@failed {error}")
        return 1
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _say(line: str) -> None:
    """Tell whoever launched this process, at one go: the processes of a group share a pipe."""
    sys.stdout.write(f"{line}\n")  # print would write the end of the line apart
    sys.stdout.flush()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _commit() -> str | None:
    """The commit of the source tree, if w2sd runs from one."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except OSError:
        return None
    return found.stdout.strip() or None


def _hardware() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # a stage that needed no torch has no need to look for its devices
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpu": gpu}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
