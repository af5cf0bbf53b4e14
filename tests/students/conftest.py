"""What a stage that trains a student gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2sd.logger import Csv
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """A task with a trainer of one's own, in a folder of its own: the same name is the same folder again."""

    def made(name: str = "one", advance: Any = lambda done, total: None, **knobs: Any) -> Task:
        folders = {folder: tmp_path / name / folder for folder in ("out", "work", "logs")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(**{"micro_tokens": 10**6, "log_every": 1, **knobs})
        return Task(
            "0" * 12, "train", {"seed": 0}, {}, trainer=trainer, logger=Csv(), name="test", advance=advance, **folders
        )

    return made
