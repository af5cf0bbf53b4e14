"""What every stage that reads pairs does first: tokens that fit the model."""

from __future__ import annotations

from typing import Any

from w2sd.data.pairs import Pair
from w2sd.data.text import Encoded, encode


def encode_for(config: Any, tokenizer: Any, data: Any, pairs: list[Pair]) -> Encoded:
    """The pairs as tokens of this model, within its context and that of the data, whichever is smaller."""
    limits = (data.max_tokens, getattr(config, "max_position_embeddings", None))
    return encode(pairs, tokenizer, min(limit for limit in limits if limit), config.vocab_size, data.long)
