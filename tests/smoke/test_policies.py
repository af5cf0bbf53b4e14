"""Policies from the command line to the page: fine-tuning, reference, preference training, labels, measurement."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.smoke.test_chain import Ran, lend_pretrained, results, run, start

pytestmark = pytest.mark.smoke

DPO = ["objective=dpo", "objective.beta=.5", "supervision=hard", "fit=world_policy"]
# a reference is asked about gt and w2s by what learns from them, and about test by all three
KINDS = {"pretrain": 2, "sft": 3, "reference": 7, "train": 3, "label": 1, "evaluate": 3, "generate": 3, "compare": 1}


def count(store: Path) -> dict[str, int]:
    kinds = [path.name.partition("-")[0] for path in store.glob("artifacts/*")]
    return {kind: kinds.count(kind) for kind in KINDS}


def tables(store: Path) -> dict[str, bytes]:
    """Every parquet file of a store, and what its models wrote."""
    paths = (path for name in ("*.parquet", "samples.jsonl") for path in store.glob(f"artifacts/*/{name}"))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run of DPO from an empty store."""
    return run(tmp_path_factory.mktemp("undisturbed"), *DPO)


def test_a_run_makes_every_stage_once_and_leaves_nothing_else_behind(undisturbed: Ran) -> None:
    assert undisturbed.code == 0
    assert count(undisturbed.store) == KINDS
    assert not list((undisturbed.store / "work").glob("*"))
    assert not list((undisturbed.store / "tmp").glob("*"))
    assert "What the models say" in (undisturbed.report / "index.html").read_text(encoding="utf-8")


def test_two_runs_with_the_same_seeds_give_the_same_bytes(undisturbed: Ran, tmp_path: Path) -> None:
    """From the same pretrained models, of which test_chain.py says it."""
    lend_pretrained(undisturbed, tmp_path)
    again = run(tmp_path, *DPO)
    assert results(again.store) == results(undisturbed.store)
    assert tables(again.store) == tables(undisturbed.store)


def test_a_conflict_adds_arms_and_no_fine_tuning_but_those_of_its_twins(undisturbed: Ran) -> None:
    before = count(undisturbed.store)
    ran = run(undisturbed.store.parent, *DPO, "conflict=explicit", "twin_seeds=[1]")
    assert ran.code == 0
    made = {kind: n - before[kind] for kind, n in count(ran.store).items()}
    told = {"pretrain": 0, "sft": 1, "reference": 2, "train": 2, "label": 0, "evaluate": 2, "generate": 1, "compare": 1}
    assert made == told


def test_simpo_shares_what_the_truth_taught_before_and_needs_no_reference(undisturbed: Ran) -> None:
    before = count(undisturbed.store)
    ran = run(undisturbed.store.parent, "objective=simpo", *DPO[2:])
    assert ran.code == 0
    made = {kind: n - before[kind] for kind, n in count(ran.store).items()}
    told = {"pretrain": 0, "sft": 1, "reference": 0, "train": 3, "label": 1, "evaluate": 3, "generate": 3, "compare": 1}
    assert made == told
    columns = [pq.read_schema(path).names for path in ran.store.glob("artifacts/evaluate-*/predictions.parquet")]
    assert {"ref_logp_chosen" in names for names in columns} == {True, False}
    assert all("logp_chosen" in names for names in columns)


@pytest.mark.slow
def test_a_run_killed_in_every_stage_gives_the_same_bytes(tmp_path: Path) -> None:
    """In one store, process after process; the stages that it went on from were cut in the middle."""
    whole = run(tmp_path / "whole", *DPO)
    survived: set[str] = set()
    while True:
        process = start(tmp_path, *DPO, "trainer.save_every_s=0.05")
        assert process.stderr is not None
        began = None
        for line in process.stderr:
            if line.endswith(" ...\n") and (name := line.split()[1]) not in survived:
                began = name
                time.sleep(0.05)
                process.kill()
                break
        process.communicate()
        if began is None:
            break
        survived.add(began)
    assert len(survived) == sum(KINDS.values())
    assert results(tmp_path / "store") == results(whole.store)
    assert tables(tmp_path / "store") == tables(whole.store)
