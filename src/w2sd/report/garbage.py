"""What no job record can reach any more, and its removal. Never touches what a running stage holds."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from w2sd.errors import StageFailed, require
from w2sd.metrics.verdict import VERSION
from w2sd.pipeline import locks
from w2sd.pipeline.store import Store
from w2sd.report.records import VERDICT, read_jobs


class Leftover(NamedTuple):
    """A folder that can go."""

    path: Path
    n_bytes: int
    key: str | None  # of the stage whose lock protects it; None: nobody knows whose it is


def find(store: Path) -> list[Leftover]:
    """Artifacts that no job record leads to, verdicts on these, leftovers of runs that were cut off, and tokens."""
    require((store / "artifacts").is_dir(), "store", str(store), "a store of w2sd: a folder with artifacts/ in it")
    for name in ("artifacts", "tmp", "work", "tokens"):
        accepted = "a folder, and no link to one: gc deletes what is in it"
        require(not (store / name).is_symlink(), "store", str(store / name), accepted)
    alive = _reachable(store)
    unreached = [path for path in _folders(store / "artifacts") if path.name.rpartition("-")[2] not in alive]
    tokens = [path for path in _folders(store) if path.name == "tokens"]  # which cost seconds to make again
    found = [*unreached, *_folders(store / "tmp"), *_folders(store / "work"), *tokens]
    return [Leftover(path, _weigh(path), _key(path)) for path in found]


def held(store: Path) -> set[str]:
    """The keys of the stages that are running at the moment."""
    keys = set()
    for path in (store / "locks").glob("*.lock"):
        if (lock := locks.take(path)) is None:
            keys.add(path.stem)
        else:
            locks.give_up(path, lock)
    return keys


def interrupted(leftovers: list[Leftover], running: set[str]) -> bool:
    """Whether a stage was cut off, or failed, that its command would go on from: one that left a checkpoint."""
    stopped = [each.path for each in leftovers if each.path.parent.name == "work" and each.key not in running]
    return any(any(path.glob("*.ckpt")) for path in stopped)


def why_kept(leftover: Leftover, running: set[str], may_go_on: bool) -> str:
    """Why this folder must stay for now; empty where it can go.

    A job is recorded only when it is finished: while any stage runs, or is to go on, an unreached artifact may be that
    job's own.
    """
    if leftover.key in running:
        return "a running stage holds its lock"
    if running and (leftover.key is None or leftover.path.parent.name == "artifacts"):
        return "it may belong to a running job"
    if may_go_on and leftover.path.parent.name in ("artifacts", "work"):
        return "an interrupted run may go on from it (--interrupted: delete it too)"
    return ""


def delete(store: Path, leftover: Leftover) -> bool:
    """Remove one folder unless a stage has taken its lock in the meantime; says whether it is gone."""
    with _locked(store, leftover.key) as free:
        if free and leftover.path.parent.name == "tmp":
            Store(store).clear(leftover.path)
        elif free:
            grave = store / "tmp" / f"gone-{os.getpid()}-{leftover.path.name}"
            grave.parent.mkdir(exist_ok=True)
            leftover.path.rename(grave)  # out of sight in one step: no reader ever meets half an artifact
            shutil.rmtree(grave)
    return free


def _reachable(store: Path) -> set[str]:
    kinds = {path.name.rpartition("-")[2]: path.name.rpartition("-")[0] for path in _folders(store / "artifacts")}
    jobs = read_jobs(store)
    to_visit = [key for job in jobs for key in (job.compare, *(stage["key"] for stage in job.stages.values()))]
    alive: set[str] = set()
    while to_visit:
        key = to_visit.pop()
        if key not in alive:
            alive.add(key)
            spec = Store(store).spec(kinds[key], key) if key in kinds else None
            to_visit += (spec or {}).get("inputs", {}).values()
    return alive | {key for key, kind in kinds.items() if kind == VERDICT and _holds(store, key, alive)}


def _holds(store: Path, verdict: str, alive: set[str]) -> bool:
    """Whether a verdict is by today's rule, and on evaluations of jobs that are there."""
    try:
        spec = Store(store).spec(VERDICT, verdict) or {}
    except StageFailed:  # a damaged one is judged again
        return False
    return spec.get("version") == VERSION and alive.issuperset(spec["inputs"].values())


@contextmanager
def _locked(store: Path, key: str | None) -> Iterator[bool]:
    if key is None:
        yield True
        return
    (store / "locks").mkdir(exist_ok=True)
    path = store / "locks" / f"{key}.lock"
    if (lock := locks.take(path)) is None:
        yield False
        return
    try:
        yield True
    finally:
        locks.give_up(path, lock)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.is_symlink())


def _key(path: Path) -> str | None:
    found = re.search(r"(?<![0-9a-z])[0-9a-f]{12}(?![0-9a-z])", path.name)
    return found.group() if found else None


def _weigh(folder: Path) -> int:
    n_bytes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a running stage may take its files away meanwhile
            n_bytes += 0 if path.is_dir() else path.lstat().st_size
    return n_bytes
