"""The ladder of the game: the rungs of the embedded world, but for what they read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from w2sd.data.pairs import Item, Table
from w2sd.data.text import Corpus
from w2sd.errors import require
from w2sd.world import piles
from w2sd.world.ladder import Rung, require_rung
from w2sd.world.piles import MOVES, WORDS
from w2sd.world.world import SEEDS


@dataclass(frozen=True)
class GameRung(Rung):
    """One model of the ladder of the game: its number says which stones' worths it is taught."""

    VERSION: ClassVar[int] = 1
    ladder: ClassVar[str] = "game"
    words: ClassVar[tuple[str, ...]] = WORDS
    reads: ClassVar[str] = "data=game"


LIMIT = 20_000  # puzzles of one split, of all its parts together


@dataclass(frozen=True)
class Game:
    """Puzzles of an embedded game, of four piles of stones: which pile is the one best move?"""

    world_seed: int = 0  # what the stones are worth, who is taught it, the pretraining corpus and the puzzles
    gt: int = 1024  # puzzles of split gt
    w2s: int = 1024  # puzzles of split w2s, in each of its parts
    w2s_parts: int = 3  # one for the last student and one for each earlier hop of a chain
    test: int = 4000  # puzzles of split test
    VERSION: ClassVar[int] = 2
    max_tokens: ClassVar[int] = 32  # every puzzle is ten words
    classes: ClassVar[tuple[str, ...]] = MOVES

    def __post_init__(self) -> None:
        require(0 <= self.world_seed < SEEDS, "world_seed", self.world_seed, f"0 to {SEEDS - 1}")
        require(1 <= self.w2s_parts <= 16, "w2s_parts", self.w2s_parts, "1 to 16 parts")
        limits = {"gt": LIMIT, "w2s": LIMIT // self.w2s_parts, "test": LIMIT}
        for knob, limit in limits.items():
            require(len(MOVES) <= getattr(self, knob) <= limit, knob, getattr(self, knob), f"4 to {limit} puzzles")

    def identity(self) -> dict[str, Any]:
        """What decides the rows."""
        return {"source": "game", "version": self.VERSION, **asdict(self)}

    def focus(self, split: str) -> Game:
        """The game that has the same rows of one split, whatever else is changed in this one."""
        decisive = {"gt": ("gt",), "w2s": ("w2s", "w2s_parts"), "test": ("test",)}[split]
        return Game(self.world_seed, **{knob: getattr(self, knob) for knob in decisive})

    @property
    def text(self) -> GameText:
        """What its ladder is pretrained on."""
        return GameText(self.world_seed)

    def table(self) -> Table[Item]:
        """All rows; none is there twice, each move is best equally often, and no stone is shared between splits.

        A larger size begins with the rows of a smaller one. The stratum of a puzzle is how many moves
        one must look ahead to solve it: in every fourth row more than one.
        """
        return piles.draw(self)

    def known(self, items: list[Item], rung: int) -> NDArray[np.bool_]:
        """Whether the best move of each item follows from what this rung was taught.

        The judge plays on exactly the worths taught to the rung, and looks as far ahead as the masters did whose
        records it read: it takes an untaught stone for one of average worth and must find the right move, and no
        other, the best.
        """
        require_rung("rung", rung)
        return piles.decided(self, items, rung)

    def judge(self, items: list[Item], predicted: list[int]) -> dict[str, float]:
        """The share of predicted moves that the rules allow."""
        return piles.judge(items, predicted)


@dataclass(frozen=True)
class GameText:
    """The corpora of a game, as the text that its ladder is pretrained on."""

    world_seed: int
    VERSION: ClassVar[int] = 2
    ladder: ClassVar[str] = "game"
    extent: ClassVar[tuple[int, int]] = (piles.DOCUMENTS, piles.LENGTH)  # documents, and words of each

    @property
    def seed(self) -> int:
        """Of initial weights and order: a new game is pretrained anew in every respect."""
        return self.world_seed

    def documents(self, model: GameRung) -> Corpus:
        """Tokens and weights for one rung."""
        return piles.corpus(self.world_seed, model.rung)
