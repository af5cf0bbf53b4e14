"""The words of chess, each one token: a piece on its square, whose move it is, what is allowed, and the moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2sd.chess.moves import MOVES, SQUARES
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


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the positions in `WORDS`."""
    return vocabulary.tokenizer(WORDS, CONTEXT)
