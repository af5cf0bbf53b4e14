"""Finished stages on disk, found by their keys.

    STORE/artifacts/<kind>-<key>/   spec.json · metrics.json · runtime.json · payload (of compare: diagnostics.json;
                                    of a verdict, which reports make: spec.json · verdict.json)
    STORE/work/<key>/               what an interrupted stage can resume from; goes when the artifact is committed
    STORE/tmp/                      artifacts being written
    STORE/locks/<key>.lock          held while a stage runs, so that concurrent runs share it
    STORE/jobs/<id>.json            one record per finished run
    STORE/tokens/<hash>.safetensors the rows of a split as one tokenizer has them; may go at any time

An artifact is written beside its place and committed by one rename: it is there completely or not at all. The rename
gives correctness; the lock only saves work, so a file system with unreliable locks costs time and never a result.
`spec.json` holds a digest of every other file and, as a record of a run does, one of itself: all are checked when they
are read. Planning checks them too, but for weights and features (`.safetensors`): gigabytes that the stage which reads
them checks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from w2sd.atomic import digest_file, read_json, read_sealed, write_sealed
from w2sd.errors import Refused, StageFailed

POLL_S = 0.2  # between two looks at locks that others have
HEAVY = ".safetensors"  # files that only stages read


class Damaged(StageFailed):
    """A file of the store that is not what was written there; says what to delete."""

    def __init__(self, file: Path, owner: Path) -> None:
        super().__init__(file, owner)  # as arguments, so that it survives a trip between processes
        self.file, self.owner = file, owner

    def __str__(self) -> str:
        return f"store: {self.file} is damaged; delete {self.owner} and run again"


class Store:
    """A folder of artifacts. Creating the object creates nothing on disk."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def path(self, kind: str, key: str) -> Path:
        """Where the artifact of this stage is, or would be."""
        return self.root / "artifacts" / f"{kind}-{key}"

    def has(self, kind: str, key: str, *, weights: bool = False) -> bool:
        """Whether the artifact is there and sound; of `HEAVY` files it is only asked whether they are there, or all."""
        folder = self.path(kind, key)
        try:
            digests = _spec(folder)["digests"]
            for name in digests:
                if weights or not name.endswith(HEAVY):
                    _check(folder, name, digests)
            return all((folder / name).is_file() for name in digests)
        except Damaged:
            return False

    def has_remains(self, kind: str, key: str) -> bool:
        """Whether there is anything in the place of this artifact, sound or not."""
        return os.path.lexists(self.path(kind, key))

    def folder(self, key: str) -> Path:
        """The folder of a finished artifact, without a look at its files."""
        if (folder := self._folder(key)) is None:
            self._look_anew()
            folder = self._folder(key)
        if folder is None:
            raise self._gone(key)
        return folder

    def find(self, key: str) -> Path:
        """The folder of a finished artifact, every file of it checked against its digest."""
        folder = self.folder(key)
        digests = _spec(folder)["digests"]
        for name in digests:
            _check(folder, name, digests)
        return folder

    def file(self, kind: str, key: str, name: str) -> Path:
        """One file of a finished artifact, checked against its digest; what lies beside it is not read."""
        folder = self.path(kind, key)
        if not self.has_remains(kind, key):
            raise self._gone(key)
        return _check(folder, name, _spec(folder)["digests"])

    def read(self, kind: str, key: str, name: str) -> Any:
        """The content of such a file if it is JSON; None where the artifact is gone."""
        return read_json(self.file(kind, key, name)) if self.has_remains(kind, key) else None

    def spec(self, kind: str, key: str) -> dict[str, Any] | None:
        """What an artifact was made of; None where it is gone."""
        return _spec(self.path(kind, key)) if self.has_remains(kind, key) else None

    def work(self, key: str) -> Path:
        """The folder that survives an interruption of this stage."""
        folder = self.root / "work" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def tokens(self) -> Path:
        """The folder of tokens that were made before; it may not be there."""
        return self.root / "tokens"

    def forget(self, key: str) -> None:
        """Drop what an interrupted stage left to go on from."""
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    def drop_empty_work(self, key: str) -> None:
        """Take the folder of a stage that failed away if there is nothing in it."""
        with suppress(OSError):  # it is not empty, or was never made
            (self.root / "work" / key).rmdir()

    @contextmanager
    def writing(self, spec: dict[str, Any]) -> Iterator[Path]:
        """A folder to write an artifact in; leaving the block commits it, an exception leaves nothing behind."""
        place = self.path(spec["kind"], spec["key"])
        for folder in (place.parent, self.root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=self.root / "tmp"))
        try:
            yield draft
            files = sorted(path for path in draft.rglob("*") if path.is_file())
            digests = {path.relative_to(draft).as_posix(): digest_file(path) for path in files}
            write_sealed(draft / "spec.json", {**spec, "digests": digests})
            draft.chmod(0o755)  # mkdtemp makes private folders; a store may be shared
            self._replace(draft, place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.forget(spec["key"])

    def _folder(self, key: str) -> Path | None:
        named = (self.root / "artifacts").glob(f"*-{key}")
        return next((path for path in named if path.name.partition("-")[2] == key), None)  # no copy of another name

    def _look_anew(self) -> None:
        """Know what other machines have committed: NFS may answer from memory until something in the folder changes."""
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=self.root / "artifacts", prefix="."):
            pass  # of a store that can only be read there is nothing else to try

    def _gone(self, key: str) -> StageFailed:
        return StageFailed(f"store: no artifact {key} under {self.root}; run again to compute it")

    def _replace(self, draft: Path, place: Path) -> None:
        try:
            draft.rename(place)
        except OSError:  # a forced stage, or a twin that finished first: the newer result takes the place
            old = Path(tempfile.mkdtemp(prefix="old-", dir=self.root / "tmp"))
            place.rename(old / "artifact")
            draft.rename(place)
            shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def lock(self, keys: Sequence[str], waiting: Callable[[], None]) -> Iterator[str]:
        """The right to run the first of these stages that is free.

        Calls `waiting` once if other runs have all of them at the moment.
        """
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        lock = self._free(keys)
        if lock is None:
            waiting()
        while lock is None:
            time.sleep(POLL_S)
            lock = self._free(keys)
        try:
            self._look_anew()
            yield Path(lock.lock_file).stem
        finally:
            lock.release()

    def _free(self, keys: Sequence[str]) -> FileLock | None:
        for key in keys:
            lock = FileLock(self.root / "locks" / f"{key}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        return None

    def record(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Keep the record of a finished run. Returns the one whose place it takes, if that could be read."""
        place = self.root / "jobs" / f"{job['id']}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        old = None
        with suppress(OSError, ValueError):
            old = read_sealed(place)
        write_sealed(place, job)
        return old


def _spec(folder: Path) -> dict[str, Any]:
    """The spec of an artifact, with a digest of each of its files; one of another artifact counts as damaged."""
    try:
        spec = read_sealed(folder / "spec.json")
        if folder.name != f"{spec['kind']}-{spec['key']}":
            raise ValueError(f"{folder} holds another artifact")
        return {**spec, "inputs": dict(spec.get("inputs", {})), "digests": dict(spec["digests"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(folder / "spec.json", folder) from error


def _check(folder: Path, name: str, digests: dict[str, str]) -> Path:
    """The file of this name, if it is what was committed."""
    try:
        if (folder / name).is_file() and digest_file(folder / name) == digests.get(name):
            return folder / name
    except OSError as error:
        raise Damaged(folder / name, folder) from error
    raise Damaged(folder / name, folder)


def require_writable(knob: str, value: str) -> None:
    """Refuse a folder in which nothing can be written or that cannot be made; leaves nothing behind."""
    folder = Path(value).expanduser().absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()  # permissions do not tell: root has them on a read-only disk
    except OSError as error:
        raise Refused(knob, value, f"a folder that can be written ({there}: {error.strerror})") from error
