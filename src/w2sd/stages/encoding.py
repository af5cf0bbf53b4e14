"""What every stage that reads pairs does first: tokens that fit the model."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, cast

from w2sd.data.pairs import Item, Pair, classes_of, digest
from w2sd.data.text import Encoded, EncodedItems, encode, encode_items
from w2sd.models.packing import pack
from w2sd.worker import Task

KEPT = 8  # encodings that a process remembers: the jobs of a sweep read the same rows with the same tokenizer
Encoding = Encoded | EncodedItems
_encodings: OrderedDict[str, Encoding] = OrderedDict()


def encode_for(
    config: Any, tokenizer: Any, data: Any, examples: list[Pair] | list[Item], append_eos: str | None = None
) -> Any:
    """The pairs (Encoded) or items (EncodedItems) as tokens of this model, within its context and that of the data.

    `append_eos` is None for a reward model, which reads prompt and response as two texts. A policy reads one text that
    goes on: with `auto` it ends in the tokenizer's end token, if there is one, with `never` where the response ends.
    """
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    context = min(limit for limit in limits if limit)
    end = tokenizer.eos_token_id if append_eos == "auto" else None

    def encoded() -> Encoding:
        if classes_of(data):
            return encode_items(cast(list[Item], examples), tokenizer, context, config.vocab_size)
        pairs = cast(list[Pair], examples)
        return encode(pairs, tokenizer, context, config.vocab_size, data.long, append_eos is not None, end)

    words = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else None
    if words is None:  # a tokenizer in Python has no content to know it by
        return encoded()
    how = (context, config.vocab_size, getattr(data, "long", None), append_eos is not None, end)
    key = digest(words, *map(str, how), *(example.id for example in examples))
    if key not in _encodings:
        _encodings[key] = encoded()
    _encodings.move_to_end(key)
    while len(_encodings) > KEPT:
        _encodings.popitem(last=False)
    return _encodings[key]


def can_pack(task: Task, model: Any, encoded: Encoding) -> bool:
    """Whether the model is given packed rows, for which it is made ready."""
    is_on_gpu = task.trainer.accelerator == "gpu" and task.trainer.strategy != "fsdp2"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_on_gpu else "cpu"
    return task.trainer.packed and pack(model, encoded.longest, device)
