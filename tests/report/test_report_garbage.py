"""`w2sd-report gc` removes what no job can reach, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tests.builders import assert_refusal, refused

from w2sd.report import garbage
from w2sd.report.cli import main

ORPHAN, RUNNING = "0a1b2c3d4e5f", "ffffffffffff"


@pytest.fixture
def store(sweep: Any) -> Path:
    """Six jobs, one of them forgotten; an orphan, and drafts that were cut off."""
    (sweep.root / "jobs/job-001.json").unlink()
    for folder in (f"artifacts/train-{ORPHAN}", f"tmp/train-{ORPHAN}-x8k2", "tmp/old-abc"):
        leave(sweep.root / folder)
    (sweep.root / "locks").mkdir()
    return sweep.root


def leave(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * 1000)


def names(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for part in ("artifacts", "tmp", "work") for path in (store / part).glob("*")}


def test_it_lists_first_and_deletes_only_when_told(store: Path, capsys: Any) -> None:
    before = names(store)
    assert main(["gc", "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert f"1.0 kB  artifacts/train-{ORPHAN}" in said
    assert "in 6 folders can go; add --yes to delete" in said  # three by hand, three of the forgotten job
    assert names(store) == before

    assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert "deleted" in capsys.readouterr().out
    gone = before - names(store)
    assert len(gone) == 6
    assert {f"artifacts/train-{ORPHAN}", f"tmp/train-{ORPHAN}-x8k2", "tmp/old-abc"} < gone
    assert main(["--store", str(store), "--out", str(store.parent / "out")]) == 0  # what is left is whole

    capsys.readouterr()
    assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert "deleted 0 B in 0 folders" in capsys.readouterr().out


def test_what_an_interrupted_run_may_go_on_from_stays_unless_told(store: Path, capsys: Any) -> None:
    """Its checkpoint, and what it finished before: no record leads there, for a job is recorded when it is finished."""
    leave(store / f"work/{RUNNING}")
    (store / f"work/{RUNNING}/last.ckpt").touch()
    before = names(store)
    assert main(["gc", "--store", str(store), "--yes"]) == 0
    said = capsys.readouterr().out
    for kept in (f"artifacts/train-{ORPHAN}", f"work/{RUNNING}"):
        assert f"{kept}  kept: an interrupted run may go on from it (--interrupted: delete it too)" in said
    assert before - names(store) == {f"tmp/train-{ORPHAN}-x8k2", "tmp/old-abc"}

    assert main(["gc", "--store", str(store), "--interrupted"]) == 0
    assert "in 5 folders can go" in capsys.readouterr().out
    assert main(["gc", "--store", str(store), "--interrupted", "--yes"]) == 0
    assert {f"artifacts/train-{ORPHAN}", f"work/{RUNNING}"} < before - names(store)


def test_a_stage_that_failed_without_a_checkpoint_keeps_nothing(store: Path) -> None:
    leave(store / f"work/{RUNNING}")  # with the log of its worker
    (store / f"work/{ORPHAN}").mkdir()
    assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert not {f"work/{RUNNING}", f"work/{ORPHAN}", f"artifacts/train-{ORPHAN}"} & names(store)


def test_what_a_running_stage_holds_or_may_need_stays(store: Path, capsys: Any) -> None:
    leave(store / f"work/{RUNNING}")
    before = names(store)
    with FileLock(store / f"locks/{RUNNING}.lock"):
        assert main(["gc", "--store", str(store), "--yes"]) == 0
    said = capsys.readouterr().out
    assert f"work/{RUNNING}  kept: a running stage holds its lock" in said
    assert f"artifacts/train-{ORPHAN}  kept: it may belong to a running job" in said
    assert "tmp/old-abc  kept: it may belong to a running job" in said
    assert before - names(store) == {f"tmp/train-{ORPHAN}-x8k2"}


def test_tokens_go_too_unless_a_stage_may_be_reading_them(store: Path, capsys: Any) -> None:
    (store / "tokens").mkdir()
    (store / "tokens/0.safetensors").write_bytes(b"x" * 2000)
    with FileLock(store / f"locks/{RUNNING}.lock"):
        assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert (store / "tokens/0.safetensors").exists()
    assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert "2.0 kB  tokens" in capsys.readouterr().out
    assert not (store / "tokens").exists()


def test_a_stage_that_starts_meanwhile_keeps_its_folder(store: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("w2sd.report.garbage.held", lambda _: set())
    with FileLock(store / f"locks/{ORPHAN}.lock"):
        assert main(["gc", "--store", str(store), "--yes"]) == 0
    assert f"artifacts/train-{ORPHAN}" in names(store)
    assert "kept: a running stage has just taken it" in capsys.readouterr().out


def test_it_refuses_a_folder_that_is_no_store(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tmp/precious").mkdir(parents=True)
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 2
    assert_refusal(capsys.readouterr().err, "store", str(tmp_path), "artifacts", program="w2sd-report")
    assert (tmp_path / "tmp/precious").exists()


def test_a_record_that_cannot_be_read_stops_it(store: Path, capsys: Any) -> None:
    before = names(store)
    (store / "jobs/job-002.json").write_text("{")
    assert main(["gc", "--store", str(store), "--yes"]) == 1
    record = store / "jobs/job-002.json"
    assert capsys.readouterr().err == f"w2sd-report: store: {record} is damaged; delete {record} and run again\n"
    assert names(store) == before


@pytest.mark.parametrize("name", ["artifacts", "work", "tmp", "tokens"])
def test_nothing_is_deleted_through_a_link(tmp_path: Path, name: str) -> None:
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (store / "artifacts").mkdir(parents=True)
    if (store / name).is_dir():
        (store / name).rmdir()
    (store / name).symlink_to(elsewhere)
    with refused("store", str(store / name), "no link"):
        garbage.find(store)
    assert (elsewhere / "sub").is_dir()
