"""`w2sd-report`: what it writes, what it refuses, what it never imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.builders import assert_refusal
from tests.report.writing import read

from w2sd.cli import show
from w2sd.report.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_prints_the_table_and_says_where_it_wrote(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    code, said, _ = run(capsys, "--store", str(sweep.root), "--out", str(out), "--by", "conflict", "--metric", "pgr")
    assert code == 0
    assert "0.250 [−0.385, 0.885] (1 null¹)" in said
    assert f"page: {out / 'index.html'}" in said
    assert (out / "results.csv").read_text().count("\n") == 7
    assert "| Explicit | 3 | 0.250" in (out / "table.md").read_text()
    assert (out / "figures/pgr.png").read_bytes().startswith(b"\x89PNG")


def test_where_selects_and_a_family_of_metrics_is_one_word(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    code, said, _ = run(
        capsys, "--store", str(sweep.root), "--out", str(tmp_path), "--metric", "accuracy",
        "--where", "conflict=Explicit", "fit.lr=0.00001", "--where", "seed=0", "seed=1",
    )  # fmt: skip
    assert code == 0
    assert "ceiling" in said
    assert (tmp_path / "results.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["--by", "conflit"], ("--by", "conflit", "conflict", "conflict")),
        (["--metric", "prg"], ("--metric", "prg", "accuracy/weak", "pgr")),
        (["--name", "pairs"], ("--name", "pairs", "pair", "pair")),
        (["--where", "seed=7"], ("--where seed", "7", "0 1 2")),
        (["--where", "seed"], ("--where", "seed", "KEY=VALUE")),
        (["--where", "sed=1"], ("--where", "sed", "", "seed")),
    ],
)
def test_a_wrong_word_is_one_line(
    sweep: Any, tmp_path: Path, capsys: Any, arguments: list[str], refusal: tuple[Any, ...]
) -> None:
    code, _, error = run(capsys, "--store", str(sweep.root), "--out", str(tmp_path / "out"), *arguments)
    assert code == 2
    assert_refusal(error, *refusal, program="w2sd-report")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "program", "refusal"),
    [
        (["--byy", "seed"], "w2sd-report", ("flags", "--byy", "", "--by")),
        (["gc", "--yse"], "w2sd-report", ("flags", "--yse", "", "--yes")),
        (["gc", "--by", "seed"], "w2sd-report gc", ("flags", "--by", "--help --yes")),
        (["gcc"], "w2sd-report", ("command", "gcc", "gc", "gc")),
    ],
)
def test_a_wrong_flag_is_one_line(capsys: Any, arguments: list[str], program: str, refusal: tuple[Any, ...]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert_refusal(capsys.readouterr().err, *refusal, program=program)


def test_a_reader_that_leaves_ends_it_quietly(command_to_closed_pipe: Any) -> None:
    assert command_to_closed_pipe("w2sd.report.cli", "--help") == (141, "")


def test_an_empty_store_says_what_to_run(empty: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2SD_STORE", str(empty))
    code, _, error = run(capsys)
    assert code == 2
    assert_refusal(error, "store", str(empty), "experiment=demo", program="w2sd-report")
    assert not empty.exists()


def test_damaged_files_are_left_out_and_told_here_and_on_the_page(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    paths = sorted((sweep.root / "artifacts").glob("compare-*/metrics.json"))[:2]
    for path in paths:
        path.write_text("{}")
    code, said, _ = run(capsys, "--store", str(sweep.root), "--out", str(tmp_path / "out"))
    page = read(tmp_path / "out/index.html").text
    assert code == 0
    for line in ["Left out: 2 damaged files.", *(f"{p} is damaged; delete {p.parent} and run again" for p in paths)]:
        assert line in page
        assert line in said.splitlines()
    assert (tmp_path / "out/results.csv").read_text().count("\n") == 5


def test_of_many_damaged_files_some_are_named(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    for path in sorted((sweep.root / "artifacts").glob("*/runtime.json")):
        path.write_text("")
    code, said, _ = run(capsys, "--store", str(sweep.root), "--out", str(tmp_path / "out"))
    n = len(list((sweep.root / "artifacts").iterdir()))
    lines = said.splitlines()
    start = lines.index(f"Left out: {n} damaged files.")
    assert (code, lines[start + 11 :][:1]) == (0, [f"And {n - 10} more."])
    assert all(line.endswith("and run again") for line in lines[start + 1 : start + 11])


def test_a_store_in_which_every_job_is_damaged_is_refused_with_the_remedy(
    fake: Any, tmp_path: Path, capsys: Any
) -> None:
    path = fake.root / "jobs" / f"{fake.add()['id']}.json"
    path.write_text("{")
    code, _, error = run(capsys, "--store", str(fake.root), "--out", str(tmp_path / "out"))
    assert code == 2
    assert_refusal(error, "store", str(fake.root), f"{path} damaged delete", program="w2sd-report")


def test_the_damaged_record_of_another_job_does_not_end_a_run(fake: Any, tmp_path: Path, capsys: Any) -> None:
    own, other = fake.add(seed=0), fake.add(seed=1)
    (fake.root / f"jobs/{other['id']}.json").write_bytes(bytes(range(256)))
    show(fake.root, tmp_path, job=own["id"])
    assert f"{other['id']}.json is damaged" in capsys.readouterr().out
    assert f"{other['id']}.json is damaged" in read(tmp_path / "index.html").text


def test_gc_deletes_nothing_while_it_cannot_know_what_is_needed(sweep: Any, capsys: Any) -> None:
    path = next((sweep.root / "artifacts").glob("compare-*/metrics.json"))
    (path.parent / "spec.json").write_text("{}")
    code, _, error = run(capsys, "gc", "--store", str(sweep.root), "--yes")
    assert (code, error) == (
        1,
        f"w2sd-report: store: {path.parent / 'spec.json'} is damaged; delete {path.parent} and run again\n",
    )


def test_a_place_that_cannot_be_written_is_one_line(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").write_text("a file")
    code, _, error = run(capsys, "--store", str(sweep.root), "--out", str(tmp_path / "out"))
    assert (code, error) == (1, f"w2sd-report: {tmp_path / 'out'}: File exists\n")


PROGRAM = """
import sys
from w2sd.report.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "pytorch_lightning", "torchmetrics", "hydra"} & set(sys.modules)
assert not heavy, heavy
assert "--out" in sys.argv or not {"pandas", "matplotlib"} & set(sys.modules)
sys.exit(code)
"""


def test_nothing_heavy_is_imported(sweep: Any, tmp_path: Path) -> None:
    where = ["--store", str(sweep.root)]
    for arguments in ([*where, "--out", str(tmp_path / "out")], ["gc", *where]):
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
