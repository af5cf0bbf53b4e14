"""One small chain with a conflict and its controls: its plan and its metrics, as they were when golden.json was made.

A plan is the same everywhere. Metrics are the same to the last bit on the kind of processor and the version of torch
that golden.json names, and are not compared anywhere else. A change that is meant to move numbers makes the file anew:

    OMP_NUM_THREADS=1 python -m tests.smoke.test_golden
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq
import pytest
import torch

from tests.builders import figures_of
from tests.pipeline.graphs import roles
from tests.smoke.test_chain import run
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.pipeline.plan import plan
from w2sd.stages.compare import HEADLINES

pytestmark = pytest.mark.smoke

GOLDEN = Path(__file__).with_name("golden.json")
CHAIN = [
    "conflict=explicit",
    "controls=true",
    "training_pairs=true",
    "twin_seeds=[1]",
    *(f"{model}.batch=128" for model in ("weak", "strong")),  # of pretraining, most of the work
    *("data.gt=320", "data.w2s=96", "data.test=240", "data.helpful=96", "data.unrelated=2", "data.helpful_test=2"),
    "fit.epochs=4",
]


def planned() -> dict[str, Any]:
    """The kind of each stage of the chain, and which stages it is made from, by name."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        stages = plan(read(hydra.compose("config", ["debug=fast", *CHAIN])))
    graph = roles(stages)
    return {name: {"kind": stage.kind, "inputs": graph[name]} for name, stage in stages.items()}


def computed(root: Path) -> Path:
    """The artifact with the results of the chain, run in this folder."""
    assert run(root, *CHAIN).code == 0
    (folder,) = (root / "store").glob("artifacts/compare-*")
    return folder


def machine() -> dict[str, str]:
    """What has to be the same for the same bits."""
    return {"cpu": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def written(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return computed(tmp_path_factory.mktemp("golden"))


def test_the_plan_is_the_golden_one(golden: dict[str, Any]) -> None:
    assert planned() == golden["plan"]


def test_the_metrics_are_the_golden_ones(golden: dict[str, Any], compared: Path) -> None:
    if machine() != golden["machine"]:
        pytest.skip(f"metrics are compared on {golden['machine']} alone; this is {machine()}; the plan was compared")
    assert written(figures_of(compared)) == written(golden["metrics"])


def test_what_people_read_is_apart(compared: Path) -> None:
    headlines = json.loads((compared / "metrics.json").read_text())
    assert set(HEADLINES) <= set(headlines)
    assert {name.removesuffix("_lo").removesuffix("_hi") for name in headlines} == set(HEADLINES)


def test_flips_are_looked_for_on_training_pairs(compared: Path) -> None:
    metrics = figures_of(compared)
    keys = json.loads((compared / "spec.json").read_text())["inputs"]
    p = {}
    for role, kind in (("weak", "label"), ("baseline", "evaluate"), ("student", "evaluate")):
        table = pq.read_table(compared.parent / f"{kind}-{keys[f'training_{role}']}" / "predictions.parquet")
        p[role] = dict(zip(*(table[name].to_pylist() for name in ("id", "p_correct")), strict=True))
    assert len(p["student"]) == 96 < len(p["weak"])
    lost = [id for id in p["student"] if p["baseline"][id] >= 0.5 > p["student"][id]]
    assert metrics["boundary/training/flips"] == len(lost) > 0
    rate = metrics["boundary/training/rate/0.00"]
    unsure = [id for id in p["student"] if p["baseline"][id] >= 0.5 > p["weak"][id]]
    assert rate == pytest.approx(len(set(lost) & set(unsure)) / len(unsure))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        metrics = figures_of(computed(Path(folder)))
    GOLDEN.write_text(written({"machine": machine(), "plan": planned(), "metrics": metrics}))
