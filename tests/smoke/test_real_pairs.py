"""The same command on real preference pairs, in both formats that they come in, with models from scratch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.builders import comparisons
from tests.smoke.test_chain import count, run

pytestmark = pytest.mark.slow
KINDS = {"pretrain": 0, "train": 3, "label": 1, "evaluate": 3, "compare": 1}


@pytest.fixture
def data() -> Path:
    if "W2SD_DATA" not in os.environ:
        pytest.skip("set W2SD_DATA to the folder with hh_harmless_w2s/ and gpt2_tokenizer/ to run this")
    return Path(os.environ["W2SD_DATA"])


@pytest.mark.parametrize("form", ["pairs", "peer"])
def test_harmless_pairs_train_a_gpt2_shaped_model(data: Path, tmp_path: Path, form: str) -> None:
    splits = {"gt": "train_gt", "w2s": "train_w2s", "test": "test"}
    files = [f"data.{split}={data}/hh_harmless_w2s/harmless_{name}.{form}.jsonl.gz" for split, name in splits.items()]
    models = [f"{role}.tokenizer={data}/gpt2_tokenizer" for role in ("weak", "strong")]
    source = {"pairs": "files", "peer": "dialogue_files"}[form]
    parts = [f"data={source}", "fit=paper_reward", "model@weak=scratch", "model@strong=scratch", "strong.layers=3"]
    ran = run(tmp_path, *parts, *files, *models, "data.limit=100", "data.long=drop", fast=False)
    assert ran.code == 0
    assert count(ran.store) == KINDS
    [compared] = comparisons(ran.store).values()
    assert compared["data/n_gt"] == compared["data/n_w2s"] == compared["data/n_test"] == 100
    assert compared["data/dropped_leaks"] > 100  # prompts that stand in several of the published files
    assert (compared["data/dropped_unsplittable"] > 0) == (form == "peer")
    for role in ("weak", "student", "ceiling"):
        assert 0.2 < compared[f"accuracy/{role}"] < 0.8  # 100 rows teach little; nothing may be upside down


@pytest.mark.parametrize("objective", ["simpo", "dpo"])
def test_harmless_pairs_train_a_policy_of_gpt2_s_shape(data: Path, tmp_path: Path, objective: str) -> None:
    """With the end token that its tokenizer has, under an explicit conflict."""
    splits = {"gt": "train_gt", "w2s": "train_w2s", "test": "test"}
    files = [f"data.{split}={data}/hh_harmless_w2s/harmless_{name}.pairs.jsonl.gz" for split, name in splits.items()]
    models = [f"{role}.tokenizer={data}/gpt2_tokenizer" for role in ("weak", "strong")]
    parts = ["data=files", f"objective={objective}", f"fit=paper_{objective}", "sft=paper", "supervision=hard"]
    parts += ["model@weak=scratch", "model@strong=scratch", "strong.layers=3", "conflict=explicit", "twin_seeds=[1]"]
    ran = run(
        tmp_path, *parts, *files, *models, "data.limit=60", "data.long=drop", "trainer.micro_tokens=2048", fast=False
    )
    assert ran.code == 0
    [compared] = comparisons(ran.store).values()
    for role in ("weak", "student", "ceiling"):
        assert 0.1 < compared[f"accuracy/{role}"] < 0.9
    for path in ran.store.glob("artifacts/evaluate-*/predictions.parquet"):
        found = pq.read_table(path).to_pydict()
        logp, n = np.array(found["logp_chosen"]), np.array(found["n_chosen"])
        assert -logp / n == pytest.approx(np.log(50257), abs=1)  # random weights: every word is as likely as another
