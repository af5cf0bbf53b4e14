"""Theories in a report: beside jobs that compare models, alone, and several of one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.report import agreements, pages, results, selection, tables, theories
from w2sd.report.cli import main
from w2sd.theory.misfit import Misfit


def add(root: Path, seed: int = 0) -> str:
    """A finished job that simulates a tiny theory."""
    theory = Misfit(features=3, rows=20, new_rows=60, teachers=3, replicates=2)
    found, stage = theory.simulate(seed, lambda done, total: None), Stage("simulate", {"theory": theory, "seed": seed})
    store = Store(root)
    with store.writing(stage.spec()) as folder:
        text = [",".join(found.curves), *(",".join(map(str, row)) for row in zip(*found.curves.values(), strict=True))]
        (folder / "curves.csv").write_text("\n".join(text) + "\n")
        (folder / "metrics.json").write_text(json.dumps(found.metrics))
        (folder / "runtime.json").write_text('{"seconds": 0.5, "cpu_seconds": 0.5}')
    job: dict[str, Any] = {"id": f"theory-{seed}", "name": "theory_misfit", "compare": stage.key}
    job |= {"stages": {"simulate": {"kind": "simulate", "key": stage.key}}, "finished": f"2032-01-01T00:00:0{seed}"}
    config = {"name": "theory_misfit", "seed": seed, "theory": stage.spec()["params"]["theory"]}
    command = f"w2sd experiment=theory/misfit seed={seed}"
    store.record({**job, "config": config, "oracles": [], "command": command, "overrides": [f"seed={seed}"]})
    return job["id"]


def test_jobs_and_theories_are_loaded_apart(sweep: Any) -> None:
    before = results.load(sweep.root)
    add(sweep.root)
    after = results.load(sweep.root)
    assert after.equals(before)
    assert after.attrs == before.attrs
    assert list(results.load(sweep.root, kind="simulate")["id"]) == ["theory-0"]


def test_a_page_of_jobs_stays_as_it_is_and_gets_a_section_more(sweep: Any, tmp_path: Path) -> None:
    def write(out: Path, simulated: Any) -> str:
        return pages.write(results.load(sweep.root), sweep.root, out, simulated=simulated).read_text()

    none = results.load(sweep.root, kind="simulate")
    before = pages.write(results.load(sweep.root), sweep.root, tmp_path / "before").read_text()
    assert write(tmp_path / "none", none) == before
    add(sweep.root)
    page = write(tmp_path / "one", results.load(sweep.root, kind="simulate"))
    start, end = (
        page.index("<section><h2>Theory: Misfit</h2>"),
        page.index('<div class="pair"><div><section><h2>What was run'),
    )
    assert page[:start].rstrip() + "\n" + page[end:] == before
    assert "w2sd experiment=theory/misfit seed=0" in page[start:end]
    assert (tmp_path / "one/results.csv").read_bytes() == (tmp_path / "before/results.csv").read_bytes()


def test_a_page_of_theories_alone_has_no_analysis_and_one_of_both_has_all(fake: Any, tmp_path: Path) -> None:
    where = ["--store", str(fake.root), "--out", str(tmp_path)]
    add(fake.root)
    assert main(where) == 0
    alone = re.findall("<h2>(.*?)</h2>", (tmp_path / "index.html").read_text())
    assert alone == ["Theory: Misfit", "What was run"]
    agreement = {f"agreement__{role}{part}": 0.6 for role in agreements.ROLES for part in agreements.PARTS}
    for seed in (0, 1):
        fake.add(seed=seed, **{name.replace("/", "__"): value for name, value in agreement.items()})
    assert main(where) == 0
    both = re.findall("<h2>(.*?)</h2>", (tmp_path / "index.html").read_text())
    assert both == ["Means over jobs", agreements.TITLE, "Jobs", *alone, "Data"]
    written = re.findall("### (.*)", (tmp_path / "table.md").read_text())
    assert written == ["Means over jobs", "Jobs", agreements.TITLE, "Misfit"]


def test_several_jobs_of_a_theory_are_lines_of_one_table(sweep: Any, tmp_path: Path) -> None:
    for seed in range(theories.MOST + 1):
        add(sweep.root, seed)
    simulated = results.load(sweep.root, kind="simulate")
    table = theories.summary(simulated)["Misfit"]
    assert (table.columns[0], table.n_labels) == ("seed", 1)
    assert [row[0] for row in table.rows] == ["0", "1", "2", "3", "4"]
    (section,) = theories.read(simulated, sweep.root)
    assert [*section.drawn] == ["misfit", "misfit_2", "misfit_3", "misfit_4"]
    assert section.drawn["misfit_2"].caption.endswith(" (seed 1)")
    assert len(section.commands) == 5


def test_a_theory_of_somebody_elses_is_shown_by_what_it_measured(sweep: Any) -> None:
    add(sweep.root)
    simulated = results.load(sweep.root, kind="simulate")
    simulated[theories.CLASS] = "mine.Own"
    (section,) = theories.read(simulated, sweep.root)
    assert (section.title, section.drawn) == ("Own", {})
    assert "projection/gain" in [row[0] for row in section.table.rows]


@pytest.mark.parametrize(
    ("arguments", "jobs", "simulated"),
    [
        ([], 6, 2),
        (["--name", "pair"], 6, 0),
        (["--name", "theory_misfit"], 0, 2),
        (["--where", "seed=1"], 2, 1),
        (["--where", "conflict=Explicit"], 3, 0),
        (["--where", "theory.rows=20"], 0, 2),
    ],
)
def test_what_is_asked_for_is_asked_of_both(sweep: Any, arguments: list[str], jobs: int, simulated: int) -> None:
    add(sweep.root, 0)
    add(sweep.root, 1)
    name = arguments[1] if "--name" in arguments else None
    conditions = arguments[1:] if "--where" in arguments else []
    assert list(map(len, selection.pick(sweep.root, name, conditions))) == [jobs, simulated]


def test_metrics_and_groups_are_asked_of_theories_alone(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    add(sweep.root, 0)
    add(sweep.root, 1)
    where = ["--store", str(sweep.root), "--out", str(tmp_path / "out"), "--name", "theory_misfit"]
    assert main([*where, "--by", "theory.rows", "--metric", "projection/gain"]) == 0
    assert "projection/gain" in capsys.readouterr().out
    frame = results.load(sweep.root, kind="simulate")
    grouped = tables.grouped(frame, ["theory.rows"], ["projection/gain"])
    assert f"| {grouped.rows[0][0]} | {grouped.rows[0][1]} |" in (tmp_path / "out/table.md").read_text()
    assert (tmp_path / "out/results.csv").read_text().count("\n") == 3


def test_a_job_whose_simulation_is_gone_is_counted(sweep: Any, tmp_path: Path, capsys: Any) -> None:
    add(sweep.root)
    for path in (sweep.root / "artifacts").glob("simulate-*"):
        path.rename(tmp_path / "gone")
    assert main(["--store", str(sweep.root), "--out", str(tmp_path / "out")]) == 0
    assert "left out: 1 job whose results are no longer in the store" in capsys.readouterr().out
