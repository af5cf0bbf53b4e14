"""Run one stage and commit its artifact: in this process, or as `python -m w2sd.worker spec.json PREFIX...`."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from w2sd.atomic import read_json, write_json
from w2sd.config import build
from w2sd.data.tally import Tally
from w2sd.errors import Refused, StageFailed
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Stretch, Task
from w2sd.pipeline.store import Store, is_full, no_room
from w2sd.signals import end_with, exit_on_signals

PACKAGES = [
    "torch",
    "pytorch-lightning",
    "transformers",
    "tokenizers",
    "torchmetrics",
    "numpy",
    "scipy",
    "pyarrow",
    "w2sd",
]


def execute(
    spec: dict[str, Any], runtime: dict[str, Any], store: Store, advance: Callable[[int, int], None], rank: int = 0
) -> None:
    """Run the stage that `spec` describes; the first process of a group commits what it made.

    Its inputs are taken as they are: whoever launches it has checked their digests, once for all processes.
    """
    trusted = runtime["trusted"]
    params, origin = (
        {name: build(node, name, trusted) for name, node in nodes.items()}
        for nodes in (spec["params"], runtime["origin"])
    )
    inputs = {role: store.folder(key) for role, key in spec["inputs"].items()}
    wall, cpu = time.perf_counter(), time.process_time()
    reset_peak()
    stretches: list[Stretch] = []
    trainer = build(runtime["trainer"], "trainer", trusted)

    def measured(stretch: Stretch) -> dict[str, float | None]:
        stretches.append(stretch)
        return throughput([stretch]) | memory(trainer)

    task = Task(
        key=spec["key"],
        kind=spec["kind"],
        trains=spec["trains"],
        params=params,
        origin=origin,
        inputs=inputs,
        out=Path(os.devnull),  # a folder to nobody: to write there is an error
        work=store.work(spec["key"]),
        trainer=trainer,
        logger=build(runtime["logger"], "logger", trusted),
        name=runtime["name"],
        logs=Path(runtime["out"]) / "logs" / f"{spec['kind']}-{spec['key']}",
        advance=advance,
        rank=rank,
        measured=measured,
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
            "cpu_seconds": round(time.process_time() - cpu, 3),
        }
        cost |= (throughput(stretches, wall) if stretches else {}) | memory(trainer)
        gpu = cuda.get_device_name() if (cuda := _cuda()) is not None and cuda.is_available() else None
        hardware = {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpu": gpu}
        versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
        machine = {"hardware": hardware, "versions": versions, "trainer": runtime["trainer"]}
        write_json(out / "runtime.json", cost | machine)


def throughput(stretches: Sequence[Stretch], started: float | None = None) -> dict[str, float | None]:
    """Return the rates and the padding of a stage that `started` then and had these stretches; null where undefined."""
    seen, timed = Tally(), Tally()
    for stretch in stretches:
        seen, timed = seen.plus(stretch.seen), timed.plus(stretch.timed)
    seconds, cpu_seconds = (sum(getattr(each, name) for each in stretches) for name in ("seconds", "cpu_seconds"))
    figures = {
        "pairs_per_s": _share(timed.examples, seconds),
        "pairs_per_cpu_s": _share(timed.examples, cpu_seconds),
        "tokens_per_s": _share(timed.tokens, seconds),
        "padding": _share(seen.places - seen.tokens, seen.places),
        "seconds": seconds,
        "setup_seconds": None if started is None else stretches[0].began - started,
    }
    rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in figures.items()}
    [*layouts] = {each.is_packed for each in stretches}  # a later pass may read texts that are too long to be packed
    rounded["packed"] = layouts[0] if len(layouts) == 1 else None
    return {f"throughput/{name}": value for name, value in rounded.items()}


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if whole > 0 else None


def reset_peak() -> None:
    """Begin to count the GPU's peak anew: what an earlier stage of this process had there is not this one's."""
    if (cuda := _cuda()) is not None and cuda.is_initialized():
        cuda.reset_peak_memory_stats()


def memory(trainer: Trainer) -> dict[str, float | None]:
    """Return the most memory that this process ever had, and the most that this stage had on the GPU."""
    unit = 1024**2 if sys.platform == "darwin" else 1024
    cuda = _cuda() if trainer.accelerator == "gpu" else None
    return {
        "memory/peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "memory/peak_gpu_mb": None if cuda is None else cuda.max_memory_allocated() // 1024**2,
    }


def _cuda() -> Any:
    """Return `torch.cuda`; None where this process has not loaded torch: a stage that asks no model need not."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.cuda


def main(argv: list[str] | None = None) -> int:
    """The entry point of a worker process; speaks of its progress and its failure on standard output.

    Which prefixes are trusted it hears from whoever started it, and not from a file.
    Of a group that torchrun started, the first process speaks of progress, any of failure.
    """
    path, *trusted = argv if argv is not None else sys.argv[1:]
    job = read_json(Path(path))
    rank = int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0

    def advance(done: int, total: int) -> None:
        if rank == 0:
            _say(f"@progress {done} {total}")

    try:
        with exit_on_signals():
            execute(job["stage"], job["runtime"] | {"trusted": trusted}, Store(job["store"]), advance, rank)
    except (Refused, StageFailed) as error:
        _say(f"@failed {error}")
        return 1
    except Exception as error:
        if is_full(error):
            _say(f"@failed {no_room(job['store'])}")
        raise
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _say(line: str) -> None:
    """Tell whoever launched this process, at one go: the processes of a group share a pipe."""
    sys.stdout.write(f"{line}\n")  # print would write the end of the line apart
    sys.stdout.flush()


def _commit() -> str | None:
    """The commit of the source tree, if w2sd runs from one."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
        )
    except OSError:
        return None
    return described.stdout.strip() or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    end_with(os.getppid(), pipe=sys.stdin.fileno() if stat.S_ISFIFO(os.fstat(0).st_mode) else None)
    sys.exit(main())
