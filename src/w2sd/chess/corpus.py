"""What models of chess are pretrained on: positions of random games, and what a player who looks one move ahead thinks.

A document is a position in words, the move that led to it, and then the legal moves, those first that the player likes
best. The player knows the rules and what a piece is worth, and nothing else. The games begin with some of the pieces
gone, so that there are endings among them. No puzzle is looked at: not its position, nor its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from w2sd.chess import moves, rules
from w2sd.chess.position import mirrored, words
from w2sd.chess.vocabulary import ID, PAD
from w2sd.data.corpus import Corpus

if TYPE_CHECKING:
    from chess import Board, Move

LISTED = 24  # moves of a document
LENGTH = 36 + LISTED  # words: at most 32 pieces and four more, and the moves
MISSING = 0.8  # the share of pieces that are gone when a game begins is anything up to this
PLIES = 60  # of a game, which may end before
EVERY = 3  # plies from one document to the next
FULL, FAINT = 1.0, 0.01  # what a move and a word of the position count in the loss
WORTH = (0, 1, 3, 3, 5, 9, 0)  # nothing, pawn, knight, bishop, rook, queen, king (which cannot be taken)
CHECK, MATE = 2, 50


@dataclass(frozen=True)
class ChessText:
    """Documents in which a simple player thinks aloud."""

    count: int
    VERSION: ClassVar[int] = 1
    seed: ClassVar[int] = 0  # every model reads the same games

    def documents(self, model: Any) -> Corpus:
        """Tokens and weights; a larger number begins with the documents of a smaller one."""
        return corpus(self.count)


@lru_cache(maxsize=2)  # the models of a run read the same
def corpus(count: int) -> Corpus:
    """So many documents."""
    tokens = np.full((count, LENGTH), PAD, dtype=np.int32)
    weights = np.zeros((count, LENGTH), dtype=np.float32)
    for row, (position, listed) in enumerate(_documents(count)):
        text = [ID[word] for word in (*position, *listed)]
        tokens[row, : len(text)] = text
        weights[row, : len(position)] = FAINT
        weights[row, len(position) : len(text)] = FULL
    return Corpus(tokens, weights)


def _documents(count: int) -> Iterator[tuple[list[str], list[str]]]:
    rng = np.random.default_rng(0)
    made = 0
    while made < count:
        board = _begin(rng)
        for ply in range(1, PLIES):
            legal = list(board.legal_moves)
            if not legal:
                break
            if ply % EVERY:
                board.push(legal[rng.integers(len(legal))])
                continue
            likes = np.array([value(board, move) for move in legal]) + rng.gumbel(size=len(legal))
            best = [legal[n] for n in np.argsort(-likes)[:LISTED]]
            yield _write(board, best)
            made += 1
            if made == count:
                return
            board.push(best[0])


def _begin(rng: np.random.Generator) -> Board:
    """The beginning of a game, with pieces missing."""
    chess = rules.library()
    board = chess.Board()
    missing = rng.uniform(0, MISSING)
    for square, piece in board.piece_map().items():
        if piece.piece_type != chess.KING and rng.random() < missing:
            board.remove_piece_at(square)
    board.castling_rights = board.clean_castling_rights()
    return board if board.is_valid() else _begin(rng)


def _write(board: Board, best: list[Move]) -> tuple[list[str], list[str]]:
    """The side to move is White, as in the puzzles."""
    position, listed = rules.position(board), [move.uci() for move in (board.peek(), *best)]
    if position.turn == "b":
        position, listed = mirrored(position), [moves.mirrored(move) for move in listed]
    return [*words(position), listed[0]], listed[1:]


def value(board: Board, move: Move) -> float:
    """What a move wins in pawns, if the opponent then takes back what he can."""
    won = 1 if board.is_en_passant(move) else WORTH[board.piece_type_at(move.to_square) or 0]
    own = WORTH[move.promotion or board.piece_type_at(move.from_square) or 0]
    won += own - 1 if move.promotion else 0
    if board.is_attacked_by(not board.turn, move.to_square):
        is_guarded = board.is_attacked_by(board.turn, move.to_square)
        won -= own if own > won or not is_guarded else 0
    if board.gives_check(move):
        board.push(move)
        won += MATE if board.is_checkmate() else CHECK
        board.pop()
    return won
