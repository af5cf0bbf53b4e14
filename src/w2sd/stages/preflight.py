"""What is checked before the first stage: can every model read every row it will be given, and be trained as asked?"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from w2sd.config import RunConfig
from w2sd.data.pairs import Table, classes_of, read
from w2sd.data.text import check_distinct, readable
from w2sd.errors import Refused, require, within
from w2sd.identity import target
from w2sd.models.hub import Hub
from w2sd.parts.trainer import Trainer, has_gpu, n_cores
from w2sd.parts.words import Shown
from w2sd.pipeline.store import Store
from w2sd.stages.encoding import Encoding, context_of, encode_for
from w2sd.stages.refine import words_of


def check(run: RunConfig) -> None:
    """Refuse broken rows, foreign tokens, responses that do not fit, heads and devices that are not there."""
    _check_devices(run.trainer)
    if run.trainer.strategy == "fsdp2" and run.stopping is not None:
        raise Refused("stopping", target(run.stopping), "stopping=none under trainer.strategy=fsdp2, or ddp")
    is_policy = run.objective.student == "policy"
    table, tokens = read(run.data), Store(run.settings.store).tokens
    known = tokens if tokens.is_dir() else None  # a store is made by the first stage, and not by what is refused here
    hops = {f"chain.between.{name}": model for name, model in run.chain.hops(run.weak, run.strong).items()}
    for role, model in {"weak": run.weak, "strong": run.strong, **hops}.items():
        with within(role):
            if (text := model.text(run.data)) is not None:
                getattr(text, "check", text.documents)(model)  # a text that is slow to write says itself what it lacks
            config, tokenizer = model.open_config(), model.open_tokenizer()
            if isinstance(model, Hub):
                model.check_weights()
        for append_eos in _layouts(run, role):
            with _read_by(role):
                encoded = encode_for(config, tokenizer, run.data, table.examples, append_eos, known)
            with within(role):
                _check_room(table.examples, encoded)
        run.adapter.check(config, is_policy)
        if run.head is not None:
            with within("head"):
                run.head.tokens(tokenizer, classes_of(run.data) or ())
    if run.refinement is not None:
        strong, classes = run.strong, classes_of(run.data) or ()
        words_of(run.refinement, classes, strong.open_tokenizer(), strong.open_config(), run.data.max_tokens)
    if hint := run.conflict.hint or run.hint:
        _check_hint(run, hint, table)


def _check_devices(trainer: Trainer) -> None:
    """Refuse devices that are not there, and a compiler."""
    on_cpu = trainer.resolve(has_gpu()).accelerator == "cpu"
    if not on_cpu and not has_gpu():
        raise Refused("trainer.accelerator", "gpu", "cpu: no CUDA device is visible here")
    n_there = n_cores() if on_cpu else torch.cuda.device_count()
    which = "cores that this process may use" if on_cpu else "CUDA devices that are visible here"
    require(trainer.devices <= n_there, "trainer.devices", trainer.devices, f"at most {n_there}, the {which}")
    if trainer.compile and on_cpu and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Refused("trainer.compile", True, "false: torch.compile needs a C++ compiler, and there is no g++ here")


def device(trainer: Trainer) -> str:
    """Where a trainer that leaves this to the machine computes, and with how many threads, in a few words."""
    alone, shared = (trainer.resolve(has_gpu(), is_pretrained) for is_pretrained in (False, True))
    if alone.accelerator == "gpu":
        return f"the GPU ({torch.cuda.get_device_name()})"
    threads = f"{alone.threads}, or {shared.threads} for a pretrained model"
    return f"the CPU, since torch sees no GPU (threads: {threads if alone != shared else alone.threads})"


def _layouts(run: RunConfig, role: str) -> list[str | None]:
    """How a model is given its texts (see `encode_for`): a policy as such and, where a probe asks it, as any other."""
    if run.objective.student != "policy":
        return [None]
    is_probed = run.supervision.needs_features and role != "weak"  # it teaches, and no probe asks what it reads
    return [run.data.append_eos, *([None] if is_probed else [])]


def _check_room(examples: list[Any], encoded: Encoding) -> None:
    """Refuse a context that leaves too few rows of any kind."""
    left = Counter((examples[i].split, examples[i].facet, examples[i].part) for i in encoded.kept)
    for split, facet, part in {(each.split, each.facet, each.part) for each in examples}:
        n = left[split, facet, part]
        accepted = f"2 or more {facet} rows of split {split} that fit this model's context; {n} do"
        require(n >= 2, "context", f"{encoded.dropped_long} rows too long", accepted)


def _check_hint(run: RunConfig, hint: Shown, table: Table) -> None:
    """Refuse hints that the strong model cannot read, or tell apart, and answers that do not fit with theirs."""
    classes, rows = classes_of(run.data), [*table.rows("w2s"), *table.split("test")]
    words = hint.words_for(classes)
    config, tokenizer = run.strong.open_config(), run.strong.open_tokenizer()
    for word in words:
        readable("hint.words", word, tokenizer, config)
    ids = [readable("hint.said", hint.phrase(word), tokenizer, config) for word in words]
    check_distinct("hint.words", ids, words)
    if classes:  # whose texts are cut to fit: the words are what there is to check
        context = context_of(config, run.data)
        accepted = f"a text with room before it in a context of {context}"
        require(max(map(len, ids)) < context, "hint.said", hint.said, accepted)
        return
    for option in range(len(words)):
        written = [hint.write(row, option, words) for row in rows]
        with _read_by("strong, with its hint"):
            encoded = encode_for(config, tokenizer, run.data, written)
        with within("hint"):
            _check_room(written, encoded)


@contextmanager
def _read_by(role: str) -> Iterator[None]:
    """A row that is refused is named by where it stands, and not as a knob of the model that cannot read it."""
    try:
        yield
    except Refused as refusal:
        raise Refused(refusal.knob, refusal.value, f"{refusal.accepted} (model: {role})") from refusal.__cause__
