"""Classification from the command line to the page, with every intervention that items can have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.builders import figures_of
from tests.smoke.test_chain import Ran, run
from w2sd.atomic import read_json
from w2sd.predictions import LOGITS, read_distributions

pytestmark = pytest.mark.smoke

SMALL = [
    "data=world_classes",
    "data.n_classes=3",
    "data.gt=48",
    "data.w2s=48",
    "data.w2s_parts=1",
    "data.test=60",
    "model@weak=world_xs",
    "model@strong=world_s",
    "weak.batch=512",
    "strong.batch=512",
    "logger=csv",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A plain run, and one of all interventions at once, in one store."""
    root = tmp_path_factory.mktemp("classes")
    assert run(root, *SMALL, fast=False).code == 0
    words = "refinement.words=[safe0,dull0,haz0]"
    elicited = ["generative=world", "refinement=world", words, "supervision=two_stage", "supervision.threshold=0.4"]
    worded = ["head=words", "head.words=[safe0,dull0,haz0]"]
    return run(root, *SMALL, *elicited, *worded, "stopping=labels", "objective=reverse_kl", fast=False)


def folders(ran: Ran, kind: str) -> list[Path]:
    return sorted((ran.store / "artifacts").glob(f"{kind}-*"))


def test_both_runs_end_in_a_page(ran: Ran) -> None:
    assert ran.code == 0
    assert len(folders(ran, "compare")) == 2
    assert (ran.report / "index.html").is_file()
    assert {len(folders(ran, kind)) for kind in ("generative", "refine")} == {1}


def test_whoever_labels_says_how_likely_each_class_is(ran: Ran) -> None:
    for folder in [*folders(ran, "label"), *folders(ran, "refine"), *folders(ran, "evaluate")]:
        table = pq.read_table(folder / "predictions.parquet")
        p_NC = np.array(list(read_distributions(folder).values()))
        assert (folder / LOGITS).is_file()
        assert p_NC.shape == (table.num_rows, 3)
        assert np.array_equal(p_NC.argmax(axis=1), table["predicted"].to_numpy())
        assert np.allclose(p_NC.sum(axis=1), 1)


def test_students_are_measured_as_ever(ran: Ran) -> None:
    for folder in folders(ran, "compare"):
        metrics = figures_of(folder)
        assert metrics["n/test"] == 60
        assert 0 <= metrics["accuracy/student"] <= 1
        assert metrics["agreement/student"] is not None


def test_a_strong_model_with_a_head_of_words_is_asked_before_it_is_taught(ran: Ran) -> None:
    [begun], compared = (
        folders(ran, "zero_shot"),
        [figures_of(folder) for folder in folders(ran, "compare")],
    )
    assert read_json(begun / "metrics.json")["n/steps"] == 0
    assert sorted("accuracy/zero_shot" in metrics for metrics in compared) == [False, True]
    assert "Before any label" in (ran.report / "index.html").read_text()


def test_what_refinement_did_to_labels_is_reported(ran: Ran) -> None:
    [folder] = folders(ran, "refine")
    assert 0 < read_json(folder / "metrics.json")["shown"] <= 2
    assert "Refined labels" in (ran.report / "index.html").read_text()


def test_a_watched_training_leaves_its_curve(ran: Ran) -> None:
    watched = [folder for folder in folders(ran, "train") if (folder / "curve.json").exists()]
    for folder in watched:
        metrics = json.loads((folder / "metrics.json").read_text())
        curve = json.loads((folder / "curve.json").read_text())
        assert metrics["stopping/labels"] == max(look["labels"] for look in curve)
    assert len(watched) == 4  # weak model, ceiling, first and last student
