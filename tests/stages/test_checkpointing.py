"""Layers are really computed again on the way back, or compiled, in every stage that trains; the result is the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM

from tests.builders import refused
from w2sd.cli import CONF
from w2sd.config import RunConfig, read
from w2sd.logger import Csv
from w2sd.models.prepare import checkpoint_layers
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Task
from w2sd.stages import preflight, pretrain, sft, train

OVERRIDES = ["objective=simpo", "supervision=hard", "data.gt=32", "weak.width=8", "weak.layers=2", "weak.heads=2"]
LAYERS = 2


class Scribble:
    """A text to pretrain on."""

    seed = 0

    def documents(self, model: Any) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.random.default_rng(0).integers(0, 50, size=(300, 12)).astype(np.int32)
        return tokens, np.ones(tokens.shape, dtype=np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    place = tmp_path_factory.mktemp("run")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return read(hydra.compose("config", [*OVERRIDES, f"store={place / 'store'}", f"out={place / 'report'}"]))


@pytest.fixture
def task(run: RunConfig, tmp_path: Path) -> Callable[..., Task]:
    """A stage of the weak model, which begins with random weights."""
    stages = plan(run)
    torch.manual_seed(0)
    base = tmp_path / "base"
    part = stages["pretrain/weak"].params["model"]
    AutoModelForCausalLM.from_config(part.open_config()).save_pretrained(base / "model")
    part.open_tokenizer().save_pretrained(base / "model")

    def made(name: str, checkpointing: bool, compile: bool = False, **params: Any) -> Task:
        stage = stages[name]
        place = tmp_path / f"{checkpointing}-{compile}"
        folders = {folder: place / folder for folder in ("out", "work", "logs")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        trainer = Trainer(checkpointing=checkpointing, compile=compile, micro_tokens=512)
        advance = lambda done, total: None  # noqa: E731
        return Task(
            stage.key, stage.kind, {**stage.params, **params}, {"base": base},
            trainer=trainer, logger=Csv(), name="test", advance=advance, **folders,
        )  # fmt: skip

    return made


@contextmanager
def layers() -> Iterator[dict[bool, int]]:
    """How often attention is computed for a gradient, on the way there (False) and on the way back (True)."""
    counts = {False: 0, True: 0}

    def count(module: torch.nn.Module, *_: Any) -> None:
        if torch.is_grad_enabled() and type(module).__name__.endswith("Attention"):
            counts[torch._C._current_graph_task_id() != -1] += 1

    hook = register_module_forward_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


every_training = pytest.mark.parametrize(
    ("stage", "name", "params"),
    [
        (pretrain, "pretrain/weak", {"text": Scribble()}),
        (sft, "sft/weak", {}),
        (train, "train/weak", {}),
        (train, "train/weak", {"objective": RewardBCE(), "append_eos": None}),
    ],
    ids=["pretrain", "sft", "policy", "reward"],
)

compiles = pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch looks at and does not show


@every_training
def test_every_layer_is_computed_again_and_nothing_changes(
    stage: Any, name: str, params: dict[str, Any], task: Callable[..., Task]
) -> None:
    plain, thrifty = (task(name, checkpointing, **params) for checkpointing in (False, True))
    with layers() as once:
        metrics = stage.run(plain)
    with layers() as twice:
        assert stage.run(thrifty) == metrics
    assert once[False] >= LAYERS * metrics["n/steps"] > 0
    assert once[True] == 0
    assert twice == {False: once[False], True: once[False]}
    assert_same_weights(plain.out, thrifty.out, 1e-6)


def assert_same_weights(plain: Path, other: Path, tolerance: float) -> None:
    files = sorted(plain.rglob("*.safetensors"))
    assert files
    for file in files:
        expected, found = load_file(file), load_file(other / file.relative_to(plain))
        assert expected.keys() == found.keys()
        for weights in expected:
            torch.testing.assert_close(found[weights], expected[weights], rtol=0, atol=tolerance)


@compiles
@pytest.mark.parametrize(
    ("stage", "name", "params"),
    [
        (pretrain, "pretrain/weak", {"text": Scribble()}),
        (train, "train/weak", {"objective": RewardBCE(), "append_eos": None}),
    ],
    ids=["pretrain", "reward"],
)
def test_a_compiled_training_is_the_same_training(
    stage: Any, name: str, params: dict[str, Any], task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as for a compiler, and run without one, whose code takes long to be made."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: compile(module, backend="eager", **how))
    plain, compiled = (task(name, False, compile, **params) for compile in (False, True))
    torch.compiler.reset()
    counters.clear()
    metrics = stage.run(plain)
    assert not counters["stats"]
    assert stage.run(compiled) == metrics
    assert 0 < counters["stats"]["unique_graphs"] <= 8  # however many batches and layers there are
    assert_same_weights(plain.out, compiled.out, 1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
@compiles
def test_so_is_one_that_is_really_compiled(task: Callable[..., Task]) -> None:
    plain, compiled = (task("train/weak", False, compile) for compile in (False, True))
    assert train.run(compiled) == train.run(plain)
    assert_same_weights(plain.out, compiled.out, 1e-5)


def test_without_a_compiler_it_is_refused(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with refused("trainer.compile", True, "false torch.compile"):
        preflight.check(run._replace(trainer=Trainer(compile=True)))


@pytest.mark.parametrize("knobs", [{"checkpointing": True}, {"strategy": "fsdp2", "devices": 2}])
def test_nor_with_what_takes_layers_apart(knobs: dict[str, Any]) -> None:
    with refused("compile", True, "false trainer.checkpointing"):
        Trainer(compile=True, **knobs)


def test_a_model_that_cannot_is_refused(run: RunConfig) -> None:
    model = AutoModelForCausalLM.from_config(run.weak.open_config())
    model.supports_gradient_checkpointing = False
    with refused("trainer.checkpointing", True, "false LlamaForCausalLM"):
        checkpoint_layers(model)
