"""How the head of a classifier begins: as noise, or as what its language model knows of the words of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from w2sd.data.pairs import require_distinct, words_for
from w2sd.data.text import one_token_each

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        return one_token_each("words", self.words_for(classes), tokenizer)
