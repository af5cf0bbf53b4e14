"""Theories from the command line to the page: tiny ones, in a process that never loads torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.builders import assert_refusal

from w2sd import cli
from w2sd.report.cli import main as report

TINY = {
    "benign_overfitting": ["theory.ns=[8,16]", "theory.us=[0.4,1.0]", "theory.replicates=2"],
    "misfit": ["theory.features=4", "theory.rows=40", "theory.new_rows=80", "theory.teachers=3", "theory.replicates=2"],
}
PROGRAM = """
import sys
from w2sd import cli
code = cli.main()
heavy = {"torch", "transformers", "pytorch_lightning", "torchmetrics"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


class Ran(NamedTuple):
    said: dict[str, str]
    root: Path


def words(root: Path, name: str) -> list[str]:
    return [f"experiment=theory/{name}", *TINY[name], f"store={root / 'store'}", f"out={root / 'report'}"]


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """`w2sd` in this process."""
    monkeypatch.setattr(sys, "argv", ["w2sd", *arguments])
    capsys.readouterr()
    try:
        code = cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Both theories; the processes run side by side."""
    root = tmp_path_factory.mktemp("theories")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = {name: subprocess.Popen([sys.executable, "-c", PROGRAM, *words(root, name)], **pipes) for name in TINY}
    said = {name: process.communicate() for name, process in started.items()}
    assert [process.returncode for process in started.values()] == [0, 0], said
    return Ran({name: out for name, (out, _) in said.items()}, root)


def test_a_theory_ends_with_its_table(ran: Ran) -> None:
    assert ran.said["benign_overfitting"].startswith("Benign overfitting · 95% intervals over replicates\n")
    assert "\nerror, weak model (largest n) " in ran.said["benign_overfitting"]
    assert "\nranking teachers by risk − misfit " in ran.said["misfit"]
    for said in ran.said.values():
        assert f"page: {ran.root / 'report/index.html'}" in said


def test_the_artifact_has_figures_and_every_point_behind_them(ran: Ran) -> None:
    folders = sorted((ran.root / "store/artifacts").iterdir())
    assert [folder.name.partition("-")[0] for folder in folders] == ["simulate", "simulate"]
    counts = {}
    for folder in folders:
        spec, metrics = (json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "metrics"))
        assert spec["params"].keys() == {"seed", "theory"}
        with (folder / "curves.csv").open() as file:
            rows = list(csv.DictReader(file))
        counts[spec["params"]["theory"]["_target_"].rpartition(".")[2]] = len(rows)
        assert all(value is None or isinstance(value, int | float) for value in metrics.values())
    assert counts == {"BenignOverfitting": 2 * 2 * 2, "Misfit": 2 * (3 + 7 + 5)}


def test_the_record_of_the_job_has_no_models_or_data(ran: Ran) -> None:
    for path in (ran.root / "store/jobs").glob("*.json"):
        job = json.loads(path.read_text())
        assert job["config"].keys() >= {"theory", "seed", "trainer", "logger", "name"}
        assert not job["config"].keys() & {"data", "weak", "strong", "fit", "objective"}
        assert [*job["stages"]] == ["simulate"]


def test_what_was_simulated_is_found_again(
    ran: Ran, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, *words(ran.root, "misfit"))
    assert (code, out) == (0, ran.said["misfit"])
    assert "every stage was found in the store" in err


def test_the_report_has_a_section_for_each(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--store", str(ran.root / "store"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Benign overfitting · " in said
    assert "Misfit · " in said
    page = (tmp_path / "index.html").read_text()
    for title, figure in (("Benign overfitting", "benign_overfitting"), ("Misfit", "misfit")):
        assert f"<h2>Theory: {title}</h2>" in page
        assert (tmp_path / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert f"### {title}\n" in (tmp_path / "table.md").read_text()
    assert page.count('<figure role="img"') == 2


def test_a_value_of_no_theory_says_what_to_choose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "theory.rows=50")
    assert (code, out) == (2, "")
    assert_refusal(err, "theory.rows", "50", "theory=OPTION")
