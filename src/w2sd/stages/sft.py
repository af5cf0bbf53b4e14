"""Stage `sft`: a language model, fine-tuned on the answers that its teacher prefers. Policies begin there."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.batch import AnswerRows
from w2sd.data.pairs import coin
from w2sd.pipeline.stage import Task
from w2sd.stages.encoding import open_policy
from w2sd.stages.train import finish, n_ended, prepare
from w2sd.students.language import SftLearner


def run(task: Task) -> dict[str, Any]:
    """Write `model/`."""
    params = task.params
    model, tokenizer = open_policy(task)
    training = prepare(task, model, tokenizer)
    encoded = training.encoded
    swapped = np.array([coin(pair.id) for pair in training.examples])
    p_first = training.targets_NK[:, 0]
    prefers_chosen = (p_first >= 0.5) != swapped  # undecided: the first slot, which a coin filled
    answers = [
        chosen if prefers else rejected
        for chosen, rejected, prefers in zip(encoded.chosen, encoded.rejected, prefers_chosen, strict=True)
    ]
    rows = AnswerRows(encoded.prompts, answers, task.trainer.micro_tokens, is_packed=training.is_packed)
    learner = SftLearner(model, params["fit"], training.n_steps, task.trainer.log_every)
    counts = {"n/answers": len(rows), "n/undecided": int((p_first == 0.5).sum())}
    counts["n/end_token"] = n_ended(answers, tokenizer)
    return counts | finish(task, training, learner, rows)
