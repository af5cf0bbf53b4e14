"""The classes of chess: every move that geometry allows, in UCI.

They are a closed set of 1,968, whatever the position: a queen's or a knight's move from every square (which covers
those of all other pieces, and castling as the move of the king), and the promotions of a pawn.
"""

from __future__ import annotations

FILES, RANKS = "abcdefgh", "12345678"
SQUARES = tuple(file + rank for rank in RANKS for file in FILES)  # a1, b1, ... h8
PROMOTIONS = "nbrq"


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


def mirrored(move: str) -> str:
    """The move on a board that was turned upside down: e7e8q is e2e1q.

    >>> mirrored("e7e8q")
    'e2e1q'
    """
    return "".join(str(9 - int(letter)) if letter in RANKS else letter for letter in move)
