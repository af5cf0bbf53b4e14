"""Stage `sft`: a language model, fine-tuned on the answers that its teacher prefers. Policies begin there."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.conflicts.none import NoConflict
from w2sd.data.batch import AnswerRows, Loader, Shuffled
from w2sd.data.pairs import coin, read
from w2sd.errors import within
from w2sd.models.score import PolicyModel, silence_dropout
from w2sd.stages import lightning
from w2sd.stages.encoding import encode_for
from w2sd.stages.lessons import lessons
from w2sd.students.policy import SftLearner
from w2sd.worker import Task


def run(task: Task) -> dict[str, Any]:
    """Write `model/`."""
    params, fit = task.params, task.params["fit"]
    with within("model"):
        model = PolicyModel(params["model"].open_language_model(task.inputs.get("base")))
        tokenizer = params["model"].open_tokenizer()
    conflict = params["conflict"] or NoConflict()
    if not fit.dropout:
        silence_dropout(model.lm)
    params["adapter"].apply(model, params["seed"])

    taught = lessons(task, read(params["data"]), conflict)
    encoded = encode_for(model.lm.config, tokenizer, params["data"], taught.pairs, params["append_eos"])
    n_own = sum(place < taught.n_own for place in encoded.kept)
    swapped = np.array([coin(taught.pairs[i].id) for i in encoded.kept])
    prefers_chosen = (taught.targets[encoded.kept] >= 0.5) != swapped  # undecided: the first slot, which a coin filled
    answers = [
        chosen if prefers else rejected
        for chosen, rejected, prefers in zip(encoded.chosen, encoded.rejected, prefers_chosen, strict=True)
    ]
    rows = AnswerRows(encoded.prompts, answers, task.trainer.micro_tokens)

    loader = Loader(rows, Shuffled(len(rows), fit.batch, params["seed"]))
    n_steps = fit.epochs * (-(-n_own // fit.batch) if conflict.match_steps else len(loader))
    learner = SftLearner(model, fit, n_steps, task.trainer.log_every)
    lightning.train(task, learner, loader, fit, params["seed"], n_steps)
    if task.rank == 0:
        params["adapter"].merge(model)
        model.save(task.out, tokenizer)
    return {
        "n/answers": len(rows),
        "n/extra": len(rows) - n_own,
        "n/steps": learner.global_step,
        "n/truncated_prompts": encoded.truncated_prompts,
        "n/dropped_long": encoded.dropped_long,
    }
