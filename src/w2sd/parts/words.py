"""Parts that put classes into words: what a head begins as, what a student is shown, and what a model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from w2sd.data.pairs import Item, Pair, coin
from w2sd.data.text import check_distinct, ids_of
from w2sd.errors import require
from w2sd.identity import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS = ("worse", "better")  # what is said of the two answers of a pair, unless other words are given


class Worded:
    """What these parts share: a word for each class."""

    words: list[str]

    def __post_init__(self) -> None:
        require(len(set(self.words)) == len(self.words), "words", list(self.words), "a different word for each class")

    def words_for(self, classes: Sequence[str]) -> list[str]:
        """The word of each class: these, or the names of the classes where there are none."""
        accepted = f"{len(classes)} words, one for each of {', '.join(classes)}, or none"
        require(len(self.words) in (0, len(classes)), "words", list(self.words), accepted)
        return list(self.words or classes)


@dataclass(frozen=True)
class WordHead(Worded):
    """As the rows of the output embedding that belong to the words of the classes; it is trained from there.

    Before its first step such a classifier says what the language model would, of which of the words comes next. Once
    it is trained, the embedding and the head are two. Items only.
    """

    words: list[str] = field(default_factory=list)  # of the classes, in order; empty: their names
    VERSION: ClassVar[int] = 1

    def tokens(self, tokenizer: PreTrainedTokenizerBase, classes: Sequence[str]) -> list[int]:
        """The token of each class's word; refused are words that are several, or unknown, or one and the same."""
        words, tokens = self.words_for(classes), []
        for word in words:
            try:
                ids = ids_of(tokenizer, f" {word}")
            except Exception:  # bare, and of the tokenizers that have no token for words that they do not know
                ids = np.zeros(0, dtype=np.int32)
            accepted = f"a word that is one token of the model; its tokenizer makes {len(ids)} of it"
            require(len(ids) == 1 and ids[0] != tokenizer.unk_token_id, "words", word, accepted)
            tokens.append(ids)
        check_distinct("words", tokens, words)
        return [int(ids[0]) for ids in tokens]


@dataclass(frozen=True)
class Shown(Worded):
    """After each text the student reads what the weak model prefers, where it is trained and where it is measured.

    A student that does no more than imitate could then as well repeat it (Burns et al. 2023, appendix E.3). Of a pair
    each answer is followed by a word: the second where the weak model prefers it, else the first.
    """

    words: list[str] = field(default_factory=list)  # of the classes, or worse and better; empty: their names, or these
    said: str = " I think this is {}. What do you think?"  # what follows a text, with {} for the word
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.said.count("{}") == 1, "said", self.said, "a text that has {} in one place, for the word")

    def words_for(self, classes: Sequence[str] | None) -> list[str]:
        """The word of each class, or of the worse and the better answer of a pair."""
        return super().words_for(classes or ANSWERS)

    def phrase(self, word: str) -> str:
        """What follows a text."""
        return self.said.replace("{}", word)

    def write(self, example: Pair | Item, option: int, words: Sequence[str]) -> Pair | Item:
        """The example as a student reads it to whom this option is shown: a class, or a slot of the pair."""
        if isinstance(example, Item):
            return example._replace(text=example.text + self.phrase(words[option]))
        worse, better = map(self.phrase, words)
        if option == int(coin(example.id)):  # the slot of `chosen`
            return example._replace(chosen=example.chosen + better, rejected=example.rejected + worse)
        return example._replace(chosen=example.chosen + worse, rejected=example.rejected + better)


@dataclass(frozen=True)
class InContext(Worded):
    """The strong model answers anew, after reading a few other items with their weak labels (arXiv 2405.16236).

    It is asked which of the words comes next, one for each class; none of its weights change. Items only.
    """

    examples: int = 4  # items with their weak labels, before the one that is asked about
    words: list[str] = field(default_factory=list)  # of the classes, in order; empty: their names
    separator: str = "\n\n"  # between one item with its word and the next
    seed: int = 0  # which examples stand before which item
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.examples <= 1000, "examples", self.examples, "an integer from 0 to 1000")
        require(self.seed >= 0, "seed", self.seed, "an integer of 0 or more")

    def pick(self, id: str, others: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of the others are shown before the item with this id, as many as there are up to `examples`."""
        rng = np.random.default_rng(int(digest("in context", str(self.seed), id), 16))
        return others[rng.choice(len(others), size=min(self.examples, len(others)), replace=False)]
