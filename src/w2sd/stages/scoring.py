"""What `label` and `evaluate` share: a trained student, scored on a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from w2sd.config import build
from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import Loader, PairRows, in_length_order
from w2sd.data.pairs import Pair, coin
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.metrics.accuracy import uid_of
from w2sd.metrics.predictions import read_predictions, write_predictions
from w2sd.models.hub import load_tokenizer
from w2sd.models.score import RewardModel
from w2sd.pipeline.store import read_json
from w2sd.stages.encoding import encode_for
from w2sd.students.reward import Examination, RewardStudent
from w2sd.worker import Task

BATCH = 256  # pairs handed to Lightning at once; memory is bounded by the trainer's micro_tokens


class Scored(NamedTuple):
    """A trained student, ready to be scored on some pairs, or scored on them."""

    student: RewardStudent
    loader: Loader
    pairs: list[Pair]
    encoded: Encoded
    rung: int | None  # of the embedded ladder, if the model is one


def prepare(task: Task, pairs: list[Pair], references: Mapping[str, Path]) -> Scored:
    """Load the trained student, encode the pairs, and join the predictions of other models by id."""
    trained = task.inputs["model"]
    params = read_json(trained / "spec.json")["params"]
    model = RewardModel.load(trained)
    model.requires_grad_(False)
    objective, fit = (build(params[part], part, task.trusted) for part in ("objective", "fit"))
    student = RewardStudent(model, objective, NoConflict(), fit)

    known = {role: read_predictions(folder / "predictions.parquet") for role, folder in references.items()}
    confidence = {role: dict(zip(rows.ids, rows.p_correct, strict=True)) for role, rows in known.items()}
    data, n_asked = task.params["data"], len(pairs)
    pairs = [pair for pair in pairs if all(pair.id in column for column in confidence.values())]
    if len(pairs) < n_asked and data.long != "drop":
        raise StageFailed(f"{task.kind}: {n_asked - len(pairs)} of {n_asked} pairs lack a prediction to compare with")
    encoded = encode_for(model.backbone.config, load_tokenizer(trained / "model"), data, pairs)
    pairs = [pairs[i] for i in encoded.kept]
    swapped = np.array([coin(pair.id) for pair in pairs])
    rows = PairRows(encoded, swapped, None, task.trainer.micro_tokens)
    columns = {
        role: torch.tensor([column[pair.id] for pair in pairs], dtype=torch.float64)
        for role, column in confidence.items()
    }
    uid = torch.tensor([uid_of(pair.id) for pair in pairs])
    student.examine(Examination(uid, torch.from_numpy(swapped), columns))
    loader = Loader(rows, in_length_order(rows.lengths, BATCH))
    return Scored(student, loader, pairs, encoded, params["model"].get("rung") if hasattr(data, "known") else None)


def write(task: Task, scored: Scored, name: str = "predictions.parquet") -> None:
    """Write one row per pair, oriented to the truth.

    The embedded world adds what only it can know: the true difficulty of a pair (`stratum`), and whether the model was
    taught what decides it (`known`).
    """
    pairs, encoded = scored.pairs, scored.encoded
    columns: dict[str, Any] = {
        "id": [pair.id for pair in pairs],
        "cluster": [pair.cluster for pair in pairs],
        "margin": scored.student.margins,
        "p_correct": scored.student.p_correct,
        "n_prompt": np.array([len(ids) for ids in encoded.prompts], dtype=np.int32),
        "n_chosen": np.array([len(ids) for ids in encoded.chosen], dtype=np.int32),
        "n_rejected": np.array([len(ids) for ids in encoded.rejected], dtype=np.int32),
    }
    if any(pair.stratum for pair in pairs):
        columns["stratum"] = [pair.stratum for pair in pairs]
    if scored.rung is not None:
        columns["known"] = task.params["data"].known(pairs, scored.rung)
    write_predictions(task.out / name, columns)
