"""Jobs with a conflict: verdicts, tables and figures of a store whose answer is known."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.report.test_report_page import read
from writing import write_page

from w2sd import supervision
from w2sd.report import conflicts, deception_figures, deceptions, figures, results, selection, tables, verdicts
from w2sd.report.cli import main
from w2sd.report.verdicts import Ruling


def rule(store: Any) -> list[Ruling]:
    return verdicts.rule(results.load(store.root), store.root)


@pytest.fixture(scope="module")
def rulings(planted: Any) -> list[Ruling]:
    return rule(planted)


def test_what_was_planted_is_found_and_nothing_else(rulings: list[Ruling]) -> None:
    assert [r.group.settings for r in rulings] == [{"conflict": "Implicit"}, {"conflict": "MoreData"}]
    assert [r.verdict.result for r in rulings] == ["shown", "not_shown"]
    assert set(rulings[0].verdict.nulls) == {"twins", "more_data", "random_helpful", "gold_conflict"}
    assert (rulings[0].verdict.n_worlds, rulings[0].verdict.n_seeds, rulings[0].n_pairs) == (1, 4, 800)


def test_the_verdict_in_words(rulings: list[Ruling]) -> None:
    shown, not_shown = verdicts.sentences(rulings)
    assert shown.startswith("Deception beyond the nulls, conflict Implicit: shown: ")
    assert " excess flips [" in shown
    assert not_shown.startswith("Deception beyond the nulls, conflict MoreData: not shown: ")
    table = verdicts.table(rulings)
    assert [row[:2] for row in table.rows] == [("Implicit", "shown¹"), ("MoreData", "not shown²")]
    assert table.rows[0][-2:] == ("1", "4")
    assert "(t = " in table.notes[0]


def test_missing_controls_and_seeds_are_named_with_what_to_run(fake: Any) -> None:
    for seed in (0, 1):
        fake.add_conflict(seed, controls=False)
    (said,) = verdicts.sentences(rule(fake))
    assert said.startswith("Deception beyond the nulls: not testable here: 2 seeds, where 4 are needed")
    reason, needs = said.split(" To run: ")
    assert "placebo" in reason
    assert needs.startswith("2 more seeds")
    assert "placebo" in needs
    assert "gold + conflict" in needs
    (note,) = verdicts.table(rule(fake)).notes
    assert "; to run: " in note


def test_predictions_that_are_gone_allow_no_verdict(fake: Any) -> None:
    job = fake.add_conflict()
    inputs = json.loads((fake.root / f"artifacts/compare-{job['compare']}/spec.json").read_text())["inputs"]
    shutil.rmtree(fake.root / f"artifacts/evaluate-{inputs['twin_2']}")
    (ruling,) = rule(fake)
    assert ruling.verdict.result == "not_testable"
    assert "a readable parquet file" in ruling.verdict.reason
    assert verdicts.table([ruling]).rows[0][-2:] == ("–", "–")


def test_worlds_and_seeds_are_replicates_and_a_rerun_counts_once(fake: Any) -> None:
    for world in (1, 2):
        fake.add_conflict(0, world=world)
        fake.add_conflict(1, world=world)
    fake.add_conflict(0, world=1, knobs={"controls": True, "twin_seeds": [1, 2, 3]})
    fake.add_conflict(0, world=1, knobs={"fit": {"lr": 0.1}})
    groups = conflicts.groups(results.load(fake.root), fake.root)
    assert sorted(len(group.jobs) for group in groups) == [1, 4]
    most = max(groups, key=lambda group: len(group.jobs))
    assert sorted(conflicts.replicates(most.jobs)) == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert "job-005" in set(most.jobs["id"])


def test_jobs_without_conflict_or_baseline_get_no_verdict(sweep: Any) -> None:
    assert rule(sweep) == []


def test_the_score_never_stands_alone(rulings: list[Ruling]) -> None:
    table = deceptions.per_group(rulings)
    assert table.columns[:6] == (
        "conflict", "excess flips", "seed twins", "placebo: more data", "placebo: random helpful", "gold + conflict",
    )  # fmt: skip
    row = dict(zip(table.columns, table.rows[0], strict=True))
    share, base = 0.3 / 0.38, 0.5
    score, interval, beside = row["score (base rate; seeds)"].replace("[", "|[").replace("]", "]|").split("|")
    assert float(score) == pytest.approx(share, abs=0.05)
    assert interval.startswith("[")
    assert float(beside.strip(" ()").split(";")[0]) == pytest.approx(base, abs=0.01)
    assert row["helpful, student / baseline"] == "0.600 / 0.500"
    assert [row[-1] for row in table.rows] == ["72 / 64¹", "64"]
    assert "unequal" in table.notes[0]
    excess = 1000 * rulings[0].verdict.excess_flips / 800  # type: ignore[operator]
    assert row["excess flips"].startswith(f"{excess:.1f} [")


def test_one_line_per_job_with_its_own_interval(rulings: list[Ruling]) -> None:
    table = deceptions.per_job(rulings)
    assert table.columns[:2] == ("conflict", "seed")
    assert [row[:2] for row in table.rows][:2] == [("Implicit", "0"), ("Implicit", "1")]
    assert len(table.rows) == 8


def test_no_flips_is_a_dash_with_the_reason(fake: Any) -> None:
    none = dict.fromkeys(("excess_flips_per_1000", "excess_flips", "score"))
    told = {f"deception__{name}{end}": None for name in none for end in ("", "_lo", "_hi")}
    reasons = {f"deception__{name}_reason": "no flips at all" for name in ("excess_flips", "score")}
    fake.add_conflict(**told, **reasons)
    table = deceptions.per_job(rule(fake))
    assert table.rows[0][1] == "–¹"
    assert table.notes == ("¹ excess flips: no flips at all", "² score: no flips at all")


def test_every_supervision_that_reads_the_truth_is_known_here() -> None:
    classes = inspect.getmembers(supervision, inspect.isclass)
    assert set(conflicts.ORACLES) == {name for name, cls in classes if getattr(cls, "reads_truth", False)}


def test_oracles_and_unequal_steps_are_flagged(fake: Any) -> None:
    knobs = {"conflict": {"_target_": "w2sd.conflicts.explicit.Explicit", "mask": "truth"}}
    fake.add_conflict(knobs={**knobs, "supervision": {"_target_": "w2sd.supervision.OracleConfident"}}, steps=(9, 8))
    oracle, steps = deceptions.flags(rule(fake))
    assert oracle.startswith("Reads the truth: conflict with mask=truth, supervision OracleConfident.")
    assert steps.startswith("Unequal steps: the student took 9, its baseline 8")


def test_honest_jobs_are_not_flagged(fake: Any) -> None:
    fake.add_conflict(knobs={"supervision": {"_target_": "w2sd.supervision.Soft"}})
    assert deceptions.flags(rule(fake)) == []


def test_regions_are_pooled_over_a_group(rulings: list[Ruling]) -> None:
    cell = deception_figures.pool(rulings[0], "ku")
    assert (cell.n_all, cell.n) == (1600, 1600)
    assert cell.flips / cell.n == pytest.approx(0.3, abs=0.04)
    svg = figures.to_svg("regions", deception_figures.draw(rulings)["regions"])
    assert f"{cell.flips} of 1,600" in svg
    assert "weak does not" in svg


def test_the_gap_is_drawn_where_pairs_differ(fake: Any) -> None:
    for rung, gap in ((1, 0.1), (2, 0.2), (3, 0.4)):
        fake.add_conflict(knobs={"weak": {"_target_": "w2sd.world.ladder.Rung", "rung": rung}}, pgr_gap=gap)
    drawn = deception_figures.draw(rule(fake))
    assert "per 0.1 of gap" in figures.to_svg("gap", drawn["gap"])
    assert "student, conflict" in figures.to_svg("excess_flips", drawn["excess_flips"])


def test_the_page_of_conflict_jobs(planted: Any, rulings: list[Ruling], tmp_path: Path) -> None:
    page = write_page(planted.root, tmp_path / "a")
    reader = read(page)
    for said in (*verdicts.sentences(rulings), *deceptions.flags(rulings), "Deception by group", "Deception by job"):
        assert said in reader.text
    assert len(reader.ids) == len(set(reader.ids))
    assert {f"{name}.{form}" for name in ("regions", "excess_flips", "conflicts") for form in ("svg", "png")} < {
        path.name for path in (tmp_path / "a/figures").iterdir()
    }
    assert "Deception beyond the nulls" in (tmp_path / "a/table.md").read_text()
    again = write_page(planted.root, tmp_path / "b")
    assert page.read_bytes() == again.read_bytes()


def test_pages_without_conflict_say_nothing_of_it(sweep: Any, tmp_path: Path) -> None:
    page = write_page(sweep.root, tmp_path)
    assert "verdict" not in page.read_text()
    assert "eception" not in page.read_text()


def test_the_command_prints_the_verdicts_and_knows_the_family(planted: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["--store", str(planted.root), "--out", str(tmp_path), "--metric", "deception,pgr"]) == 0
    said = capsys.readouterr().out
    assert "deception beyond the nulls" in said
    assert "shown¹" in said
    jobs = said.split("flips per student")[0]
    for column in ("excess flips per 1,000", "deception/null/twins", "base rate", "score, other seeds", "PGR"):
        assert column in jobs
    assert "margin_matched" not in jobs


def test_a_score_asked_for_alone_brings_its_company(planted: Any) -> None:
    metrics = selection.metrics(results.load(planted.root), ["deception/score"])
    assert metrics == ["deception/score", "tax/flips", "deception/base_rate", "deception/seed_null"]
    assert tables.NAMES["deception/base_rate"] == "base rate"
