"""What takes the rules of chess: python-chess, which the extra `chess` brings, behind a few functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2sd.chess.position import Position, read
from w2sd.errors import Refused

if TYPE_CHECKING:
    from chess import Board


def library() -> Any:
    """The module `chess`, or a line that says how to get it."""
    try:
        import chess
    except ImportError as error:
        lacking = "python-chess beside it; make setup EXTRAS=chess"
        raise Refused("data", "chess", lacking) from error
    return chess


def board(position: Position) -> Board:
    """The board of a position; a ValueError for one that no game can come to."""
    made = library().Board(f"{position} 0 1")
    if not made.is_valid():
        raise ValueError(f"no game comes to it ({made.status()!r})")
    return made


def play(on: Board, move: str) -> str:
    """Make a move, and say it as our classes do (castling as a king's move); a ValueError for one that is illegal."""
    parsed = on.parse_uci(move)
    if not parsed:
        raise ValueError(f"{move!r} is no move")
    on.push(parsed)
    return parsed.uci()


def position(of: Board) -> Position:
    """What decides the legal moves of a board; en passant is noted where a pawn can do it."""
    return read(of.fen(en_passant="legal"))


def is_legal(where: Position, move: str) -> bool:
    """Whether the rules allow a move."""
    on = board(where)
    return library().Move.from_uci(move) in on.legal_moves
