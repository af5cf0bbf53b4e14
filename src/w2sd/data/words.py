"""Words of a person's choice, as a model reads them; what it cannot read, or tell apart, is refused by its knob."""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sd.data.text import Ids
from w2sd.errors import Refused, require


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


def one_token_each(knob: str, words: list[str], tokenizer: Any) -> list[int]:
    """The token of each word; refused are words that are several, or unknown, or one and the same."""
    found = []
    for word in words:
        try:
            ids = ids_of(tokenizer, f" {word}")
        except Exception:  # bare, and of the tokenizers that have no token for words that they do not know
            ids = np.zeros(0, dtype=np.int32)
        accepted = f"a word that is one token of the model; its tokenizer makes {len(ids)} of it"
        require(len(ids) == 1 and ids[0] != tokenizer.unk_token_id, knob, word, accepted)
        found.append(ids)
    check_distinct(knob, found, words)
    return [int(ids[0]) for ids in found]
