"""Positions of chess, as a FEN and as words, and moves in UCI. Only python-chess says whether a game comes to them.

The classes are every move that geometry allows. They are a closed set of 1,968, whatever the position: a queen's or a
knight's move from every square (which covers those of all other pieces, and castling as the move of the king), and the
promotions of a pawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from w2sd.errors import Refused

if TYPE_CHECKING:
    from chess import Board

FILES, RANKS = "abcdefgh", "12345678"
SQUARES = tuple(file + rank for rank in RANKS for file in FILES)  # a1, b1, ... h8
PROMOTIONS = "nbrq"
PIECES = "PNBRQKpnbrqk"
NONE = "-"  # no castling, no en passant
BOARD = tuple(file + rank for rank in reversed(RANKS) for file in FILES)  # the squares as a FEN has them: a8 ... h1
TURNS = ("w", "b")
CASTLING = tuple("".join(right for n, right in enumerate("KQkq") if subset >> n & 1) or NONE for subset in range(2**4))
EN_PASSANT = (NONE, *(file + rank for rank in "36" for file in FILES))
START = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"


def _reaches(across: int, along: int) -> bool:
    """Whether a queen or a knight goes that far on an empty board."""
    return (across, along) != (0, 0) and (0 in (across, along) or across == along or {across, along} == {1, 2})


def _all() -> list[str]:
    moves = []
    for start in SQUARES:
        for end in SQUARES:
            across, along = (abs(ord(one) - ord(other)) for one, other in zip(start, end, strict=True))
            if _reaches(across, along):
                moves.append(start + end)
            if across <= 1 and start[1] + end[1] in ("78", "21"):
                moves += [start + end + piece for piece in PROMOTIONS]
    return moves


MOVES = tuple(_all())
CLASS = {move: number for number, move in enumerate(MOVES)}


class Position(NamedTuple):
    """Everything that decides which moves are legal."""

    board: str  # 64 letters in the order of BOARD, "." for an empty square
    turn: str
    castling: str
    en_passant: str

    def __str__(self) -> str:
        """As a FEN without its two counters."""
        rows = ["".join(self.board[start : start + 8]) for start in range(0, 64, 8)]
        short = "/".join(re.sub(r"\.+", lambda empty: str(len(empty[0])), row) for row in rows)
        return f"{short} {self.turn} {self.castling} {self.en_passant}"


def read(fen: str) -> Position:
    """The position of a FEN, with its counters or without; a ValueError says what is wrong with a broken one.

    >>> str(read(START))
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq -'
    """
    fields = fen.split()
    if len(fields) not in (4, 6):
        raise ValueError(f"it has {len(fields)} fields, not 4 or 6")
    if not all(counter.isdigit() for counter in fields[4:]):
        raise ValueError(f"its counters are {' '.join(fields[4:])!r}")
    rows = fields[0].split("/")
    board = [re.sub("[1-8]", lambda digit: "." * int(digit[0]), row) for row in rows]
    if len(board) != 8 or any(len(row) != 8 for row in board) or re.search(r"\d\d", fields[0]):
        raise ValueError("its board is not 8 by 8")
    for name, value, known in (
        ("piece", set("".join(board)), {*PIECES, "."}),
        ("side to move", {fields[1]}, set(TURNS)),
        ("castling", {fields[2]}, set(CASTLING)),
        ("en passant", {fields[3]}, set(EN_PASSANT)),
    ):
        if unknown := value - known:
            raise ValueError(f"its {name} is {min(unknown)!r}")
    if any("".join(board).count(king) != 1 for king in "Kk"):
        raise ValueError("it has not one king on each side")
    return Position("".join(board), *fields[1:4])


def mirrored(position: Position) -> Position:
    """The same position with the colours swapped, and the board turned upside down for it."""
    board = "".join(position.board[start : start + 8] for start in range(56, -1, -8)).swapcase()
    castling = "".join(sorted(position.castling.swapcase()))  # capitals come first: in the order of a FEN
    turn = TURNS[1 - TURNS.index(position.turn)]
    return Position(board, turn, castling, mirrored_move(position.en_passant))


def mirrored_move(move: str) -> str:
    """The move on a board that was turned upside down: e7e8q is e2e1q.

    >>> mirrored_move("e7e8q")
    'e2e1q'
    """
    return "".join(str(9 - int(letter)) if letter in RANKS else letter for letter in move)


def words(position: Position) -> list[str]:
    """Every piece with its square, then the side to move, castling and en passant; empty squares go without saying.

    >>> words(read("8/8/8/4k3/8/8/4P3/4K3 w - -"))
    ['ke5', 'Pe2', 'Ke1', 'w', '-', '-']
    """
    placed = [piece + square for piece, square in zip(position.board, BOARD, strict=True) if piece != "."]
    return [*placed, position.turn, position.castling, position.en_passant]


def from_words(text: Sequence[str]) -> Position:
    """The inverse of `words`."""
    *placed, turn, castling, en_passant = text
    where = {word[1:]: word[0] for word in placed}
    return Position("".join(where.get(square, ".") for square in BOARD), turn, castling, en_passant)


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
