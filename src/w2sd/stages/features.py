"""Stage `features`: what a frozen transformer makes of every row of a split, of whatever facet and part.

It reads each row once; whatever is then made of its states (heads, neighbours, classes) reads this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from w2sd.data.batch import Loader, PairRows, in_length_order
from w2sd.data.pairs import coin, read
from w2sd.errors import StageFailed, within
from w2sd.fit import Fit
from w2sd.models.probe import StateModel
from w2sd.stages import lightning
from w2sd.stages.encoding import can_pack, encode_for
from w2sd.students.features import StateReader
from w2sd.worker import Task

BATCH = 256  # rows handed to Lightning at once
FILE = "features.safetensors"


def run(task: Task) -> dict[str, Any]:
    """Write the states at the ends of both answers of each pair in slot order, [n, 2, D], and the ids of the pairs.

    They know nothing of the truth, for a coin has put the answers in their slots.
    """
    params = task.params
    with within("model"):
        backbone, tokenizer = params["model"].open_backbone(task.inputs.get("base")), params["model"].open_tokenizer()
    model = StateModel(backbone, params["layer"])
    model.requires_grad_(False)
    pairs = read(params["data"]).split(params["split"])
    encoded = encode_for(backbone.config, tokenizer, params["data"], pairs)
    pairs = [pairs[i] for i in encoded.kept]
    swapped = np.array([coin(pair.id) for pair in pairs])
    rows = PairRows(encoded, swapped, None, task.trainer.micro_tokens, is_packed=can_pack(task, model, encoded))
    reader = StateReader(model, len(pairs))
    lightning.predict(
        task, reader, Loader(rows, in_length_order(rows.lengths, BATCH)), Fit(precision=params["precision"])
    )
    states = reader.states
    assert states is not None
    if not states.isfinite().all():
        raise StageFailed("features: the model has states without value; its weights or its precision are to blame")
    if task.rank == 0:
        ids = json.dumps([pair.id for pair in pairs])
        save_file({"states": states.contiguous()}, task.out / FILE, metadata={"ids": ids})
    return {"n/pairs": len(pairs), "n/width": states.shape[-1]}


def ids_in(folder: Path) -> list[str]:
    """Which rows have states."""
    with safe_open(folder / FILE, "numpy") as file:
        return json.loads(file.metadata()["ids"])


def width_of(folder: Path) -> int:
    """How many numbers a state has."""
    with safe_open(folder / FILE, "numpy") as file:
        return file.get_slice("states").get_shape()[-1]


def states_of(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """The states of some rows, [n, answers, D] in slot order."""
    place = {id: n for n, id in enumerate(ids_in(folder))}
    if missing := [id for id in ids if id not in place]:
        raise StageFailed(f"features: {len(missing)} of {len(ids)} rows have none, {missing[0]} among them")
    with safe_open(folder / FILE, "numpy") as file:
        return file.get_tensor("states")[[place[id] for id in ids]]


def vectors_of(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """One vector for each row, [n, D]: of a pair the first state minus the second, so that a head gives a margin."""
    states = states_of(folder, ids)
    return states[:, 0] - states[:, 1] if states.shape[1] == 2 else states[:, 0]
