"""What every stage that reads pairs does first: tokens that fit the model."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from w2sd.data.pairs import Pair, digest
from w2sd.data.text import Encoded, encode
from w2sd.models.packing import pack
from w2sd.worker import Task

KEPT = 8  # encodings that a process remembers: the jobs of a sweep read the same rows with the same tokenizer
_encodings: OrderedDict[str, Encoded] = OrderedDict()


def encode_for(config: Any, tokenizer: Any, data: Any, pairs: list[Pair], append_eos: str | None = None) -> Encoded:
    """The pairs as tokens of this model, within its context and that of the data, whichever is smaller.

    `append_eos` is None for a reward model, which reads prompt and response as two texts. A policy reads one text that
    goes on: with `auto` it ends in the tokenizer's end token, if there is one, with `never` where the response ends.
    """
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    context = min(limit for limit in limits if limit)
    end = tokenizer.eos_token_id if append_eos == "auto" else None
    how = (context, config.vocab_size, data.long, append_eos is not None, end)
    words = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else None
    if words is None:  # a tokenizer in Python has no content to know it by
        return encode(pairs, tokenizer, *how)
    key = digest(words, *map(str, how), *(pair.id for pair in pairs))
    if key not in _encodings:
        _encodings[key] = encode(pairs, tokenizer, *how)
    _encodings.move_to_end(key)
    while len(_encodings) > KEPT:
        _encodings.popitem(last=False)
    return _encodings[key]


def can_pack(task: Task, model: Any, encoded: Encoded) -> bool:
    """Whether the model is given packed rows, for which it is made ready."""
    longest = (len(prompt) + max(len(a), len(b)) for prompt, a, b in zip(*encoded[:3], strict=True))
    is_on_gpu = task.trainer.accelerator == "gpu" and task.trainer.strategy != "fsdp2"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if is_on_gpu else "cpu"
    return task.trainer.packed and pack(model, max(longest, default=0), device)
