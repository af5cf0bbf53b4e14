"""Finished stages on disk, found by their keys.

    STORE/artifacts/<kind>-<key>/   spec.json · metrics.json · runtime.json · payload (of compare: diagnostics.json;
                                    of a verdict, which reports make: spec.json · verdict.json)
    STORE/work/<key>/               what an interrupted stage can resume from; goes when the artifact is committed
    STORE/tmp/<kind>-<key>@<host>-*/ an artifact being written: new/ · lock, held by its writer · old/, what it is to
                                    replace, or gone/, what it has replaced
    STORE/locks/<key>.lock          there while a stage runs, so that concurrent runs share it
    STORE/jobs/<id>.json            one record per finished run
    STORE/tokens/<hash>.safetensors the rows of a split as one tokenizer has them; may go at any time

An artifact is written beside its place, brought to the disk, and committed by one rename: it is there completely or not
at all. The rename gives correctness; the lock only saves work, so a file system with unreliable locks costs time and
never a result. `spec.json` holds a digest of every other file and, as a record of a run does, one of itself: all are
checked when they are read. Planning checks them too, but for weights and features (`.safetensors`): gigabytes that the
stage which reads them checks.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from w2sd.atomic import digest_file, read_json, read_sealed, sync, write_sealed
from w2sd.errors import Refused, StageFailed
from w2sd.pipeline import locks

POLL_S = 0.2  # between two looks at locks that others have
HEAVY = ".safetensors"  # files that only stages read
DAY_S = 86400  # no file takes longer to write, whichever machine writes it
HOST = os.uname().nodename
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Damaged(StageFailed):
    """A file of the store that is not what was written there; says what to delete."""

    def __init__(self, file: Path, owner: Path) -> None:
        super().__init__(file, owner)  # as arguments, so that it survives a trip between processes
        self.file, self.owner = file, owner

    def __str__(self) -> str:
        return f"store: {self.file} is damaged; delete {self.owner} and run again"


class Lock(NamedTuple):
    """The right to run a stage, which every process that inherits the descriptor has too."""

    key: str
    descriptor: int


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
        if (spec := self.spec(kind, key)) is None:
            raise self._gone(key)
        return _check(self.path(kind, key), name, spec["digests"])

    def read(self, kind: str, key: str, name: str, shape: type = dict) -> Any:
        """The content of such a file, JSON of this shape; None where the artifact is gone."""
        if (spec := self.spec(kind, key)) is None:
            return None
        path = _check(self.path(kind, key), name, spec["digests"])
        try:
            if not isinstance(content := read_json(path), shape):
                raise TypeError(f"{path} does not hold a {shape.__name__}")
            return content
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise Damaged(path, path.parent) from error

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
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        self._make(place.parent)
        with self._draft(place.name) as draft:
            (out := draft / "new").mkdir()
            yield out
            paths = sorted(out.rglob("*"))
            digests = {path.relative_to(out).as_posix(): digest_file(path) for path in paths if path.is_file()}
            write_sealed(out / "spec.json", {**spec, "digests": digests})
            for path in (*paths, out):
                sync(path)
            self._replace(out, place)
        self.forget(spec["key"])

    def sweep(self) -> None:
        """Remove what killed processes left: drafts and locks of this machine, work that is done, and half files.

        An artifact that was about to be replaced goes back to its place. Drafts of other machines stay: not every
        network file system shows whether their locks are held.
        """
        for draft in (self.root / "tmp").glob(f"*@{glob.escape(HOST)}-*"):
            with suppress(OSError):  # here and below: a store that can only be read; another run that sweeps too
                if (descriptor := locks.take(draft / "lock")) is not None:
                    self.clear(draft)
                    os.close(descriptor)
        for key in {path.stem for name in ("work/*", "locks/*.lock") for path in self.root.glob(name)}:
            with suppress(OSError):
                if (lock := self._free([key])) is not None:
                    folder = self._folder(key)
                    if folder and self.has(folder.name.removesuffix(f"-{key}"), key, weights=True):
                        self.forget(key)
                    self._give_up(lock)
        for part in (
            path for folder in ("artifacts", "jobs", "tokens") for path in (self.root / folder).glob("*.part")
        ):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > DAY_S:
                    part.unlink()

    def clear(self, draft: Path) -> None:
        """Remove a draft. What it was to replace goes back where nothing has taken its place."""
        with suppress(OSError):  # mostly there is nothing, or something in its place
            (draft / "old").rename(self.root / "artifacts" / draft.name.partition("@")[0])
        shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _draft(self, name: str) -> Iterator[Path]:
        """A folder in tmp/ that is this process's while it holds the lock in it."""
        descriptor = None
        while descriptor is None:
            draft = Path(tempfile.mkdtemp(prefix=f"{name}@{HOST}-", dir=self.root / "tmp"))
            with suppress(FileNotFoundError):  # another run swept it before it was locked
                descriptor = locks.take(draft / "lock")
        try:
            yield draft
        finally:
            self.clear(draft)
            os.close(descriptor)

    def _folder(self, key: str) -> Path | None:
        named = (self.root / "artifacts").glob(f"*-{key}")
        return next((path for path in named if path.name.partition("-")[2] == key), None)  # no copy of another name

    def _look_anew(self) -> None:
        """Know what other machines have committed: NFS may answer from memory until something in the folder changes."""
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=self.root / "artifacts", suffix=".part"):
            pass  # of a store that can only be read there is nothing else to try

    def _gone(self, key: str) -> StageFailed:
        return StageFailed(f"store: no artifact {key} under {self.root}; run again to compute it")

    def _replace(self, out: Path, place: Path) -> None:
        old = out.with_name("old")
        try:
            out.rename(place)
        except OSError:  # a forced stage, or a twin that finished first: the newer result takes the place
            place.rename(old)  # from where `clear` puts it back unless the next line succeeds
            out.rename(place)
        sync(place.parent)
        if old.exists():
            old.rename(out.with_name("gone"))  # from where it does not, though another writer may now empty the place

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync(self.root)

    @contextmanager
    def lock(self, keys: Sequence[str], waiting: Callable[[], None]) -> Iterator[Lock]:
        """The right to run the first of these stages that is free.

        Calls `waiting` once if other runs have all of them at the moment.
        """
        lock = self._free(keys)
        if lock is None:
            waiting()
        while lock is None:
            time.sleep(POLL_S)
            lock = self._free(keys)
        try:
            self._look_anew()
            yield lock
        finally:
            self._give_up(lock)

    def _free(self, keys: Sequence[str]) -> Lock | None:
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        for key in keys:
            if (descriptor := locks.take(self._lock_file(key))) is not None:
                return Lock(key, descriptor)
        return None

    def _give_up(self, lock: Lock) -> None:
        locks.give_up(self._lock_file(lock.key), lock.descriptor)

    def _lock_file(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock"

    def record(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Keep the record of a finished run. Returns the one whose place it takes, if that could be read."""
        place = self.root / "jobs" / f"{job['id']}.json"
        self._make(place.parent)
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
        inputs, digests = spec.get("inputs", {}), spec["digests"]
        if not all(isinstance(text, str) for text in (*inputs.values(), *digests.values(), spec.get("created", ""))):
            raise ValueError(f"{folder} has inputs, digests or a date that are no text")
        return {**spec, "inputs": inputs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(folder / "spec.json", folder) from error


def _check(folder: Path, name: str, digests: dict[str, str]) -> Path:
    """The file of this name, if it is what was committed."""
    try:
        if (folder / name).is_file() and digest_file(folder / name) == digests.get(name):
            return folder / name
    except OSError as error:
        raise Damaged(folder / name, folder) from error
    raise Damaged(folder / name, folder)


def unwritable(value: str) -> str | None:
    """Why nothing can be written in a folder, or it cannot be made; None where it can. Leaves nothing behind."""
    folder = Path(value).expanduser().absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()  # permissions do not tell: root has them on a read-only disk
    except OSError as error:
        return f"{there}: {error.strerror}"
    return None


def require_writable(knob: str, value: str) -> None:
    """Refuse a folder in which nothing can be written or that cannot be made."""
    if (reason := unwritable(value)) is not None:
        raise Refused(knob, value, f"a folder that can be written ({reason})")


def is_full(error: BaseException | None) -> bool:
    """Whether a disk was full, whichever library met it and whatever that one made of the system's error.

    >>> is_full(OSError(28, "No space left on device")), is_full(Exception("I/O (os error 28)")), is_full(OSError())
    (True, True, False)
    """
    if error is None:
        return False
    [*written] = map(int, re.findall(r"\(os error (\d+)\)", str(error)))  # by safetensors and tokenizers
    number = getattr(error, "errno", None)
    return not {number, *written}.isdisjoint(FULL) or is_full(error.__cause__ or error.__context__)


def no_room(root: str | Path) -> StageFailed:
    """The failure of a stage, or of a run, that a full disk ended."""
    remedy = "make room there, or for out=, and give the same command again: it goes on from what is kept"
    return StageFailed(f"store: the disk of {Store(root).root} is full; {remedy}")
