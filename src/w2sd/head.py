"""How the head of a classifier begins: as noise, or as what its language model knows of the words of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from w2sd.data.pairs import words_for
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
        require(len(set(self.words)) == len(self.words), "words", self.words, "a different word for each class")

    def tokens(self, tokenizer: PreTrainedTokenizerBase, classes: tuple[str, ...]) -> list[int]:
        """The token of each class's word; a refusal of words that are not one token each, and of their own."""
        seen: dict[int, str] = {}
        for word in words_for(self.words, classes):
            ids = _ids(tokenizer, f" {word}")
            accepted = f"a word that is one token of the model; its tokenizer makes {len(ids)} of it"
            require(len(ids) == 1 and ids[0] != tokenizer.unk_token_id, "words", word, accepted)
            other = seen.setdefault(ids[0], word)
            require(other == word, "words", word, f"a word of another token than {other}")
        return list(seen)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    try:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    except Exception:  # bare, and of the tokenizers that have no token for words that they do not know
        return []
