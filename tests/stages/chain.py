"""A whole run on a small world, which the tests of stages take apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM

from w2sd.config import RunConfig
from w2sd.data import pairs as data
from w2sd.data.pairs import Pair
from w2sd.pipeline.launch import runtime
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.worker import execute


def compute(stage: Stage, run: RunConfig, store: Store) -> None:
    """The artifact of a stage, if it is not there; language models stay as they begin, and are not pretrained."""
    if store.has(stage.kind, stage.key):
        return
    if stage.kind != "pretrain":
        execute(stage.spec(), runtime(stage, run), store, lambda done, total: None)
        return
    torch.manual_seed(0)
    with store.writing(stage.spec()) as out:
        part = stage.params["model"]
        AutoModelForCausalLM.from_config(part.open_config()).save_pretrained(out / "model")
        part.open_tokenizer().save_pretrained(out / "model")


class Chain(NamedTuple):
    """What was asked for, the stages that it takes, and the store that has them all."""

    run: RunConfig
    stages: dict[str, Stage]
    store: Store

    def folder(self, name: str) -> Path:
        return self.store.find(self.stages[name].key)

    @property
    def table(self) -> data.Table:
        return data.read(self.run.data)

    def pairs(self, split: str) -> list[Pair]:
        return self.table.rows(split)

    def scored(self, name: str) -> list[Pair]:
        """The pairs that a stage scores."""
        return self.table.split("w2s") if name.startswith("label/") else self.pairs("test")

    def inputs(self, name: str) -> dict[str, Path]:
        return {role: self.store.find(stage.key) for role, stage in self.stages[name].inputs.items()}

    def columns(self, name: str, file: str = "predictions.parquet") -> dict[str, Any]:
        return {key: np.array(value) for key, value in pq.read_table(self.folder(name) / file).to_pydict().items()}
