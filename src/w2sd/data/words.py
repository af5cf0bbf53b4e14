"""Words of a person's choice, as a model reads them; what it cannot read, or tell apart, is refused by its knob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from w2sd.data.text import Ids
from w2sd.errors import Refused, require


def words_for(words: Sequence[str], classes: Sequence[str]) -> list[str]:
    """A word for each class: these, or the names of the classes where there are none."""
    accepted = f"{len(classes)} words, one for each of {', '.join(classes)}, or none"
    require(len(words) in (0, len(classes)), "words", list(words), accepted)
    return list(words or classes)


def require_distinct(words: Sequence[str]) -> None:
    """Refuse one word for two classes."""
    require(len(set(words)) == len(words), "words", list(words), "a different word for each class")


def ids_of(tokenizer: Any, text: str) -> Ids:
    """The tokens of a text by itself."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)


def readable(knob: str, text: str, tokenizer: Any, config: Any) -> Ids:
    """The tokens of a text, all of which the model knows."""
    try:
        ids = ids_of(tokenizer, text)
    except Exception as error:  # of no class of its own, where a tokenizer has no token for what it does not know
        raise Refused(knob, text, f"a text in the model's vocabulary ({error})") from error
    known = int(ids.max(initial=0)) < config.vocab_size
    require(known, knob, text, f"tokens below {config.vocab_size}, the model's vocabulary")
    return ids


def check_distinct(knob: str, ids: list[Ids], words: list[str]) -> None:
    """Refuse words that are one and the same to a tokenizer, or nothing."""
    seen: dict[tuple[int, ...], str] = {}
    for word, tokens in zip(words, ids, strict=True):
        require(len(tokens) > 0, knob, word, "a word with at least one token")
        other = seen.setdefault(tuple(tokens.tolist()), word)
        require(other == word, knob, word, f"a word of other tokens than {other}")
