"""Crash a chain of stages, run it again, and compare what is there with a run that nothing disturbed.

    python -m tests.crashes                         all of it, a few minutes; the same seeds, the same crashes
    python -m tests.crashes --points 20 --kills 5   a sample of the points, and so many kills

Crash points: three stages that cost nothing, and then two of them again by force. The process ends, or its disk is
full, in place of each file operation in turn. Random moments: the real chain, small, is killed again and again until it
arrives, and then from the beginning. Each time: same bytes, nothing lost, nothing left behind.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra

from w2sd import worker
from w2sd.atomic import read_json, write_json
from w2sd.cli import CONF, main
from w2sd.config import RunConfig, read
from w2sd.pipeline import launch, store
from w2sd.pipeline.graph import Compare, Pretrain, Train
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.store import Store
from w2sd.signals import TERMINATED, exit_on_signals

ENDS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": TERMINATED}  # how a process that a signal ended ends
FULL = 3  # the exit code of a process whose disk was full
MUTATIONS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock")
REAL = [
    "debug=fast",
    "trainer.save_every_s=0.1",
    *(f"{model}.batch=128" for model in ("weak", "strong")),  # of pretraining, most of the work
    *("data.gt=32", "data.w2s=32", "data.test=100", "data.helpful=16", "data.helpful_test=16", "data.unrelated=16"),
]


def cook(task: Any) -> dict[str, Any]:
    """A stage in two steps with a checkpoint between them."""
    if not (task.work / "last.ckpt").exists():
        write_json(task.work / "last.ckpt", {"step": 1})
    (task.out / "model").mkdir()
    (task.out / "model/weights.json").write_text(task.kind * 1000)
    return {"step": read_json(task.work / "last.ckpt")["step"], "from": sorted(task.inputs)}


def stages() -> Plan:
    base = Pretrain({"x": 0})
    student = Train({"x": 1}, {"base": base})
    return {"pretrain": base, "train": student, "compare": Compare({"x": 2}, {"student": student})}


def configured() -> RunConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return read(hydra.compose("config", ["debug=fast"]))


def go(place: Store, run: RunConfig, *force: str) -> None:
    """What a run does with a store."""
    plan = stages()
    run = run._replace(settings=run.settings.__class__(**{**vars(run.settings), "force": list(force)}))
    place.sweep()
    launch.launch(plan, launch.survey(plan, place, run.settings.force), run, place, worker.execute)
    place.record({"id": "job", "stages": [stage.key for stage in plan.values()]})


def content(root: Path) -> dict[str, bytes]:
    """Every file of every artifact, but for times and costs, after a check of all digests."""
    paths = [path for path in (root / "artifacts").glob("*/**/*") if path.is_file()]
    for key in {path.relative_to(root).parts[1].rpartition("-")[2] for path in paths}:
        Store(root).find(key)
    known = [path for path in paths if path.name not in ("spec.json", "runtime.json")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in known}


def leftovers(root: Path) -> list[str]:
    """What a finished run should not have left."""
    folders = [path for name in ("tmp", "locks", "work") for path in (root / name).glob("*")]
    return [str(path.relative_to(root)) for path in (*folders, *root.rglob("*.part"))]


def in_child(
    call: Callable[[], Any], then: Callable[[int], Any] = lambda child: None, log: str | Path = os.devnull
) -> int:
    """Do something in a process of its own, which speaks to a file, while `then` is done to it; how it ended."""
    if (child := os.fork()) == 0:
        code = 70
        try:
            output = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(output, number)
            call()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except OSError as error:
            code = FULL if store.is_full(error) else 71
        finally:
            os._exit(code)
    then(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fail_at(number: int, fault: str, root: Path) -> list[int]:
    """From now on count the operations of this process that change files below a folder, and fail in place of one."""
    count = [0]

    def step() -> None:
        count[0] += 1
        if count[0] - 1 != number:
            return
        if fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), signal.Signals[fault])

    def audit(event: str, args: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        is_below = str(args[0]).startswith(str(root))
        is_named_within = event in ("os.remove", "os.rmdir") and args[1] != -1  # shutil.rmtree opens each folder
        if event == "fcntl.flock" or is_named_within or ((is_write or event in MUTATIONS) and is_below):
            step()

    fsync = os.fsync
    os.fsync = lambda descriptor: (step(), fsync(descriptor))[1]  # type: ignore[assignment]
    sys.addaudithook(audit)
    return count


def crash_points(root: Path, seed: int, n_points: int | None) -> Counter[str]:
    """Crash at every point, or at so many random ones, of a new chain and of a forced one."""
    for name in (*stages(), "engine"):
        module = types.ModuleType(f"w2sd.stages.{name}")
        module.run, module.has_gpu = cook, lambda: False  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
    worker.PACKAGES, worker._commit = [], lambda: None  # which take most of the time and change nothing here
    run, counts, rng = configured(), Counter[str](), random.Random(seed)
    undisturbed = root / "undisturbed"
    assert in_child(lambda: go(Store(undisturbed), run)) == 0
    expected = content(undisturbed)
    for force in ((), ("train",)):
        place = root / "store"

        def begin(place: Path = place, is_new: bool = not force) -> None:
            shutil.rmtree(place, ignore_errors=True)
            if not is_new:
                shutil.copytree(undisturbed, place)

        def crash(number: int, fault: str, place: Path = place, force: tuple[str, ...] = force) -> None:
            count = fail_at(number, fault, place)
            with exit_on_signals():
                go(Store(place), run, *force)
            (root / "count").write_text(str(count[0]))

        begin()
        assert in_child(lambda: crash(-1, "none")) == 0
        points = [(number, fault) for number in range(int((root / "count").read_text())) for fault in (*ENDS, "full")]
        for number, fault in points if n_points is None else sorted(rng.sample(points, n_points)):
            begin()
            code = in_child(lambda number=number, fault=fault: crash(number, fault))  # type: ignore[misc]
            counts[f"{'forced' if force else 'new'} chain: {fault}"] += 1
            # where a full disk is met while something is tidied up, the run may go on
            assert code == ENDS.get(fault, FULL) or (fault == "full" and code == 0), (number, fault, code)
            Store(place).sweep()
            counts["lost"] += bool(force) and content(place) != expected
            with_day = store.DAY_S
            store.DAY_S = -1  # a half file of a minute ago is as good as one of last week
            assert in_child(lambda place=place: go(Store(place), run)) == 0, (number, fault)  # type: ignore[misc]
            store.DAY_S = with_day
            counts["other bytes"] += content(place) != expected
            counts["left behind"] += bool(leftovers(place))
            if content(place) != expected or leftovers(place):
                print(f"operation {number} {force}, {fault}: {leftovers(place)}")
    return counts


def random_kills(root: Path, seed: int, n_kills: int) -> Counter[str]:
    """Kill the real chain at random moments, so many times in all; every chain arrives in the end."""
    for name in ("pretrain", "train", "label", "evaluate", "compare", "preflight"):
        __import__(f"w2sd.stages.{name}")  # here once: a child that is forked has torch already
    gc.freeze()
    rng, counts, log = random.Random(seed), Counter[str](), root / "log"

    def chain(place: Path) -> None:
        sys.argv = ["w2sd", *REAL, f"store={place / 'store'}", f"out={place / 'report'}"]
        sys.exit(main())

    root.mkdir(parents=True)
    assert in_child(lambda: chain(root / "undisturbed"), log=log) == 0, log.read_text()
    expected = content(root / "undisturbed/store")
    while counts["SIGKILL"] + counts["SIGTERM"] < n_kills:
        place = root / f"chain_{counts['chains']}"
        code, kept = None, dict[str, bytes]()
        while code != 0:
            is_last = counts["SIGKILL"] + counts["SIGTERM"] >= n_kills
            fault, after = rng.choice([*ENDS]), rng.uniform(0.2, 4)

            def kill(child: int, fault: str = fault, after: float = after, is_last: bool = is_last) -> None:
                if not is_last:
                    time.sleep(after)
                    os.kill(child, signal.Signals[fault])

            code = in_child(lambda place=place: chain(place), kill, log)  # type: ignore[misc]
            assert code in (0, ENDS[fault], -signal.Signals[fault]), (fault, after, code, log.read_text())
            counts[fault] += code != 0
            found = content(place / "store")
            counts["lost"] += not kept.items() <= found.items()
            kept = found
        counts["chains"] += 1
        counts["other bytes"] += content(place / "store") != expected
        counts["left behind"] += bool(leftovers(place / "store"))
        shutil.rmtree(place)
    return counts


def show(title: str, counts: Counter[str]) -> bool:
    """Print how often each thing happened; whether nothing went wrong."""
    print(f"\n{title}")
    for name, count in counts.items():
        print(f"  {name:<24} {count:>5}")
    return not counts["lost"] + counts["other bytes"] + counts["left behind"]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--points", type=int, help="of each of the two chains; all if not given")
    flags.add_argument("--kills", type=int, default=93)
    flags.add_argument("--seed", type=int, default=0)
    asked = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = random_kills(Path(folder) / "kills", asked.seed, asked.kills)  # first: it needs the real stages
        crashed = crash_points(Path(folder) / "points", asked.seed, asked.points)
    sys.exit(not (show("Crash points", crashed) & show("Killed at random moments", killed)))
