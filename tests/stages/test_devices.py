"""On any number of processes, whole or sharded, a training is the same training and a scoring the same scoring."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import w2sd
from tests.metrics.test_torchmetrics import columns, expected
from tests.pipeline import slurm
from tests.stages.group import (
    RESUMED,
    SCORED,
    STOP,
    STRATEGIES,
    WHOLE,
    Build,
    losses,
    move,
    padded,
    policy,
    score,
    train,
)
from w2sd import worker
from w2sd.atomic import read_json
from w2sd.cli import CONF
from w2sd.config import RunConfig, read
from w2sd.models import packing
from w2sd.models.heads import HeadedModel
from w2sd.parts.trainer import Trainer
from w2sd.pipeline import launch as launching
from w2sd.pipeline.launch import runtime
from w2sd.pipeline.plan import plan
from w2sd.pipeline.store import Store
from w2sd.predictions import read_predictions

pytestmark = pytest.mark.ddp
ALONE = Trainer(log_every=1)
MEASURED = columns(33)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does, and then two: one start of a group for all of it."""
    place = tmp_path_factory.mktemp("devices")
    for build in (*WHOLE, *RESUMED, padded):
        train(build, place / "alone" / build.__name__, ALONE)
    for build in RESUMED:
        train(build, place / "alone" / "stopped" / build.__name__, ALONE, stop=STOP)
    chain(place)
    (place / "rows.json").write_text(json.dumps({name: column.tolist() for name, column in MEASURED.items()}))
    script, sources = Path(__file__).with_name("group.py"), [Path(w2sd.__file__).parents[1], Path(__file__).parents[2]]
    group = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources)), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *group, script, place], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return place


FAST = [
    "model@weak=world_xs",
    "model@strong=world_xs",
    "weak.batch=512",
    "strong.batch=512",
    "trainer.log_every=1",
    "data.gt=40",
    "data.w2s=20",
    "data.test=20",
]
PAIRS = ["debug=fast", "supervision=filtered"]
ITEMS = [
    "debug=fast_items",
    "data=world_classes",
    "generative=world",
    "refinement=world",
    "stopping=labels",
    "stopping.holdout=0.3",
    "objective=logconf",
]
REAL = {  # stages, and what they are done with in a group
    ("pretrain/weak", "ddp"): PAIRS,
    ("train/weak", "fsdp2"): PAIRS,
    ("label/weak", "ddp"): PAIRS,
    ("features/student_w2s_middle", "fsdp2"): PAIRS,  # of the same pretrained model
    ("generative/strong", "fsdp2"): ITEMS,  # of it, too
    ("train/weak", "ddp"): ITEMS,
    ("label/weak", "fsdp2"): ITEMS,
    ("refine/student", "ddp"): ITEMS,
    ("train/student", "ddp"): ITEMS,
    ("evaluate/weak", "ddp"): ITEMS,
}


def small(place: Path, knobs: list[str]) -> RunConfig:
    """A run on the embedded world."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return read(hydra.compose("config", [*FAST, *knobs, f"out={place / 'logs'}"]))


def chain(place: Path) -> None:
    """Run stages of it in one process, and write down the same ones for a group."""
    jobs, runs = [], [small(place, knobs) for knobs in (PAIRS, ITEMS)]
    graphs = [plan(run) for run in runs]
    for (name, strategy), knobs in REAL.items():
        run, stages = (several[knobs is ITEMS] for several in (runs, graphs))
        worker.execute(stages[name].spec(), runtime(stages[name], run), Store(place / "one"), lambda *_: None)
        shared = runtime(stages[name], run._replace(trainer=replace(run.trainer, devices=2, strategy=strategy)))
        jobs.append({"stage": stages[name].spec(), "runtime": shared, "store": str(place / "two")})
    (place / "jobs.json").write_text(json.dumps(jobs))


def distance(one: Path, other: Path) -> float:
    """The largest difference between the weights of two models."""
    first, second = (load_file(place / "weights.safetensors") for place in (one, other))
    assert first.keys() == second.keys()
    assert [weights.shape for weights in first.values()] == [weights.shape for weights in second.values()]
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@each_strategy
@pytest.mark.parametrize("build", WHOLE)
def test_two_processes_have_the_losses_and_the_weights_of_one(folder: Path, build: Build, strategy: str) -> None:
    """With clipping, batches that are cut up unevenly, and a last one that has no row for one of the two."""
    one, two = (folder / place / build.__name__ for place in ("alone", strategy))
    curve = losses(one)
    assert list(curve) == list(range(build().n_steps))
    assert max(curve.values()) - min(curve.values()) > 1e-3  # there is something to be equal
    assert losses(two) == pytest.approx(curve, abs=1e-5, rel=0)
    assert distance(one, two) < 1e-5


def test_packed_rows_have_the_losses_and_the_weights_of_padded_ones(folder: Path) -> None:
    one, other = (folder / "alone" / build.__name__ for build in (padded, policy))
    assert losses(other) == pytest.approx(losses(one), abs=1e-5, rel=0)
    assert distance(one, other) < 1e-5


def test_packed_rows_are_for_all_processes_or_for_none(folder: Path) -> None:
    first, other = (json.loads((folder / f"decided_{rank}.json").read_text()) for rank in range(2))
    assert first[0] == other[0] == {"packed": True, "attention": packing.NAME, "said": []}
    [line] = first[1].pop("said")
    assert line == "gpt2 has an attention of its own: every answer gets a row of its own"
    assert other[1].pop("said") == []
    assert first[1] == other[1] == {"packed": False, "attention": "sdpa"}


def test_frozen_weights_stay_and_trained_ones_move(folder: Path) -> None:
    begun = dict(RESUMED[1]().learner.model.named_parameters())
    ended = load_file(folder / "fsdp2" / "after_alone" / RESUMED[1].__name__ / "weights.safetensors")
    assert {name for name in begun if not torch.equal(begun[name], ended[name])} == {n for n in begun if "c_attn" in n}


@pytest.mark.parametrize("build", RESUMED)
@pytest.mark.parametrize(
    ("stopped", "resumed"),
    [("alone", "ddp"), ("alone", "fsdp2"), ("ddp", "fsdp2"), ("ddp", "alone"), ("fsdp2", "alone")],
)
def test_a_stopped_training_goes_on_elsewhere(folder: Path, build: Build, stopped: str, resumed: str) -> None:
    one, two = (folder / "alone" / build.__name__, folder / resumed / f"after_{stopped}" / build.__name__)
    if resumed == "alone":
        move(folder / stopped / "stopped" / build.__name__, two)
        train(build, two, ALONE)
    whole = losses(one)
    assert losses(two) == pytest.approx(
        whole, abs=1e-5, rel=0
    )  # those from before it was stopped are in the checkpoint
    assert distance(one, two) < 1e-5


def test_dropout_goes_on_in_each_process_as_if_nothing_had_happened(folder: Path) -> None:
    places = [folder / "ddp" / "noisy", folder / "ddp" / "after_ddp" / "noisy"]
    whole, again = map(losses, places)
    assert again == whole
    assert distance(*places) == 0
    silent = losses(folder / "ddp" / "sft")
    assert all(abs(whole[step] - silent[step]) > 1e-4 for step in (0, 1))


@pytest.mark.parametrize("build", SCORED)
def test_every_process_knows_all_predictions_and_they_are_those_of_one(
    folder: Path, build: Build, tmp_path: Path
) -> None:
    one = score(build, tmp_path, ALONE)
    every: list[dict[str, Any]] = [json.loads((folder / f"scored_{rank}.json").read_text()) for rank in range(2)]
    assert every[0] == every[1]
    assert not math.isnan(one["logged"]["pgr"])
    for strategy in STRATEGIES:
        two = every[0][f"{strategy}/{build.__name__}"]
        assert two.keys() == one.keys()
        assert two["logged"] == pytest.approx(one["logged"], abs=1e-12)
        for name in one.keys() - {"logged"}:
            np.testing.assert_allclose(two[name], one[name], atol=2e-6, rtol=0, err_msg=name)


def test_a_padded_test_set_is_measured_as_one_process_measures_it(folder: Path) -> None:
    for rank in range(2):
        result = read_json(folder / f"measured_{rank}.json")
        assert result["n"] == 17  # 34 rows were shown
        assert result["epochs"] == [expected(MEASURED), expected(MEASURED)]


def test_a_group_leaves_the_artifacts_that_one_process_leaves(folder: Path) -> None:
    """Ordinary files under the same keys: weights in safetensors, a prediction for every id, the same counts."""
    one, two = ({path.name: path for path in (folder / place / "artifacts").iterdir()} for place in ("one", "two"))
    assert one.keys() == two.keys()
    assert len(one) == len(REAL)
    tokens = [{path.name for path in (folder / place / "tokens").iterdir()} for place in ("one", "two")]
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 2 + 3  # splits of pairs and of items: the sources of stages that read one of them
    for name, artifact in one.items():
        files, others = (sorted(str(file.relative_to(a)) for file in a.rglob("*")) for a in (artifact, two[name]))
        assert files == others
        assert read_json(two[name] / "metrics.json") == pytest.approx(read_json(artifact / "metrics.json"), abs=1e-12)
        for file in artifact.rglob("*.safetensors"):
            first, second = load_file(file), load_file(two[name] / file.relative_to(artifact))
            assert {n: (w.shape, w.dtype) for n, w in first.items()} == {
                n: (w.shape, w.dtype) for n, w in second.items()
            }
            if "states" in first:
                assert float((first["states"] - second["states"]).abs().max()) < 1e-3 < float(first["states"].std())
        if (artifact / "head.safetensors").exists():
            assert (two[name] / "model/config.json").read_bytes() == (artifact / "model/config.json").read_bytes()
            assert HeadedModel.load(two[name])
        if (artifact / "curve.json").exists():
            curves = [[list(look.values()) for look in read_json(a / "curve.json")] for a in (artifact, two[name])]
            np.testing.assert_allclose(*curves, atol=1e-12, rtol=0)
        if (artifact / "predictions.parquet").exists():
            rows, same = (read_predictions(a / "predictions.parquet") for a in (artifact, two[name]))
            assert list(rows.ids) == list(same.ids)
            np.testing.assert_allclose(same.margin, rows.margin, atol=1e-4, rtol=0)


def test_two_nodes_train_as_two_devices_do(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on each of two machines, both of which are this one, as `srun` starts them: here a script."""
    run = small(folder, PAIRS)
    trained, steps = plan(run)["train/weak"], slurm.job(2, tmp_path, monkeypatch)
    devices, nodes = Store(folder / "two"), Store(tmp_path / "nodes")
    for upstream in trained.inputs.values():
        shutil.copytree(devices.find(upstream.key), nodes.path(upstream.kind, upstream.key))
    monkeypatch.setenv("PYTHONPATH", str(Path(w2sd.__file__).parents[1]))
    trainer = replace(run.trainer, nodes=2, strategy="fsdp2")  # as in REAL
    with nodes.lock([trained.key], lambda: None) as lock:
        launching._in_process(trained, run._replace(trainer=trainer), nodes, lambda *_: None, lock)
    [step] = steps.read_text().splitlines()
    assert step.split()[0] == "--nodes=2"
    one, two = (store.find(trained.key) for store in (devices, nodes))
    files = [file.relative_to(one) for file in one.rglob("*.safetensors")]
    assert files
    for file in files:
        first, second = load_file(one / file), load_file(two / file)
        assert first.keys() == second.keys()
        assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5
    assert (
        read_json(two / "runtime.json")["trainer"] | {"nodes": 1, "devices": 2}
        == read_json(one / "runtime.json")["trainer"]
    )
