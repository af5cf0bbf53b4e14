"""The store: an artifact is there completely or not at all, and what is read is what was written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.builders import refused
from w2sd.atomic import digest_file, read_json, read_sealed, write_json, write_sealed
from w2sd.data import token_cache
from w2sd.errors import StageFailed
from w2sd.pipeline import locks
from w2sd.pipeline.store import Store
from w2sd.report import page

KEY = "0123456789ab"
SPEC = {"kind": "train", "key": KEY, "params": {"x": 1}, "inputs": {}}
PAYLOAD = {"metrics.json": b"{}\n", "model/weights.bin": bytes(range(256)), "model/deep/er.txt": "ünï".encode()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def commit(store: Store, spec: dict[str, Any] = SPEC, payload: dict[str, bytes] = PAYLOAD) -> Path:
    with store.writing(spec) as out:
        for name, content in payload.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
    return store.path(spec["kind"], spec["key"])


def give_up(store: Store, error: BaseException) -> None:
    """A stage that writes something and stops."""
    with store.writing(SPEC) as out:
        (out / "metrics.json").write_text("half")
        raise error


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failure(call: Callable[[], Any]) -> str:
    with pytest.raises(StageFailed) as failed:
        call()
    assert "\n" not in str(failed.value)
    return str(failed.value)


# --- commit -----------------------------------------------------------------------------------------------------------


def test_a_store_that_is_only_looked_at_is_not_made(store: Store) -> None:
    assert not store.has("train", KEY)
    assert "no artifact 0123456789ab under" in failure(lambda: store.find(KEY))
    assert not store.root.exists()


def test_a_committed_artifact_is_found_with_what_was_written(store: Store) -> None:
    place = commit(store)
    assert store.has("train", KEY)
    assert store.find(KEY) == place == store.root / "artifacts" / f"train-{KEY}"
    assert {name: content for name, content in files(place).items() if name != "spec.json"} == PAYLOAD
    assert not list((store.root / "tmp").iterdir())


def test_the_spec_holds_what_was_asked_and_a_digest_of_every_other_file(store: Store) -> None:
    place = commit(store)
    spec = read_json(place / "spec.json")
    assert {key: spec[key] for key in SPEC} == SPEC
    assert spec["digests"] == {name: digest_file(place / name) for name in PAYLOAD}


def test_a_store_can_be_shared(store: Store) -> None:
    place = commit(store)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [RuntimeError, StageFailed, KeyboardInterrupt, SystemExit])
def test_a_stage_that_fails_leaves_no_artifact_and_no_draft(store: Store, error: type[BaseException]) -> None:
    with pytest.raises(error, match="stopped"):
        give_up(store, error("stopped"))
    assert not store.has("train", KEY)
    assert not files(store.root)
    assert not list((store.root / "tmp").iterdir())


def test_nobody_sees_an_artifact_before_it_is_complete(store: Store) -> None:
    with store.writing(SPEC) as out:
        (out / "metrics.json").write_text("{}")
        assert not store.has("train", KEY)
        failure(lambda: store.find(KEY))
    assert store.has("train", KEY)


def test_a_failed_stage_keeps_what_it_can_resume_from_and_a_finished_one_does_not(store: Store) -> None:
    (store.work(KEY) / "last.ckpt").write_text("step 7")
    (store.work("other") / "last.ckpt").write_text("step 3")
    with pytest.raises(RuntimeError):
        give_up(store, RuntimeError())
    assert (store.work(KEY) / "last.ckpt").read_text() == "step 7"
    commit(store)
    assert [path.name for path in (store.root / "work").iterdir()] == ["other"]


def test_a_newer_result_takes_the_place_of_an_older_one(store: Store) -> None:
    commit(store, payload={"old.txt": b"old", "both.txt": b"old"})
    place = commit(store, payload={"both.txt": b"new"})
    assert {name: content for name, content in files(place).items() if name != "spec.json"} == {"both.txt": b"new"}
    assert store.find(KEY) == place
    assert not list((store.root / "tmp").iterdir())


def test_a_failed_replacement_keeps_the_older_result(store: Store) -> None:
    place = commit(store)
    before = files(place)
    with pytest.raises(RuntimeError):
        give_up(store, RuntimeError())
    assert files(store.find(KEY)) == before


def test_an_incomplete_artifact_gives_way_to_a_complete_one(store: Store) -> None:
    place = commit(store)
    (place / "metrics.json").unlink()
    assert not store.has("train", KEY)
    commit(store)
    assert store.find(KEY) == place


def test_two_writers_of_one_artifact_leave_one_complete_artifact(store: Store) -> None:
    with store.writing(SPEC) as one, store.writing(SPEC) as other:
        assert one != other
        for out in (one, other):
            (out / "metrics.json").write_text("{}")
    assert store.find(KEY)
    assert [path.name for path in (store.root / "artifacts").iterdir()] == [f"train-{KEY}"]


def test_kinds_with_one_key_do_not_mix(store: Store) -> None:
    commit(store)
    assert not store.has("label", KEY)


def test_everything_is_on_the_disk_before_the_rename_and_the_rename_before_the_old_artifact_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a power loss leaves the old artifact or the new one, and no file without its content."""
    commit(store)
    done: list[str] = []
    rename, rmtree = Path.rename, shutil.rmtree

    def note(what: str, path: Path) -> None:
        done.append(f"{what} {re.sub('^tmp/[^/]*', 'draft', path.relative_to(store.root).as_posix())}")

    monkeypatch.setattr("w2sd.pipeline.store.sync", lambda path: note("sync", path))
    monkeypatch.setattr(Path, "rename", lambda path, place: (note("rename", path), rename(path, place)))
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: (note("remove", path), rmtree(path, **how)))
    place = commit(store)
    names = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.name != "spec.json"]
    assert sorted(done[: len(names) + 1]) == sorted([f"sync draft/new/{name}" for name in names] + ["sync draft/new"])
    there = f"artifacts/{place.name}"
    replaced = ["rename draft/new", f"rename {there}", "rename draft/new", "sync artifacts", "rename draft/old"]
    put_back = "rename draft/old"  # where there is nothing any more
    assert done[len(names) + 1 :] == [*replaced, put_back, "remove draft", f"remove work/{KEY}"]


def test_the_folders_of_a_new_store_are_on_the_disk_before_what_is_in_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("w2sd.pipeline.store.sync", synced.append)
    for n_new in (1, 0):
        synced.clear()
        commit(store)
        assert synced[:n_new].count(store.root) == synced.count(store.root) == n_new
        synced.clear()
        store.record({"id": "demo"})
        assert synced == [store.root] * n_new


@pytest.mark.parametrize("save", [partial(token_cache.save, rows=[]), partial(page._replace, content=b"page")])
def test_what_can_be_made_again_at_any_time_does_not_wait_for_the_disk(
    save: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    save(tmp_path / "folder/file")
    assert files(tmp_path).keys() == {"folder/file"}
    assert synced == []


def test_json_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = Path.replace
    monkeypatch.setattr("w2sd.atomic.sync", lambda path: done.append(f"sync {path.name.partition('.')[0]}"))
    monkeypatch.setattr(Path, "replace", lambda part, place: (done.append("replace"), replace(part, place)))
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "folder/file.json", 1)
    assert done == ["sync file", "replace", "sync folder"]


def killed(call: Callable[[], Any]) -> None:
    """Do something in a process of its own that SIGKILL ends, there if not before."""
    if (child := os.fork()) == 0:
        try:
            call()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_within(context: AbstractContextManager[Any]) -> None:
    with context:
        os.kill(os.getpid(), signal.SIGKILL)


def killing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the process in place of the rename of this number."""
    renames = iter(range(100))
    rename = Path.rename

    def renamed(path: Path, place: Path) -> Path:
        if next(renames) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["before", "between the renames", "after"])
def test_a_replacement_that_is_killed_loses_nothing(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three renames the first fails, since something is there, and the others replace it."""
    before = files(commit(store))
    with monkeypatch.context() as patched:
        killing(patched, number)
        killed(lambda: commit(store, payload={"metrics.json": b"new"}))
    assert store.has("train", KEY) == (number < 2)
    store.sweep()
    assert files(store.find(KEY)) == before
    assert not list((store.root / "tmp").iterdir())


def test_a_replacement_that_is_told_to_end_puts_back_what_it_was_to_replace(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(commit(store))
    rename = Path.rename

    def end(path: Path, place: Path) -> Path:
        if path.name == "new" and not place.exists():
            raise SystemExit(143)
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", end)
    with pytest.raises(SystemExit):
        commit(store, payload={"metrics.json": b"new"})
    assert files(store.find(KEY)) == before
    assert not list((store.root / "tmp").iterdir())


def test_an_artifact_that_was_replaced_never_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks fail, another writer may be between its two renames, and the place empty, when a draft is removed."""
    commit(store)
    clear = Store.clear

    def clear_late(store: Store, draft: Path) -> None:
        store.path("train", KEY).rename(store.root / "elsewhere")
        clear(store, draft)

    monkeypatch.setattr(Store, "clear", clear_late)
    commit(store, payload={"metrics.json": b"new"})
    assert not store.has_remains("train", KEY)
    assert files(store.root / "elsewhere")["metrics.json"] == b"new"


# --- what killed processes leave --------------------------------------------------------------------------------------


def test_the_draft_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(store: Store) -> None:
    killed(lambda: die_within(store.writing(SPEC)))
    assert len(list((store.root / "tmp").iterdir())) == 1
    with store.writing(SPEC) as out:
        store.sweep()
        assert [*(store.root / "tmp").iterdir()] == [out.parent]
    assert store.find(KEY)


def test_the_draft_of_another_machine_is_not_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("w2sd.pipeline.store.HOST", "elsewhere")
    killed(lambda: die_within(store.writing(SPEC)))
    for host, n_left in (("where", 1), ("else", 1), ("elsewhere", 0)):
        monkeypatch.setattr("w2sd.pipeline.store.HOST", host)
        store.sweep()
        assert len(list((store.root / "tmp").iterdir())) == n_left


def test_a_draft_that_was_swept_before_it_was_locked_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, swept = locks.take, []

    def late(path: Path) -> int | None:
        if not swept:
            swept.append(path)
            shutil.rmtree(path.parent)
        return take(path)

    monkeypatch.setattr(locks, "take", late)
    commit(store)
    assert store.find(KEY)
    assert len(swept) == 1


def test_the_lock_file_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(store: Store) -> None:
    killed(lambda: die_within(store.lock(["ba9876543210"], interrupt)))
    assert len(list((store.root / "locks").iterdir())) == 1
    with store.lock([KEY], interrupt):
        store.sweep()
        assert [path.stem for path in (store.root / "locks").iterdir()] == [KEY]


def test_what_a_finished_stage_had_to_go_on_from_is_swept_and_that_of_an_unfinished_one_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (KEY, "ba9876543210"):
        (store.work(key) / "last.ckpt").write_text("step 7")
    monkeypatch.setattr(Store, "forget", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    killed(lambda: commit(store))
    monkeypatch.undo()
    with store.lock([KEY], interrupt):  # forced, and running
        store.sweep()
        assert (store.work(KEY) / "last.ckpt").exists()
    shutil.rmtree(store.root / "locks")
    store.sweep()
    assert [path.name for path in (store.root / "work").iterdir()] == ["ba9876543210"]


@pytest.mark.parametrize("name", ["metrics.json", "weights.safetensors"])
def test_what_the_stage_of_a_damaged_artifact_has_to_go_on_from_is_not_swept(store: Store, name: str) -> None:
    """It was being computed again when it was killed."""
    truncate(commit(store, payload={"metrics.json": b"{}", "weights.safetensors": b"1"}) / name)
    with store.lock([KEY], interrupt):
        (store.work(KEY) / "last.ckpt").write_text("step 7")
    store.sweep()
    assert (store.work(KEY) / "last.ckpt").exists()


def test_half_a_record_is_swept_when_nobody_can_be_writing_it(store: Store) -> None:
    parts = [store.root / "jobs" / f"demo.json.{n}.part" for n in (1, 2)]
    parts[0].parent.mkdir(parents=True)
    for part in parts:
        part.touch()
    os.utime(parts[0], (time.time() - 2 * 86400,) * 2)
    store.sweep()
    assert [part.exists() for part in parts] == [False, True]


# --- damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", PAYLOAD)
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damage_to_any_file_is_found_when_it_is_read(store: Store, name: str, damage: Callable[[Path], Any]) -> None:
    place = commit(store)
    damage(place / name)
    message = failure(lambda: store.find(KEY))
    assert message == f"store: {place / name} is damaged; delete {place} and run again"


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", [*PAYLOAD, "spec.json"])
def test_a_damaged_artifact_is_not_there_but_leaves_remains(
    store: Store, name: str, damage: Callable[[Path], Any]
) -> None:
    assert not store.has_remains("train", KEY)
    damage(commit(store) / name)
    assert (store.has("train", KEY), store.has_remains("train", KEY)) == (False, True)
    commit(store)
    assert store.has("train", KEY)


def test_weights_are_checked_when_they_are_read_and_not_in_planning(store: Store) -> None:
    flip(commit(store, payload={"model.safetensors": b"0123"}) / "model.safetensors")
    assert store.has("train", KEY)
    assert not store.has("train", KEY, weights=True)
    assert "model.safetensors is damaged" in failure(lambda: store.find(KEY))


@pytest.mark.parametrize("name", ["train-ba9876543210", f"label-{KEY}"])
def test_an_artifact_under_the_name_of_another_is_damaged(store: Store, name: str) -> None:
    kind, _, key = name.partition("-")
    shutil.copytree(commit(store), store.path(kind, key))
    assert not store.has(kind, key)
    assert f"{name}/spec.json is damaged" in failure(lambda: store.spec(kind, key))


def test_a_copy_beside_an_artifact_is_not_taken_for_it(store: Store) -> None:
    place = commit(store)
    for n in range(5):
        shutil.copytree(place, place.with_name(f"copy-{n}-of-{place.name}"))
    assert store.folder(KEY) == place


@pytest.mark.parametrize("name", [*PAYLOAD, "spec.json"])
def test_an_artifact_that_lacks_a_file_is_not_there(store: Store, name: str) -> None:
    (commit(store) / name).unlink()
    assert not store.has("train", KEY)


@pytest.mark.parametrize("content", ["", "{", "\x00\x00"])
def test_an_artifact_with_a_broken_spec_is_not_there(store: Store, content: str) -> None:
    (commit(store) / "spec.json").write_text(content)
    assert not store.has("train", KEY)


@pytest.mark.parametrize("content", ["{}", "[]", '{"digests": null}'])
def test_an_artifact_with_a_spec_of_something_else_is_not_there(store: Store, content: str) -> None:
    (commit(store) / "spec.json").write_text(content)
    assert not store.has("train", KEY)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_damaged_spec_is_found_when_the_artifact_is_read(store: Store, content: str | None) -> None:
    place = commit(store)
    if content is None:
        (place / "spec.json").unlink()
    else:
        (place / "spec.json").write_text(content)
    assert str(place) in failure(lambda: store.find(KEY))


@pytest.mark.parametrize("name", PAYLOAD)
def test_one_file_is_checked_and_what_lies_beside_it_is_not(store: Store, name: str) -> None:
    place = commit(store)
    for other in {*PAYLOAD} - {name}:
        flip(place / other)
    assert store.file("train", KEY, name) == place / name
    flip(place / name)
    assert failure(lambda: store.file("train", KEY, name)).startswith(f"store: {place / name} is damaged; delete ")


def test_a_file_that_was_not_committed_is_not_part_of_an_artifact(store: Store) -> None:
    place = commit(store)
    (place / "late.json").write_text("{}")
    assert "late.json is damaged" in failure(lambda: store.file("train", KEY, "late.json"))


def test_json_is_read_as_it_was_committed(store: Store) -> None:
    place = commit(store)
    assert store.read("train", KEY, "metrics.json") == {}
    assert store.spec("train", KEY) == read_sealed(place / "spec.json")
    (place / "metrics.json").write_text('{"pgr": 1.0}')
    assert "metrics.json is damaged" in failure(lambda: store.read("train", KEY, "metrics.json"))
    (place / "spec.json").write_text("{}")
    assert "spec.json is damaged" in failure(lambda: store.spec("train", KEY))


def test_no_byte_of_a_sealed_file_can_change_without_a_word(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"id": "ü", "n": 10, "x": [1.5, None], "y": {"digest": "z"}}
    write_sealed(path, content)
    written = path.read_bytes()
    assert read_sealed(path) == content
    assert json.loads(written) == {**content, "digest": hashlib.sha256(written.rpartition(b",\n")[0]).hexdigest()}
    for place in range(len(written)):
        for bit in range(8):
            path.write_bytes(written[:place] + bytes([written[place] ^ 1 << bit]) + written[place + 1 :])
            with pytest.raises(ValueError, match="not as it was written"):
                read_sealed(path)
        for changed in (written[:place], written[place + 1 :], written[: place + 1] + written[place:]):
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="not as it was written"):
                read_sealed(path)


def test_what_is_gone_reads_as_nothing_and_has_no_files(store: Store) -> None:
    assert store.read("train", KEY, "metrics.json") is None
    assert store.spec("train", KEY) is None
    assert "no artifact 0123456789ab" in failure(lambda: store.file("train", KEY, "metrics.json"))


def test_what_other_machines_committed_is_found_though_nfs_answers_from_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played by a folder that is listed as it was until something in it changes."""
    place, listed = commit(store), Path.glob
    before = place.parent.stat().st_mtime_ns

    def remembered(folder: Path, pattern: str) -> Iterator[Path]:
        return iter(()) if folder.stat().st_mtime_ns == before else listed(folder, pattern)

    monkeypatch.setattr(Path, "glob", remembered)
    assert store.find(KEY) == place
    assert [*place.parent.iterdir()] == [place]


def test_a_store_is_found_wherever_it_was_moved(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store)
    shutil.move(store.root, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert Store("moved").find(KEY) == tmp_path / f"moved/artifacts/train-{KEY}"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/moved").has("train", KEY)


def test_a_store_stays_where_it_was_when_the_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert commit(store).is_relative_to(tmp_path / "store")


# --- locks ------------------------------------------------------------------------------------------------------------


def interrupt() -> None:
    """What to do instead of waiting."""
    raise InterruptedError


def test_a_free_lock_is_taken_without_waiting(store: Store) -> None:
    for _ in range(2):
        with store.lock([KEY], interrupt):
            pass


def test_a_lock_that_was_given_up_leaves_no_file(store: Store) -> None:
    with store.lock([KEY], interrupt):
        assert [path.name for path in (store.root / "locks").iterdir()] == [f"{KEY}.lock"]
    assert not list((store.root / "locks").iterdir())


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_file_that_was_removed_between_opening_and_locking_it_is_no_lock(
    is_made_anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that wait for a third would otherwise lock two files of one name."""
    path, flock = tmp_path / "lock", fcntl.flock
    first = locks.take(path)
    assert first is not None

    def slow(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        os.link(path, tmp_path / ".nfs1")  # as NFS renames a file that is open
        locks.give_up(path, first)
        if is_made_anew:
            path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    second = locks.take(path)
    assert second is not None
    assert os.path.samestat(os.fstat(second), path.stat())
    assert locks.take(path) is None


def test_a_child_that_inherits_a_lock_holds_it_after_its_parent(tmp_path: Path) -> None:
    held = locks.take(tmp_path / "lock")
    assert held is not None
    with subprocess.Popen(["sleep", "60"], pass_fds=[held]) as child:
        os.close(held)
        assert locks.take(tmp_path / "lock") is None
        child.kill()
    assert locks.take(tmp_path / "lock") is not None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with refused("store", str(store.root / "locks" / f"{KEY}.lock"), "locks"), store.lock([KEY], interrupt):
        pass


def test_a_lock_that_a_worker_holds_is_not_given_to_others_when_its_run_gives_it_up(store: Store) -> None:
    """A run that is told to end twice does not wait for its worker."""
    with store.lock([KEY], interrupt) as lock:
        worker = subprocess.Popen(["sleep", "60"], pass_fds=[lock.descriptor])
    with worker:
        with pytest.raises(InterruptedError), store.lock([KEY], interrupt):
            pass
        worker.kill()
    with store.lock([KEY], interrupt):
        pass
    assert not list((store.root / "locks").iterdir())


def test_the_second_holder_waits_until_the_first_is_done_and_says_so_once(store: Store) -> None:
    said, order = [], []
    waits = threading.Event()

    def second() -> None:
        def waiting() -> None:
            said.append("waiting")
            waits.set()

        with Store(store.root).lock([KEY], waiting):
            order.append("second")

    thread = threading.Thread(target=second)
    with store.lock([KEY], interrupt):
        thread.start()
        assert waits.wait(timeout=10)
        order.append("first")
    thread.join(timeout=10)
    assert (said, order) == (["waiting"], ["first", "second"])


def test_other_stages_are_not_locked(store: Store) -> None:
    with store.lock([KEY], interrupt), store.lock(["ba9876543210"], interrupt):
        pass


def test_who_gets_a_lock_sees_what_others_committed_until_then(store: Store) -> None:
    """NFS may list a folder from memory until something in it changes."""
    folder = commit(store).parent
    os.utime(folder, ns=(1, 1))
    with store.lock([KEY], interrupt):
        assert folder.stat().st_mtime_ns > 1


def test_a_lock_is_free_again_after_a_failure(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock([KEY], interrupt):
        raise RuntimeError
    with store.lock([KEY], interrupt):
        pass


def test_a_lock_dies_with_its_process(store: Store) -> None:
    script = (
        "import sys; from w2sd.pipeline.store import Store\n"
        "with Store(sys.argv[1]).lock([sys.argv[2]], sys.exit): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(store.root), KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InterruptedError), store.lock([KEY], interrupt):
            pass
        holder.kill()
    with store.lock([KEY], interrupt):
        pass


# --- records and JSON -------------------------------------------------------------------------------------------------


def test_a_job_is_recorded_under_its_id_and_again_in_its_place(store: Store) -> None:
    first, second = ({"id": "demo-0123", "compare": compare} for compare in (KEY, "other"))
    assert [store.record(job) for job in (first, second, {"id": "demo-4567"})] == [None, first, None]
    jobs = store.root / "jobs"
    assert sorted(path.name for path in jobs.iterdir()) == ["demo-0123.json", "demo-4567.json"]
    assert read_sealed(jobs / "demo-0123.json") == {"id": "demo-0123", "compare": "other"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "demo"}', "[" * 100_000])
def test_a_record_that_cannot_be_read_is_replaced(store: Store, content: str) -> None:
    (store.root / "jobs").mkdir(parents=True)
    (store.root / "jobs" / "demo.json").write_text(content)
    assert store.record({"id": "demo"}) is None
    assert read_sealed(store.root / "jobs" / "demo.json") == {"id": "demo"}


def test_json_has_one_form(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1, 2.5, None], "a": {"ü": True}})
    write_json(tmp_path / "b", {"a": {"ü": True}, "b": [1, 2.5, None]})
    expected = '{\n "a": {\n  "ü": true\n },\n "b": [\n  1,\n  2.5,\n  null\n ]\n}\n'
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == expected.encode()


content = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(database=None, deadline=None, max_examples=60)
@given(value=content)
def test_json_comes_back_as_it_was(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"a": {"b": math.nan}}])
def test_json_without_a_number_is_refused_and_changes_nothing(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "metrics.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", value)
    assert files(tmp_path) == {"metrics.json": json.dumps({"a": 1}, indent=1).encode() + b"\n"}


def test_a_reader_of_json_sees_the_old_or_the_new_file_and_never_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    seen = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda part, place: (seen.append(read_json(path)), replace(part, place)))
    write_json(path, 2)
    assert (seen, read_json(path)) == ([1], 2)


def test_a_file_that_cannot_take_its_place_is_not_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_json(tmp_path / "a", 1)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("size", [0, 1, 3 * 2**20])
def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"a" * size)
    assert digest_file(tmp_path / "file") == hashlib.sha256(b"a" * size).hexdigest()


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        locks.take(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
