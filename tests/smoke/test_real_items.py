"""Real classification sets and chess puzzles, from the command line, with models from scratch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.builders import comparisons
from tests.smoke.test_chain import Ran, run

pytestmark = pytest.mark.slow
SETS = ("boolq_local", "sciq_local", "cosmos_qa_local", "sst2_local", "amazon_local", "amazon_cells", "imdb")


@pytest.fixture
def data() -> Path:
    if "W2SD_DATA" not in os.environ:
        pytest.skip("set W2SD_DATA to the folder with boolq/, sciq/, cosmosqa/, sst2/, amazon/, chess/ to run this")
    return Path(os.environ["W2SD_DATA"])


def compared(ran: Ran) -> dict[str, float]:
    assert ran.code == 0
    [found] = comparisons(ran.store).values()
    return found


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_goes_all_the_way(data: Path, tmp_path: Path, name: str) -> None:
    models = [f"{role}.tokenizer={data}/gpt2_tokenizer" for role in ("weak", "strong")]
    parts = [f"data={name}", "fit=paper_reward", "fit.lr=1e-3", "model@weak=scratch", "model@strong=scratch"]
    sizes = ["strong.layers=3", "data.limit=60", "data.max_tokens=128", "logger=csv"]
    found = compared(run(tmp_path, *parts, *models, *sizes, fast=False))
    for role in ("weak", "student", "ceiling"):
        assert 0.1 < found[f"accuracy/{role}"] < 0.9  # few rows teach little; nothing may be upside down
    assert 10 <= found["data/n_test"] <= 60


def test_chess_puzzles_go_all_the_way(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("chess", reason="needs python-chess: make setup EXTRAS=chess")
    small = ["weak.documents=2000", "strong.documents=2000", "fit.epochs=2", "data.limit=1000", "logger=csv"]
    models = ["model@weak=chess_s", "model@strong=chess_m"]
    found = compared(run(tmp_path, "data=chess_puzzles", "fit=chess", "head=words", *models, *small, fast=False))
    for role in ("weak", "student", "ceiling", "zero_shot"):
        assert found[f"accuracy/{role}"] < 0.5  # 1,968 classes
        assert 0.005 < found[f"legal/{role}"] < 1  # of all moves that geometry allows, one in sixty is legal
