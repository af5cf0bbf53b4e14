"""The words of chess, each one token: a piece on its square, whose move it is, what is allowed, and the moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2sd.chess.moves import CLASS, MOVES, SQUARES
from w2sd.chess.position import CASTLING, EN_PASSANT, NONE, PIECES, TURNS
from w2sd.world import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD = 0
MARKS = (NONE, *TURNS, *(word for word in (*CASTLING, *EN_PASSANT) if word != NONE))
PLACED = tuple(piece + square for piece in PIECES for square in SQUARES)
WORDS: tuple[str, ...] = ("<pad>", *MARKS, *PLACED, *MOVES)
ID = {word: number for number, word in enumerate(WORDS)}
CONTEXT = 128  # the longest text that a model of chess accepts, in words; a position has at most 35


def parts(word: str) -> tuple[str, ...]:
    """What a word has in common with others; nothing for words that are neither a piece nor a move.

    >>> parts("ke5"), parts("e7e8q"), parts("e3")
    (('k', 'on e5'), ('from e7', 'to e8', 'as q'), ())
    """
    if word in PLACED:
        return word[0], f"on {word[1:]}"
    if word in CLASS:
        return f"from {word[:2]}", f"to {word[2:4]}", *(f"as {piece}" for piece in word[4:])
    return ()


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the positions in `WORDS`."""
    return vocabulary.tokenizer(WORDS, CONTEXT)
