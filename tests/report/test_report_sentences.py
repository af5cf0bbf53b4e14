"""The result in one sentence, and what a reader has to know first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.report.writing import read, write_page

from w2sd.report import results, sentences
from w2sd.report.cli import main

pytestmark = pytest.mark.usefixtures("no_images")
STOPPING = {"_target_": "w2sd.parts.stopping.Stopping"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"pgr": None, "pgr_lo": None, "pgr_hi": None, "accuracy__ceiling": 0.78},
            "The student gained 0.130 [0.115, 0.144] in accuracy over its weak teacher (0.787). "
            "There is no PGR: the ceiling (0.780) is not above the weak teacher (0.787).",
        ),
        (
            {"pgr": -0.1, "pgr_lo": -0.2, "pgr_hi": 0.02, "accuracy__student": 0.76},
            "The student (0.760) fell below its weak teacher: it recovered −10% [−20, 2] of the gap "
            "between weak teacher (0.787) and ceiling (0.996).",
        ),
        (
            {"pgr": 1.2, "pgr_lo": None, "pgr_hi": None},
            "The student recovered 120% of the gap between weak teacher (0.787) and ceiling (0.996) "
            "and went past the ceiling.",
        ),
    ],
)
def test_the_sentence(fake: Any, changes: dict[str, Any], sentence: str) -> None:
    fake.add(**changes)
    assert sentences.result(results.load(fake.root)) == sentence


def test_the_sentence_over_seeds(fake: Any) -> None:
    for seed, pgr in enumerate((0.5, 0.6, None)):
        fake.add(seed=seed, pgr=pgr)
    sentence = sentences.result(results.load(fake.root))
    assert sentence.startswith("On average over 3 jobs, the student recovered 55% [−9, 119]")
    assert "(1 job without a PGR left out)" in sentence


def test_oracles_are_flagged_with_the_jobs_that_they_are_in(fake: Any, tmp_path: Path, capsys: Any) -> None:
    fake.add(knobs={"stopping": {**STOPPING, "by": "labels"}})
    assert sentences.flags(results.load(fake.root)) == []
    fake.add(knobs={"stopping": {**STOPPING, "by": "truth"}}, oracles=["stopping"])
    said = "Reads the truth: stopping by truth. No supervisor could do this without labels. (by truth)"
    assert sentences.flags(results.load(fake.root)) == [said]
    assert main(["--store", str(fake.root), "--out", str(tmp_path)]) == 0
    assert said in capsys.readouterr().out
    page = tmp_path / "index.html"
    assert f'<p class="flag">{said}</p>' in page.read_text()
    assert said.removesuffix(" (by truth)") in read(write_page(fake.root, tmp_path / "one", job="job-002")).text
    assert "Reads the truth" not in read(write_page(fake.root, tmp_path / "other", job="job-001")).text


def test_what_a_part_declared_is_flagged_whatever_its_name(fake: Any) -> None:
    """Without a conflict too; a part that only sounds like one that reads the truth is not flagged."""
    fake.add(knobs={"supervision": {"_target_": "my.own.Gold"}})
    assert sentences.flags(results.load(fake.root)) == []
    fake.add(knobs={"supervision": {"_target_": "my.own.Peek"}}, oracles=["supervision"])
    (flag,) = sentences.flags(results.load(fake.root))
    assert flag.startswith("Reads the truth: supervision Peek.")


def test_accuracies_that_are_uncertain_are_said_to_be(fake: Any) -> None:
    fake.add(accuracy__student_se=0.01)
    assert sentences.flags(results.load(fake.root)) == []
    fake.add(seed=1, accuracy__student_se=0.0351, accuracy__weak_se=0.02)
    few = "Tested on few rows or clusters: the standard error of an accuracy is up to"
    assert sentences.flags(results.load(fake.root)) == [f"{few} 3.5 points. (1 of 2 jobs)"]
    fake.add(seed=2, accuracy__ceiling_se=0.04)
    assert sentences.flags(results.load(fake.root)) == [f"{few} 4.0 points. (2 of 3 jobs)"]


def test_accuracies_without_a_standard_error_are_no_surer(fake: Any) -> None:
    fake.add(**{f"accuracy__{role}_se": None for role in ("weak", "student", "ceiling")})
    (flag,) = sentences.flags(results.load(fake.root))
    assert flag == "Tested on so few rows or clusters that no accuracy has a standard error."


def test_pairs_that_were_too_long_are_told_of(fake: Any) -> None:
    fake.add(data__dropped_long=0, trained={"student": {"metrics": {"n/dropped_long": 0}}})
    assert sentences.flags(results.load(fake.root)) == []
    fake.add(seed=1, data__dropped_long=3, trained={"student": {"metrics": {"n/dropped_long": 1200}}})
    flags = sentences.flags(results.load(fake.root))
    assert [re.findall(r"up to ([\d,]+) (\w+) pairs .* \((1 of 2 jobs)\)", flag) for flag in flags] == [
        [("3", "test", "1 of 2 jobs")],
        [("1,200", "training", "1 of 2 jobs")],
    ]
