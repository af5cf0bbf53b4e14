"""Stage `features`: what a frozen transformer makes of every row of a split, of whatever facet and part.

It reads each row once; whatever is then made of its states (heads, neighbours, classes) reads this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from w2sd.data.batch import ItemBatch, PairBatch
from w2sd.data.loader import Batch, Loader, in_length_order
from w2sd.data.pairs import read
from w2sd.errors import StageFailed, within
from w2sd.models.heads import StateModel
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.stages.encoding import can_pack, encode_for, rows_for
from w2sd.students.learner import Reader, unwrapped

FILE = "features.safetensors"


class StateReader(Reader):
    """After a pass over `n` rows, `states_NAD` has what was made of each text, on every process."""

    def __init__(self, model: StateModel, fit: Fit, n: int) -> None:
        super().__init__(model, fit)
        self.n = n
        self.states_NAD: Tensor | None = None

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self._each(batch, lambda piece, _: self._read(*unwrapped(piece)))

    def _read(self, micro: PairBatch | ItemBatch, counts: float) -> None:
        of_BD = self.model(micro.tokens).float().cpu()
        of_NAD = of_BD.unflatten(0, (-1, len(micro.rows))).transpose(0, 1)
        if self.states_NAD is None:
            self.states_NAD = torch.zeros(self.n, *of_NAD.shape[1:])
        if counts:
            self.states_NAD[micro.rows.cpu()] = of_NAD

    def on_predict_epoch_end(self) -> None:
        """Each process has read its part of the rows, and has zeros elsewhere."""
        assert self.states_NAD is not None
        self.states_NAD = self.trainer.strategy.reduce(self.states_NAD.to(self.device), reduce_op="sum").cpu()


def run(task: Task) -> dict[str, Any]:
    """Write the states at the ends of all texts, [n, texts, D], and the ids of the rows.

    A pair has two texts, in slot order: the file knows nothing of the truth, for a coin has put them there.
    """
    params = task.params
    with within("model"):
        backbone, tokenizer = params["model"].open_backbone(task.inputs.get("base")), params["model"].open_tokenizer()
    n_parameters = sum(weights.numel() for weights in backbone.parameters())
    model = StateModel(backbone, params["layer"])
    model.requires_grad_(False)
    examples = read(params["data"]).split(params["split"])
    encoded = encode_for(backbone.config, tokenizer, params["data"], examples, kept=task.tokens)
    examples = [examples[i] for i in encoded.kept]
    ids = [each.id for each in examples]
    is_packed = can_pack(task, model, encoded, params["precision"])
    rows = rows_for(task, encoded, examples, is_packed=is_packed)
    reader = StateReader(model, Fit(precision=params["precision"]), len(ids))
    engine.predict(task, reader, Loader(rows, in_length_order(rows.lengths)))
    states_NAD = reader.states_NAD
    assert states_NAD is not None
    if not states_NAD.isfinite().all():
        raise StageFailed("features: the model has states without value; its weights or its precision are to blame")
    if task.rank == 0:
        save_file({"states": states_NAD.contiguous()}, task.out / FILE, metadata={"ids": json.dumps(ids)})
    return {"n/rows": len(ids), "n/width": states_NAD.shape[-1], "n/parameters": n_parameters}


def ids_in(folder: Path) -> list[str]:
    """Which rows have states."""
    with safe_open(folder / FILE, "numpy") as file:
        return json.loads(file.metadata()["ids"])


def width_of(folder: Path) -> int:
    """How many numbers a state has."""
    with safe_open(folder / FILE, "numpy") as file:
        return file.get_slice("states").get_shape()[-1]


def states_of(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """The states of some rows, [n, texts, D]."""
    place = {id: n for n, id in enumerate(ids_in(folder))}
    if missing := [id for id in ids if id not in place]:
        raise StageFailed(f"features: {len(missing)} of {len(ids)} rows have none, {missing[0]} among them")
    with safe_open(folder / FILE, "numpy") as file:
        return file.get_tensor("states")[[place[id] for id in ids]]
