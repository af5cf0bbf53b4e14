"""How the head of a classifier begins: as noise, or as what its language model knows of the words of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2sd.data.text import Ids
from w2sd.data.words import check_distinct, ids_of, require_distinct, words_for
from w2sd.errors import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class NewHead:
    """As noise, which the seed decides."""

    VERSION: ClassVar[int] = 1


@dataclass(frozen=True)
class WordHead:
    """As the rows of the output embedding that belong to the words of the classes; it is trained from there.

    Before its first step such a classifier says what the language model would, of which of the words comes next. Once
    it is trained, the embedding and the head are two. Items only.
    """

    words: list[str] = field(default_factory=list)  # of the classes, in order; empty: their names
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_distinct(self.words)

    def words_for(self, classes: tuple[str, ...]) -> list[str]:
        """The word of each class."""
        return words_for(self.words, classes)

    def tokens(self, tokenizer: PreTrainedTokenizerBase, classes: tuple[str, ...]) -> list[int]:
        """The token of each class's word; a refusal of words that are not one token each, and of their own."""
        words, found = self.words_for(classes), []
        for word in words:
            ids = _ids(tokenizer, f" {word}")
            accepted = f"a word that is one token of the model; its tokenizer makes {len(ids)} of it"
            require(len(ids) == 1 and ids[0] != tokenizer.unk_token_id, "words", word, accepted)
            found.append(ids)
        check_distinct("words", found, words)
        return [int(ids[0]) for ids in found]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    try:
        return ids_of(tokenizer, text)
    except Exception:  # bare, and of the tokenizers that have no token for words that they do not know
        return np.zeros(0, dtype=np.int32)
