"""What becomes of weak labels before a student is taught them: nothing, or what the strong model makes of a few."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from w2sd.data.pairs import require_distinct, words_for
from w2sd.errors import require


@dataclass(frozen=True)
class InContext:
    """The strong model answers anew, after reading a few other items with their weak labels (arXiv 2405.16236).

    It is asked which of the words comes next, one for each class; none of its weights change. Items only.
    """

    examples: int = 4  # items with their weak labels, before the one that is asked about
    words: list[str] = field(default_factory=list)  # of the classes, in order; empty: their names
    separator: str = "\n\n"  # between one item with its word and the next
    seed: int = 0  # which examples stand before which item
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.examples <= 1000, "examples", self.examples, "an integer from 0 to 1000")
        require(self.seed >= 0, "seed", self.seed, "an integer of 0 or more")
        require_distinct(self.words)

    def words_for(self, classes: tuple[str, ...]) -> list[str]:
        """The word of each class."""
        return words_for(self.words, classes)
