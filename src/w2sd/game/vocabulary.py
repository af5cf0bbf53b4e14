"""The 158 words of the game's records, each one token.

A position is ten words, `master: stone3 stone90 stone17 - - - stone8 - takes`: who is to move, the four piles from the
left with the top stone first, and the question which top is taken. The answer is `a`, `b`, `c` or `d`.
"""

from __future__ import annotations

STONES = 144

MARKS = ("<pad>", "master:", "novice:", "takes", "-", ".")
MOVES = ("a", "b", "c", "d")
POINTS = ("one", "two", "three")
WORDS: tuple[str, ...] = (*MARKS, *MOVES, *POINTS, *(f"stone{n}" for n in range(STONES)))

# Ids of single words, and of the first word of each family.
PAD, MASTER, NOVICE, TAKES, EMPTY, DOT, MOVE = range(len(MARKS) + 1)
POINT = MOVE + len(MOVES)
STONE = POINT + len(POINTS)
