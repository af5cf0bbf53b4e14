"""A run whose stages are all there, once for each file of tests, and tasks like those of its stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest

from tests.stages.chain import Chain, compute
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.logger import Csv
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Task
from w2sd.pipeline.store import Store


@pytest.fixture(scope="module")
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The run of the file's OVERRIDES, on language models that were not pretrained."""
    place = tmp_path_factory.mktemp("chain")
    words = [*request.module.OVERRIDES, f"store={place / 'store'}", f"out={place / 'report'}"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = read(hydra.compose("config", words))
    whole = Chain(run, plan(run), Store(place / "store"))
    for stage in whole.stages.values():
        compute(stage, run, whole.store)
    return whole


@pytest.fixture
def task(chain: Chain, tmp_path: Path) -> Callable[..., Task]:
    """A task like that of a stage of the chain, with folders of one's own and other parameters or inputs."""

    def made(name: str, params: dict[str, Any] | None = None, **inputs: Path) -> Task:
        stage = chain.stages[name]
        folders = {folder: tmp_path / f"{len(list(tmp_path.iterdir()))}" / folder for folder in ("out", "work", "logs")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        return Task(
            stage.key,
            stage.kind,
            {**stage.params, **(params or {})},
            chain.inputs(name) | inputs,
            trainer=Trainer(log_every=1),
            logger=Csv(),
            name="test",
            advance=lambda done, total: None,
            origin=stage.origin,
            **folders,
        )

    return made
