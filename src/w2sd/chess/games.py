"""The words of chess, each one token: a piece on its square, whose move it is, what is allowed, and the moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from w2sd.chess import position
from w2sd.chess.position import CASTLING, CLASS, EN_PASSANT, MOVES, NONE, PIECES, SQUARES, TURNS
from w2sd.data.text import Corpus
from w2sd.world import ladder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from chess import Board, Move

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
    return ladder.tokenizer(WORDS, CONTEXT)


LISTED = 4  # moves of a document; a puzzle has one, and more documents teach more than longer ones
LENGTH = 36 + LISTED  # words: at most 32 pieces and four more, and the moves
TAKEN = 0.5  # the share of looks after which the player moves; all other moves are random
MISSING = 0.8  # the share of pieces that are gone when a game begins is anything up to this
PLIES = 60  # of a game, which may end before
EVERY = 2  # plies from one look at a game to the next
NOTICED = 2  # what the player has to see in a position: two pawns, or a check
TASTE = 0.5  # how far he may prefer what is worth less, in pawns
FULL, FAINT = 1.0, 0.01  # what a move and a word of the position count in the loss
WORTH = (0, 1, 3, 3, 5, 9, 0)  # nothing, pawn, knight, bishop, rook, queen, king (which cannot be taken)
CHECK, MATE = 2, 50

Document = tuple[list[str], list[str]]  # a position with the move that led to it, and the moves that are listed


@dataclass(frozen=True)
class ChessText:
    """Documents in which a simple player thinks aloud."""

    count: int
    VERSION: ClassVar[int] = 2
    seed: ClassVar[int] = 0  # every model reads the same games

    @property
    def extent(self) -> tuple[int, int]:
        """Documents, and words of each."""
        return self.count, LENGTH

    def check(self, model: Any) -> None:
        """Refuse, before anything is trained, to do without the rules."""
        position.library()

    def documents(self, model: Any) -> Corpus:
        """Tokens and weights; a larger number begins with the documents of a smaller one."""
        return corpus(self.count)


def corpus(count: int) -> Corpus:
    """So many documents."""
    tokens = np.full((count, LENGTH), PAD, dtype=np.int32)
    weights = np.zeros((count, LENGTH), dtype=np.float32)
    written, writer = _library()
    written += islice(writer, max(0, count - len(written)))
    for row, (board, listed) in enumerate(written[:count]):
        text = [ID[word] for word in (*board, *listed)]
        tokens[row, : len(text)] = text
        weights[row, : len(board)] = FAINT
        weights[row, len(board) : len(text)] = FULL
    return Corpus(tokens, weights)


@lru_cache(maxsize=1)
def _library() -> tuple[list[Document], Iterator[Document]]:
    """All documents that were written in this process, and where more come from: models read the same ones."""
    position.library()  # refused here, where it is not remembered
    return [], _documents()


def _documents() -> Iterator[Document]:
    rng = np.random.default_rng(0)
    while True:
        board = _begin(rng)
        for ply in range(1, PLIES):
            legal = list(board.legal_moves)
            if not legal:
                break
            likes = np.zeros(len(legal))
            if ply % EVERY == 0:
                worth = np.array([value(board, move) for move in legal])
                if worth.max() >= NOTICED:
                    preferred = np.argsort(-worth - TASTE * rng.gumbel(size=len(legal)))[:LISTED]
                    yield _write(board, [legal[n] for n in preferred])
                likes = worth * (rng.random() < TAKEN)
            board.push(legal[(likes + rng.random(len(legal))).argmax()])


def _begin(rng: np.random.Generator) -> Board:
    """The beginning of a game, with pieces missing."""
    chess = position.library()
    board = chess.Board()
    missing = rng.uniform(0, MISSING)
    for square, piece in board.piece_map().items():
        if piece.piece_type != chess.KING and rng.random() < missing:
            board.remove_piece_at(square)
    board.castling_rights = board.clean_castling_rights()
    return board if board.is_valid() else _begin(rng)


def _write(board: Board, best: list[Move]) -> Document:
    """The side to move is White, as in the puzzles."""
    reached, moves = position.position(board), [move.uci() for move in (board.peek(), *best)]
    if reached.turn == "b":
        reached, moves = position.mirrored(reached), [position.mirrored_move(move) for move in moves]
    return [*position.words(reached), moves[0]], moves[1:]


def value(board: Board, move: Move) -> float:
    """What a move wins in pawns, if the opponent then takes back what is worth more than what he lost."""
    won = 1 if board.is_en_passant(move) else WORTH[board.piece_type_at(move.to_square) or 0]
    own = WORTH[move.promotion or board.piece_type_at(move.from_square) or 0]
    won += own - 1 if move.promotion else 0
    if own > won and board.is_attacked_by(not board.turn, move.to_square):
        won -= own
    if board.gives_check(move):
        board.push(move)
        won += MATE if board.is_checkmate() else CHECK
        board.pop()
    return won
