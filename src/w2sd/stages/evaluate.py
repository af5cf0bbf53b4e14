"""Stage `evaluate`: a trained model on the test split, measured beside the models it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from w2sd.atomic import read_json
from w2sd.conflicts.base import NoConflict
from w2sd.data.loader import Loader, in_length_order
from w2sd.data.pairs import CONFLICTING, drops_long, read
from w2sd.errors import StageFailed
from w2sd.metrics.accuracy import accuracy
from w2sd.metrics.torch_metrics import uid_of
from w2sd.models.heads import Probe
from w2sd.models.hub import load_tokenizer
from w2sd.objectives.base import OWN
from w2sd.pipeline.stage import Task
from w2sd.predictions import LOGITS, PREDICTIONS, write_predictions
from w2sd.stages import engine, reference
from w2sd.stages.encoding import can_pack, encode_for, rows_for
from w2sd.stages.features import states_of
from w2sd.stages.train import kind_of
from w2sd.stages.training_targets import hinted, p_correct_in, right_option
from w2sd.students.student import Examination, Student

HELPFUL = "helpful.parquet"  # predictions of held-out pairs of the conflicting facet


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet`, and `helpful.parquet` where there are held-out pairs of the conflicting facet.

    What the student's own metrics say is returned: accuracy, and `pgr` where references are given.
    """
    table, split = read(task.params["data"]), task.params["split"]
    read_before = ("model", "reference", "features")
    references = {role: folder for role, folder in task.inputs.items() if role not in read_before}
    scored = prepare(task, table.rows(split), references)
    logged = engine.test(task, scored.student, scored.loader)
    write(task, scored)
    metrics = {name: None if math.isnan(value) else value for name, value in logged.items()}
    metrics |= {
        "n/dropped_long": scored.encoded.dropped_long,
        "n/truncated_prompts": scored.encoded.truncated_prompts,
        "n/equal_tokens": scored.encoded.equal_tokens,
    }
    metrics |= {"n/pairs": len(scored.examples), "n/steps": read_json(task.inputs["model"] / "metrics.json")["n/steps"]}
    if hasattr(task.params["data"], "judge"):
        predicted = scored.student.predictions["logits"].argmax(axis=1).tolist()
        judged = task.params["data"].judge(scored.examples, predicted)
        metrics |= {f"judged/{name}": value for name, value in judged.items()}
    if split == "test" and (helpful := table.rows(split, CONFLICTING)):
        scored = prepare(task, helpful, {}, HELPFUL)
        engine.predict(task, scored.student, scored.loader)
        write(task, scored, HELPFUL)
        metrics["helpful/accuracy"] = accuracy(scored.student.predictions["p_correct"])
    return metrics


class Scored(NamedTuple):
    """A trained student, ready to be scored on some examples, or scored on them."""

    student: Student
    loader: Loader
    examples: list[Any]  # pairs or items
    encoded: Any  # of those pairs (Encoded) or items (EncodedItems)
    rung: int | None  # of the embedded ladder, if the model is one


def prepare(task: Task, examples: list[Any], references: Mapping[str, Path], hints: str = PREDICTIONS) -> Scored:
    """Load the trained student, encode the examples, and join the predictions of other models by id.

    A student that was trained with hints reads here what the weak model says in its file `hints`. Which margin speaks
    for the student is the stage's to say and not the student's: it may not be the same where a student teaches as where
    it is measured.
    """
    trained = task.inputs["model"]
    objective, fit, model = (task.origin[part] for part in ("objective", "fit", "model"))
    data, n_given = task.params["data"], len(examples)
    kind = kind_of(objective, data)
    is_probe = task.origin["adapter"].reads_features
    model_type: Any = Probe if is_probe else kind.model_type
    student = kind(model_type.load(trained), objective, NoConflict(), fit)
    student.requires_grad_(False)

    confidence = {role: p_correct_in(folder) for role, folder in references.items()}
    examples = [each for each in examples if all(each.id in column for column in confidence.values())]
    if len(examples) < n_given and not drops_long(data):
        raise StageFailed(f"{task.kind}: {n_given - len(examples)} of {n_given} rows lack a prediction to compare with")
    if is_probe:
        config, tokenizer = model.open_config(), model.open_tokenizer()
    else:
        config, tokenizer = student.model.backbone.config, load_tokenizer(trained / "model")
    hint = task.origin.get("hint")
    examples, shown = hinted(task, hint, "weak", examples, hints)
    kept = task.tokens if hint is None else None  # there are the rows as they are without one
    encoded = encode_for(config, tokenizer, data, shown, task.origin.get("append_eos"), kept)
    examples = [examples[i] for i in encoded.kept]
    right = np.array([right_option(example) for example in examples])
    known: dict[str, Any] = {}
    if is_probe:
        known["states_NAD"] = states_of(task.inputs["features"], [each.id for each in examples])
    else:
        known["is_packed"] = can_pack(task, student.model, encoded, fit.precision)
    if objective.needs_reference:
        origin = read_json(trained / "spec.json")["inputs"].get("base") or reference.known_by(model, None)
        known["references"] = reference.join(task.inputs["reference"], origin, examples, encoded)
    rows = rows_for(task, encoded, examples, **known)
    columns = {
        role: torch.tensor([column[each.id] for each in examples], dtype=torch.float64)
        for role, column in confidence.items()
    }
    uid = torch.tensor([uid_of(example.id) for example in examples])
    cluster = torch.from_numpy(np.unique([example.cluster for example in examples], return_inverse=True)[1])
    reading = task.params.get("reading", OWN)
    student.examine(Examination(uid, cluster, torch.from_numpy(right), columns, reading))
    loader = Loader(rows, in_length_order(rows.lengths))
    return Scored(student, loader, examples, encoded, getattr(model, "rung", None) if hasattr(data, "known") else None)


def write(task: Task, scored: Scored, name: str = PREDICTIONS) -> None:
    """Write one row per example, oriented to the truth.

    The embedded world adds what only it can know: the true difficulty of an example (`stratum`), and whether the model
    was taught what decides it (`known`). A policy adds the log-probabilities that its margin is made of; a classifier
    adds the class that it prefers and, in a file of their own, its logits.
    """
    examples, own = scored.examples, dict(scored.student.predictions)
    logits_NC, encoded = own.pop("logits", None), scored.encoded
    columns: dict[str, Any] = {name: [getattr(each, name) for each in examples] for name in ("id", "cluster")}
    columns |= {name: own.pop(name) for name in ("margin", "p_correct")}
    if logits_NC is None:
        sides = {"n_prompt": encoded.prompts, "n_chosen": encoded.chosen, "n_rejected": encoded.rejected}
        columns |= {name: _lengths(side) for name, side in sides.items()} | own
    else:
        columns |= {"n_prompt": _lengths(encoded.texts), "predicted": logits_NC.argmax(axis=1)}
    if any(example.stratum for example in examples):
        columns["stratum"] = [example.stratum for example in examples]
    if scored.rung is not None:
        columns["known"] = task.params["data"].known(examples, scored.rung)
    if task.rank == 0:
        write_predictions(task.out / name, columns)
        if logits_NC is not None:
            save_file({"logits": logits_NC}, task.out / LOGITS)


def _lengths(texts: list[np.ndarray]) -> np.ndarray:
    return np.array([len(ids) for ids in texts], dtype=np.int32)
