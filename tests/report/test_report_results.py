"""The store becomes one tidy frame."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pandas as pd
import pytest

from w2sd.config import NOT_RECORDED
from w2sd.parts.fit import Fit
from w2sd.pipeline.store import Store
from w2sd.report import knobs, results
from w2sd.report.records import Damages


def test_one_row_per_job_with_knobs_and_metrics(sweep: Any) -> None:
    frame = results.load(sweep.root)
    assert list(frame["id"]) == [f"job-00{n}" for n in range(1, 7)]
    row = frame.iloc[0]
    assert (row["name"], row["sweep"], row["seed"], row["conflict"]) == ("pair", "s1", 0, "NoConflict")
    assert (row["fit.lr"], row["fit.betas"], row["fit"]) == (1e-5, "[0.9, 0.95]", "Fit")
    assert (row["accuracy/weak"], row["n/test"], row["pgr"]) == (0.787, 4000, pytest.approx(0.5))
    assert pd.isna(frame.iloc[5]["pgr"])
    assert frame["n/test"].dtype == "Int64"
    assert frame["pgr"].dtype == "float64"


def test_name_sweep_and_jobs_select(sweep: Any) -> None:
    sweep.add("demo")
    assert len(results.load(sweep.root)) == 7
    assert list(results.load(sweep.root, name="demo")["id"]) == ["job-007"]
    assert len(results.load(sweep.root, sweep="s1")) == 6
    assert list(results.load(sweep.root, jobs=["job-002", "job-003"])["seed"]) == [1, 2]


def test_a_job_whose_results_are_gone_is_left_out_and_counted(sweep: Any) -> None:
    gone = json.loads((sweep.root / "jobs/job-002.json").read_text())["compare"]
    shutil.rmtree(sweep.root / f"artifacts/compare-{gone}")
    frame = results.load(sweep.root)
    assert len(frame) == 5
    assert frame.attrs["missing"] == 1


def test_names_are_not_copied_for_every_row(sweep: Any) -> None:
    frame = results.load(sweep.root)
    assert frame.iloc[0].attrs["knobs"] is frame["pgr"].attrs["knobs"] is frame.attrs["knobs"]


def test_an_empty_store_is_an_empty_frame(empty: Any) -> None:
    frame = results.load(empty)
    assert len(frame) == 0
    assert frame.attrs == {"knobs": [], "metrics": [], "remarks": [], "missing": 0, "damages": []}


def test_unknown_metrics_and_words_are_carried_along(fake: Any) -> None:
    fake.add(deception__score=0.4, deception__score_lo=0.3, deception__score_hi=0.5, verdict__result="not_shown")
    frame = results.load(fake.root)
    assert "deception/score" in results.estimates(frame)
    assert "deception/score_lo" not in results.estimates(frame)
    assert frame.attrs["remarks"] == ["verdict/result"]


def test_a_knob_with_the_name_of_another_column_keeps_both(fake: Any) -> None:
    fake.add(knobs={"pgr": "a knob", "id": 7})
    frame = results.load(fake.root)
    assert (frame["config.pgr"].iloc[0], frame["pgr"].iloc[0]) == ("a knob", 0.62)
    assert (frame["config.id"].iloc[0], frame["id"].iloc[0]) == (7, "job-001")


def test_stages_come_from_cause_to_effect(fake: Any) -> None:
    job = fake.add()
    stages = results.stages(fake.root, job["id"], damages=Damages())
    place = {stage: position for position, stage in enumerate(stages["stage"])}
    assert place["pretrain/weak"] < place["train/weak"] < place["label/weak"] < place["train/student"]
    assert place["train/student"] < place["evaluate/student"] < place["compare"] == 9
    assert set(stages.columns) >= {"stage", "kind", "key", "seconds", "cpu_seconds", "created"}
    assert list(stages["cpu_seconds"]) == [2.25] * 10


@pytest.mark.parametrize(("file", "n_jobs"), [("metrics", 1), ("runtime", 2)])
def test_nothing_is_taken_from_an_artifact_that_was_changed(fake: Any, file: str, n_jobs: int) -> None:
    job, _ = fake.add(seed=0), fake.add(seed=1)
    path = fake.root / f"artifacts/compare-{job['compare']}/{file}.json"
    path.write_text(path.read_text().replace("0.62", "0.99").replace("1.5", "0.5"))
    frame = results.load(fake.root)
    stages = results.stages(fake.root, job["id"], damages=frame.attrs["damages"])
    assert len(frame) == n_jobs
    assert stages["seconds"].iloc[-1] is None or file == "metrics"
    assert frame.attrs["damages"] == [f"{path} is damaged; delete {path.parent} and run again"]
    assert frame.attrs["missing"] == 0


def test_what_was_set_by_hand_tells_jobs_apart(sweep: Any) -> None:
    frame = results.load(sweep.root)
    assert knobs.telling(frame) == ["conflict", "seed"]  # conflict.alpha follows conflict
    assert knobs.shared(frame) == {"name": "pair"}


def test_knobs_that_nobody_set_are_found_where_needed(fake: Any) -> None:
    for lr in (1e-5, 1e-4):
        fake.add(overrides=["out=x"], knobs={"fit": {"lr": lr}, "out": str(lr)})
    assert knobs.telling(results.load(fake.root)) == ["fit.lr"]


def test_a_part_is_named_by_the_option_taken_for_it(fake: Any) -> None:
    job = fake.add()
    Store(fake.root).record({**job, "choices": {"conflict": "none", "hydra/launcher": "basic"}})
    frame = results.load(fake.root)
    assert (frame["conflict"].iloc[0], frame["fit"].iloc[0]) == ("none", "Fit")


def test_the_knob_that_tells_most_rows_apart_is_named(fake: Any) -> None:
    for rung, heads in ((0, 2), (1, 2), (2, 4)):
        fake.add(overrides=["weak=x"], knobs={"weak": {"_target_": "w2sd.world.Rung", "heads": heads, "rung": rung}})
    frame = results.load(fake.root)
    assert knobs.telling(frame) == ["weak.rung"]
    assert knobs.shared(frame) == {"name": "demo"}


def test_of_jobs_of_one_configuration_the_last_counts(fake: Any) -> None:
    first = fake.add(seed=0, accuracy__student=0.1)
    fake.add(seed=1)
    path = fake.root / "jobs" / f"{first['id']}.json"
    again = {**first, "id": "job-later", "finished": "2032-01-01T00:00:00+00:00"}  # measured by a later version
    Store(fake.root).record(again)
    assert list(results.load(fake.root)["id"]) == ["job-002", "job-later"]
    path.unlink()
    assert list(results.load(fake.root)["seed"]) == [1, 0]


def test_a_default_that_changes_relabels_no_job_that_did_not_record_it(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add(knobs={"fit": {"_target_": "w2sd.parts.fit.Fit", "lr": 0.5}})
    for default in (32, 64):
        monkeypatch.setattr(Fit.__dataclass_fields__["batch"], "default", default)
        frame = results.load(fake.root)
        assert [frame[knob].iloc[0] for knob in ("fit.lr", "fit.batch", "ceiling_split")] == [0.5, *[NOT_RECORDED] * 2]
    fake.add(seed=1, knobs={"fit": {"_target_": "w2sd.parts.fit.Fit", "lr": 0.5, "batch": 64}})
    assert knobs.text(results.load(fake.root), "fit.batch") == [NOT_RECORDED, "64"]


def test_a_score_asked_for_alone_brings_its_company(planted: Any) -> None:
    metrics = results.find_metrics(results.load(planted.root), ["deception/score"])
    assert metrics == ["deception/score", "tax/flips", "deception/base_rate", "deception/seed_null"]
