"""What every stage that reads pairs does first: tokens that fit the model."""

from __future__ import annotations

import importlib.metadata
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from w2sd.data.pairs import Pair, digest, read
from w2sd.data.text import Encoded, Row, encode, encode_rows, gather
from w2sd.data.token_files import load, save
from w2sd.models.packing import pack
from w2sd.models.score import PolicyModel, RewardModel
from w2sd.stages import processor
from w2sd.stages.agreement import objection
from w2sd.worker import Task

KEPT = 8  # tokenizers whose rows a process remembers, and
ROWS = 50_000  # how many rows of each: the jobs of a sweep read the same
VERSION = 1  # of the files; another one where `data/text.py` makes other tokens of the same texts
_known: OrderedDict[str, dict[str, Row | None]] = OrderedDict()  # the rows by the id of their pair


def encode_for(
    config: Any,
    tokenizer: Any,
    data: Any,
    pairs: list[Pair],
    append_eos: str | None = None,
    kept: Path | None = None,
) -> Encoded:
    """The pairs as tokens of this model, within its context and that of the data, whichever is smaller.

    `append_eos` is None for a reward model, which reads prompt and response as two texts. A policy reads one text that
    goes on: with `auto` it ends in the tokenizer's end token, if there is one, with `never` where the response ends.

    No pair is encoded twice in a process; where `kept` is a folder, the rows of the splits that are asked for are found
    there or left there for others.
    """
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    context = min(limit for limit in limits if limit)
    end = tokenizer.eos_token_id if append_eos == "auto" else None
    how = (context, config.vocab_size, data.long, append_eos is not None, end)
    words = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else None
    if words is None:  # a tokenizer in Python has no content to know it by
        return encode(pairs, tokenizer, *how)
    reader = digest(words, *map(str, how))
    rows = _remembered(reader)
    if kept is not None:
        for split in sorted({pair.split for pair in pairs}):
            _share(rows, kept, reader, read(data).split(split), lambda some: encode_rows(some, tokenizer, *how))
    new = [pair for pair in pairs if pair.id not in rows]
    rows.update(_by_id(new, encode_rows(new, tokenizer, *how)))
    return gather([rows[pair.id] for pair in pairs])


def _remembered(key: str) -> dict[str, Row | None]:
    rows = _known.setdefault(key, {})
    _known.move_to_end(key)
    while len(_known) > KEPT:
        _known.popitem(last=False)
    if len(rows) > ROWS:
        rows.clear()
    return rows


def _share(
    rows: dict[str, Row | None],
    folder: Path,
    reader: str,
    pairs: list[Pair],
    encode: Callable[[list[Pair]], list[Row | None]],
) -> None:
    """Have the rows of all these pairs here and in a file, which is named after everything that they are made of."""
    texts = (text for pair in pairs for text in (pair.id, pair.prompt, pair.chosen, pair.rejected))
    made_by = (str(VERSION), *map(importlib.metadata.version, ("tokenizers", "transformers")))
    path = folder / f"{digest(reader, *made_by, *texts)}.safetensors"
    new = [pair for pair in pairs if pair.id not in rows]
    if not new and path.exists():
        return
    if new and (found := load(path)) is not None:
        rows.update(_by_id(pairs, found))
        return
    rows.update(_by_id(new, encode(new)))
    save(path, [rows[pair.id] for pair in pairs])


def _by_id(pairs: list[Pair], rows: list[Row | None]) -> dict[str, Row | None]:
    return dict(zip((pair.id for pair in pairs), rows, strict=True))


def can_pack(task: Task, model: RewardModel | PolicyModel, encoded: Encoded, precision: str) -> bool:
    """Whether the model is given packed rows, for which it is made ready; in a group, in all processes or in none."""
    processor.settle(task.trainer, precision)  # it is tried as it will run
    longest = (len(prompt) + max(len(a), len(b)) for prompt, a, b in zip(*encoded[:3], strict=True))
    is_on_gpu = task.trainer.accelerator == "gpu" and task.trainer.strategy != "fsdp2"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_on_gpu else "cpu"
    agree = partial(objection, task.trainer)
    return task.trainer.packed and pack(model, max(longest, default=0), device, precision, agree)
