"""Stage `generative`: a language model reads the texts of the task, of whatever part, and sees none of their labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.batch import AnswerRows
from w2sd.data.loader import Loader, Shuffled
from w2sd.data.pairs import read
from w2sd.data.text import EncodedItems, Ids
from w2sd.models.prepare import checkpoint_layers, compile_layers, silence_dropout
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.stages.encoding import Encoding, can_pack, encode_for, open_policy
from w2sd.students.language import TextLearner


def run(task: Task) -> dict[str, Any]:
    """Write `model/`."""
    params, fit = task.params, task.params["fit"]
    model, tokenizer = open_policy(task)
    if not fit.dropout:
        silence_dropout(model.backbone)
    if task.trainer.checkpointing:
        checkpoint_layers(model.backbone)
    examples = read(params["data"]).rows(params["split"], part=None)
    encoded = encode_for(
        model.backbone.config, tokenizer, params["data"], examples, params.get("append_eos"), task.tokens
    )
    texts = whole(encoded)
    is_packed = not fit.dropout and can_pack(task, model, encoded, fit.precision)
    if task.trainer.compile:
        compile_layers(model.backbone)
    rows = AnswerRows([np.zeros(0, dtype=np.int32)] * len(texts), texts, task.trainer.micro_tokens, is_packed=is_packed)
    loader = Loader(rows, Shuffled(len(rows), fit.batch, task.stream))
    learner = TextLearner(model, fit, fit.epochs * len(loader), task.trainer.log_every)
    engine.train(task, learner, loader)
    if task.rank == 0:
        model.save(task.out, tokenizer)
    return {"n/texts": len(rows), "n/steps": learner.global_step}


def whole(encoded: Encoding) -> list[Ids]:
    """Texts from beginning to end: of a pair, its prompt with either answer, the worse as well as the better."""
    if isinstance(encoded, EncodedItems):
        return encoded.texts
    sides = zip(encoded.prompts * 2, encoded.chosen + encoded.rejected, strict=True)
    return [np.concatenate(side) for side in sides]
