"""What every stage that reads pairs does first: tokens that fit the model."""

from __future__ import annotations

import importlib.metadata
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from w2sd.data.pairs import classes_of, digest, read, texts_of
from w2sd.data.text import Encoded, EncodedItems, Row, encode_items, encode_rows, gather, gather_items
from w2sd.data.token_files import load, save
from w2sd.models.packing import pack
from w2sd.pipeline.stage import canonical, identity
from w2sd.stages import processor
from w2sd.stages.agreement import objection
from w2sd.worker import Task

KEPT = 8  # pairs of data and tokenizer whose rows a process remembers: the jobs of a sweep read the same
VERSION = 1  # of the files; another one where `data/text.py` makes other tokens of the same texts
Encoding = Encoded | EncodedItems
Make = Callable[[list[Any]], list[Row | None]]
_known: OrderedDict[str, dict[str, Row | None]] = OrderedDict()  # the rows by the id of their pair or item


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

    No pair is encoded twice in a process; where `kept` is a folder, all rows of the data are found there or left there
    for others.
    """
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    how: tuple[Any, ...] = (min(limit for limit in limits if limit), config.vocab_size)
    encode, collect = (encode_items, gather_items) if classes_of(data) else (encode_rows, gather)
    if not classes_of(data):
        how = (*how, data.long, append_eos is not None, tokenizer.eos_token_id if append_eos == "auto" else None)

    def make(some: list[Any]) -> list[Row | None]:
        return encode(some, tokenizer, *how)

    words = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else None
    if words is None:  # a tokenizer in Python has no content to know it by
        return collect(make(examples))
    reader = digest(words, *map(str, how))
    rows = _remembered(digest(reader, canonical(identity(data))))
    if kept is not None:
        _share(rows, kept, reader, read(data).examples, make)
    new = [example for example in examples if example.id not in rows]
    rows.update(_by_id(new, make(new)))
    return collect([rows[example.id] for example in examples])


def _remembered(key: str) -> dict[str, Row | None]:
    rows = _known.setdefault(key, {})
    _known.move_to_end(key)
    while len(_known) > KEPT:
        _known.popitem(last=False)
    return rows


def _share(rows: dict[str, Row | None], folder: Path, reader: str, examples: list[Any], make: Make) -> None:
    """Have the rows of all these examples here and in a file, which is named after everything that they are made of."""
    texts = (text for example in examples for text in (example.id, *texts_of(example)))
    made_by = (str(VERSION), *map(importlib.metadata.version, ("tokenizers", "transformers")))
    path = folder / f"{digest(reader, *made_by, *texts)}.safetensors"
    new = [example for example in examples if example.id not in rows]
    if not new and path.exists():
        return
    if new and (found := load(path)) is not None:
        rows.update(_by_id(examples, found))
        return
    rows.update(_by_id(new, make(new)))
    save(path, [rows[example.id] for example in examples])


def _by_id(examples: list[Any], rows: list[Row | None]) -> dict[str, Row | None]:
    return dict(zip((example.id for example in examples), rows, strict=True))


def can_pack(task: Task, model: Any, encoded: Encoding, precision: str) -> bool:
    """Whether the model is given packed rows, for which it is made ready; in a group, in all processes or in none."""
    processor.settle(task.trainer, precision)  # it is tried as it will run
    is_on_gpu = task.trainer.accelerator == "gpu" and task.trainer.strategy != "fsdp2"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_on_gpu else "cpu"
    agree = partial(objection, task.trainer)
    return task.trainer.packed and pack(model, encoded.longest, device, precision, agree)
