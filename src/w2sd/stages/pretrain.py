"""Stage `pretrain`: a language model from scratch on the text that its model part names."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM

from w2sd.data.loader import Loader, Shuffled
from w2sd.models.prepare import checkpoint_layers, compile_layers, silence_dropout, with_fewer_kernels
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.language import DocumentRows, LanguageLearner


def run(task: Task) -> dict[str, Any]:
    """Write `model/`: weights, config and tokenizer, as transformers saves and loads them."""
    part, text = task.params["model"], task.params["text"]
    fit = part.fit()
    tokens, weights = text.documents(part)
    rows = DocumentRows(tokens, weights, task.trainer.micro_tokens)
    model = part.begin(AutoModelForCausalLM, task.stream)
    silence_dropout(with_fewer_kernels(model))
    if task.trainer.checkpointing:
        checkpoint_layers(model)
    if task.trainer.compile:
        compile_layers(model)
    loader = Loader(rows, Shuffled(len(rows), fit.batch, task.stream))
    learner = LanguageLearner(model, fit, fit.epochs * len(loader), task.trainer.log_every)
    engine.train(task, learner, loader)

    if task.rank == 0:
        model.save_pretrained(task.out / "model")
        part.open_tokenizer().save_pretrained(task.out / "model")
    return {"n/documents": len(rows), "n/parameters": model.num_parameters(), "n/steps": learner.global_step}
