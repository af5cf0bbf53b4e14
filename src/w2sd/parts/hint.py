"""What a student reads beside each text: nothing, or what its supervisor thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from w2sd.data.pairs import Item, Pair, coin, require_distinct, words_for
from w2sd.errors import require

ANSWERS = ("worse", "better")  # what is said of the two answers of a pair, unless other words are given


@dataclass(frozen=True)
class Shown:
    """After each text the student reads what the weak model prefers, where it is trained and where it is measured.

    A student that does no more than imitate could then as well repeat it (Burns et al. 2023, appendix E.3). Of a pair
    each answer is followed by a word: the second where the weak model prefers it, else the first.
    """

    words: list[str] = field(default_factory=list)  # of the classes, or worse and better; empty: their names, or these
    said: str = " I think this is {}. What do you think?"  # what follows a text, with {} for the word
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_distinct(self.words)
        require(self.said.count("{}") == 1, "said", self.said, "a text that has {} in one place, for the word")

    def words_for(self, classes: tuple[str, ...] | None) -> list[str]:
        """The word of each class, or of the worse and the better answer of a pair."""
        return words_for(self.words, classes or ANSWERS)

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
