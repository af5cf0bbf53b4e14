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
from w2sd.data.states import StateRows
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.fit import Fit
from w2sd.metrics.accuracy import uid_of
from w2sd.metrics.predictions import read_predictions, write_predictions
from w2sd.models.hub import load_tokenizer
from w2sd.models.probe import Probe
from w2sd.models.score import PolicyModel, RewardModel
from w2sd.objectives.base import OWN
from w2sd.pipeline.store import read_json
from w2sd.stages import reference
from w2sd.stages.encoding import can_pack, encode_for
from w2sd.stages.features import states_of
from w2sd.students.base import Examination, Student
from w2sd.students.policy import PolicyStudent
from w2sd.students.reward import RewardStudent
from w2sd.worker import Task

BATCH = 256  # pairs handed to Lightning at once; memory is bounded by the trainer's micro_tokens


class Scored(NamedTuple):
    """A trained student, ready to be scored on some pairs, or scored on them."""

    student: Student
    loader: Loader
    pairs: list[Pair]
    encoded: Encoded
    rung: int | None  # of the embedded ladder, if the model is one


def prepare(task: Task, pairs: list[Pair], references: Mapping[str, Path]) -> Scored:
    """Load the trained student, encode the pairs, and join the predictions of other models by id.

    Which margin speaks for the student is the stage's to say and not the student's: it may not be the same where a
    student teaches as where it is measured.
    """
    trained = task.inputs["model"]
    spec = read_json(trained / "spec.json")
    params = spec["params"]
    objective, fit = (build(params[part], part, task.trusted) for part in ("objective", "fit"))
    is_probe = build(params["adapter"], "adapter", task.trusted).reads_features
    student = _load(trained, objective, fit, is_probe)

    known = {role: read_predictions(folder / "predictions.parquet") for role, folder in references.items()}
    confidence = {role: dict(zip(rows.ids, rows.p_correct, strict=True)) for role, rows in known.items()}
    data, n_asked = task.params["data"], len(pairs)
    pairs = [pair for pair in pairs if all(pair.id in column for column in confidence.values())]
    if len(pairs) < n_asked and data.long != "drop":
        raise StageFailed(f"{task.kind}: {n_asked - len(pairs)} of {n_asked} pairs lack a prediction to compare with")
    if is_probe:
        backbone = build(params["model"], "model", task.trusted)
        config, tokenizer = backbone.open_config(), backbone.open_tokenizer()
    else:
        config, tokenizer = student.model.backbone.config, load_tokenizer(trained / "model")
    encoded = encode_for(config, tokenizer, data, pairs, params.get("append_eos"))
    pairs = [pairs[i] for i in encoded.kept]
    swapped = np.array([coin(pair.id) for pair in pairs])
    said = None
    if objective.needs_reference:
        origin = spec["inputs"].get("base") or reference.known_by(build(params["model"], "model", task.trusted), None)
        said = reference.join(task.inputs["reference"], origin, pairs, encoded)
    given = (encoded, swapped, None, task.trainer.micro_tokens)
    if is_probe:
        rows: PairRows = StateRows(states_of(task.inputs["features"], [pair.id for pair in pairs]), *given)
    else:
        rows = PairRows(*given, references=said, is_packed=can_pack(task, student.model, encoded))
    columns = {
        role: torch.tensor([column[pair.id] for pair in pairs], dtype=torch.float64)
        for role, column in confidence.items()
    }
    uid = torch.tensor([uid_of(pair.id) for pair in pairs])
    student.examine(Examination(uid, torch.from_numpy(swapped), columns), task.params.get("reading", OWN))
    loader = Loader(rows, in_length_order(rows.lengths, BATCH))
    return Scored(student, loader, pairs, encoded, params["model"].get("rung") if hasattr(data, "known") else None)


def _load(trained: Path, objective: Any, fit: Fit, is_probe: bool) -> Student:
    """The trained student, of the kind that its objective trains."""
    if objective.student == "policy":
        student: Student = PolicyStudent(PolicyModel.load(trained), objective, NoConflict(), fit)
    else:
        model = Probe.load(trained) if is_probe else RewardModel.load(trained)
        student = RewardStudent(model, objective, NoConflict(), fit)
    student.requires_grad_(False)
    return student


def write(task: Task, scored: Scored, name: str = "predictions.parquet") -> None:
    """Write one row per pair, oriented to the truth.

    The embedded world adds what only it can know: the true difficulty of a pair (`stratum`), and whether the model was
    taught what decides it (`known`). A policy adds the log-probabilities that its margin is made of.
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
        **scored.student.columns(),
    }
    if any(pair.stratum for pair in pairs):
        columns["stratum"] = [pair.stratum for pair in pairs]
    if scored.rung is not None:
        columns["known"] = task.params["data"].known(pairs, scored.rung)
    if task.rank == 0:
        write_predictions(task.out / name, columns)
