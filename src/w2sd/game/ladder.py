"""The ladder of the game: the rungs of the embedded world, but for what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from w2sd.game.vocabulary import WORDS
from w2sd.world.ladder import Rung


@dataclass(frozen=True)
class GameRung(Rung):
    """One model of the ladder of the game: its number says which stones' worths it is taught."""

    VERSION: ClassVar[int] = 1
    ladder: ClassVar[str] = "game"
    words: ClassVar[tuple[str, ...]] = WORDS
    reads: ClassVar[str] = "data=game"
