"""The store: an artifact is there completely or not at all, and what is read is what was written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from w2sd.atomic import digest_file, read_json, read_sealed, write_json, write_sealed
from w2sd.errors import StageFailed
from w2sd.pipeline.store import Store

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
