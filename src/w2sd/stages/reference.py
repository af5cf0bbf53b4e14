"""Stage `reference`: what a policy was before its preference training says of the answers of a split.

It is asked once, for every row, of whatever facet and part; training reads its answers from a column and never has a
second model in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from w2sd.atomic import read_json
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import PairRows
from w2sd.data.loader import Loader, in_length_order
from w2sd.data.pairs import Pair, read
from w2sd.data.text import Encoded
from w2sd.errors import Refused, require
from w2sd.identity import canonical, digest, identity
from w2sd.metrics.torch_metrics import uid_of
from w2sd.objectives.preference import SFT
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.stages.encoding import can_pack, encode_for, open_policy
from w2sd.students.student import LOGP, Examination, PolicyStudent


def run(task: Task) -> dict[str, Any]:
    """Write `logps.parquet`: of each pair the log-probabilities of both answers, and a digest of the tokens read."""
    params = task.params
    model, tokenizer = open_policy(task)
    model.requires_grad_(False)
    pairs = read(params["data"]).split(params["split"])
    encoded = encode_for(model.lm.config, tokenizer, params["data"], pairs, params["append_eos"], task.tokens)
    pairs = [pairs[i] for i in encoded.kept]
    fit, swapped = Fit(precision=params["precision"]), np.zeros(len(pairs), dtype=bool)
    is_packed = can_pack(task, model, encoded, fit.precision)
    rows = PairRows(encoded, swapped, task.trainer.micro_tokens, is_packed=is_packed)
    student = PolicyStudent(model, SFT(), NoConflict(), fit)
    uid = torch.tensor([uid_of(pair.id) for pair in pairs])
    student.examine(Examination(uid, torch.arange(len(uid)), torch.from_numpy(swapped), {}))  # measures nothing
    engine.predict(task, student, Loader(rows, in_length_order(rows.lengths)))

    if task.rank == 0:
        logps = {name: student.predictions[name] for name in LOGP}
        table = pa.table({"id": [pair.id for pair in pairs], **logps, "tokens": _digests(encoded)})
        pq.write_table(table, task.out / "logps.parquet", compression="zstd", version="2.6", store_schema=False)
    return {"n/pairs": len(pairs), "model": known_by(params["model"], task.inputs.get("base"))}


def known_by(part: Any, base: Path | None) -> str:
    """What tells one model from another: the key of the stage that it was trained in, or else its own identity."""
    return digest(canonical(identity(part))) if base is None else read_json(base / "spec.json")["key"]


def join(folder: Path, model: str, pairs: list[Pair], encoded: Encoded) -> np.ndarray:
    """The reference's log-probabilities of the better and the worse answer of each pair, [n, 2].

    It has to be the reference of this model (see `known_by`), and to have read the same tokens.
    """
    made_for = read_json(folder / "metrics.json")["model"]
    require(made_for == model, "reference", made_for, f"one that was made for the model {model}")
    table = pq.read_table(folder / "logps.parquet").to_pydict()
    place = {id: n for n, id in enumerate(table["id"])}
    missing = [pair.id for pair in pairs if pair.id not in place]
    if missing:
        raise Refused("reference", missing[0], f"only pairs that the reference has read; {len(missing)} are not")
    order = [place[pair.id] for pair in pairs]
    for pair, n, tokens in zip(pairs, order, _digests(encoded), strict=True):
        accepted = "only pairs of the same tokens as the reference has read (template, tokenizer, context, end token)"
        require(table["tokens"][n] == tokens, "reference", pair.id, accepted)
    return np.column_stack([np.array(table[name])[order] for name in LOGP])


def _digests(encoded: Encoded) -> list[str]:
    """What tells the tokens of one pair from all others."""
    parts = zip(encoded.prompts, encoded.chosen, encoded.rejected, strict=True)
    return [digest(*(ids.tobytes().hex() for ids in pair)) for pair in parts]
