"""Open a model and make tokens that fit it; the processes of a group decide alike."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from w2sd.data.batch import ItemRows, PairRows, StateItems, StatePairs
from w2sd.data.pairs import classes_of, coin, read, texts_of
from w2sd.data.text import Encoded, EncodedItems, Row, encode_items, encode_rows, gather, gather_items
from w2sd.data.token_cache import load, save
from w2sd.errors import within
from w2sd.identity import digest
from w2sd.models.heads import PolicyModel
from w2sd.models.packing import pack
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.stages import engine

KEPT = 8  # tokenizers whose rows a process remembers, and
ROWS = 50_000  # of each, above which they are forgotten: the jobs of a sweep read the same
VERSION = 1  # of the files; another one where `data/text.py` makes other tokens of the same texts
Encoding = Encoded | EncodedItems
Make = Callable[[list[Any]], list[Row | None]]
Rows = dict[tuple[str, ...], Row | None]  # by the texts that they are made of


def open_policy(task: Task) -> tuple[PolicyModel, Any]:
    """The language model that a stage begins with, and its tokenizer."""
    part = task.params["model"]
    with within("model"):
        return PolicyModel(part.open_language_model(task.inputs.get("base"))), part.open_tokenizer()


def encode_for(
    config: Any,
    tokenizer: Any,
    data: Any,
    examples: list[Any],
    append_eos: str | None = None,
    kept: Path | None = None,
) -> Any:
    """The pairs (Encoded) or items (EncodedItems) as tokens of this model, within its context and that of the data.

    `append_eos` is None for a reward model, which reads prompt and response as two texts. A policy reads one text that
    goes on: with `auto` it ends in the tokenizer's end token, if there is one, with `never` where the response ends.

    A process remembers rows, and begins anew when it has more than `ROWS` of a tokenizer; where `kept` is a folder, the
    rows of the splits that are asked for are found there or left there for others. Rows that are not as `data` has them
    are no part of that, and need no folder.
    """
    how: tuple[Any, ...] = (context_of(config, data), config.vocab_size)
    encode, collect = (encode_items, gather_items) if classes_of(data) else (encode_rows, gather)
    if not classes_of(data):
        how = (*how, data.long, append_eos is not None, tokenizer.eos_token_id if append_eos == "auto" else None)

    def make(some: list[Any]) -> list[Row | None]:
        return encode(some, tokenizer, *how)

    words = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else None
    if words is None:  # a tokenizer in Python has no content to know it by
        return collect(make(examples))
    reader = digest(words, *map(str, how))
    rows = _remembered(reader)
    if len(rows) > ROWS:
        rows.clear()
    if kept is not None:
        for split in sorted({example.split for example in examples}):
            _share(rows, kept, reader, read(data).split(split), make)
    _complete(rows, examples, make)
    return collect([rows[texts_of(example)] for example in examples])


def context_of(config: Any, data: Any) -> int:
    """How many tokens a text may have: as many as the model takes, and the data allow."""
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    return min(limit for limit in limits if limit)


@lru_cache(maxsize=KEPT)
def _remembered(reader: str) -> Rows:
    """The rows that a reader has made so far."""
    return {}


def _share(rows: Rows, folder: Path, reader: str, examples: list[Any], make: Make) -> None:
    """Have the rows of all these examples here and in a file, which is named after everything that they are made of."""
    made_by = (str(VERSION), *map(importlib.metadata.version, ("tokenizers", "transformers")))
    texts = [texts_of(example) for example in examples]
    path = folder / f"{digest(reader, *made_by, *(part for text in texts for part in text))}.safetensors"
    are_here = all(text in rows for text in texts)
    if are_here and path.exists():
        return
    if not are_here and (loaded := load(path)) is not None:
        rows.update(zip(texts, loaded, strict=True))
        return
    _complete(rows, examples, make)
    save(path, [rows[text] for text in texts])


def _complete(rows: Rows, examples: list[Any], make: Make) -> None:
    """Make the rows that are not there yet."""
    new = [example for example in examples if texts_of(example) not in rows]
    rows.update(zip(map(texts_of, new), make(new), strict=True))


def rows_for(task: Task, encoded: Encoding, examples: list[Any], **columns: Any) -> PairRows | ItemRows:
    """The examples as a student reads them, pairs in the slots of their coin; with `states_NAD`, as their states."""
    given: dict[str, Any] = {"micro_tokens": task.trainer.micro_tokens, **columns}
    reads_states = "states_NAD" in columns
    if isinstance(encoded, EncodedItems):
        return (StateItems if reads_states else ItemRows)(encoded.texts, **given)
    swapped = np.array([coin(pair.id) for pair in examples])
    return (StatePairs if reads_states else PairRows)(encoded, swapped, **given)


def objection(trainer: Trainer, own: str | None) -> str | None:
    """What the first process that objects says; None where nobody does. Every process of the group has to ask."""
    if trainer.world == 1:
        return own
    is_on_gpu = trainer.accelerator == "gpu"
    if is_on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if is_on_gpu else "gloo")  # as Lightning would, which takes what it finds
    every: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return next((reason for reason in every if reason is not None), None)


def can_pack(task: Task, model: Any, encoded: Encoding, precision: str) -> bool:
    """Whether the model is given packed rows, for which it is made ready; in a group, in all processes or in none."""
    engine.settle(task.trainer, precision)  # it is tried as it will run
    is_on_gpu = task.trainer.accelerator == "gpu" and task.trainer.strategy != "fsdp2"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_on_gpu else "cpu"
    agree = partial(objection, task.trainer)
    return task.trainer.packed and pack(model, encoded.longest, device, precision, agree)
