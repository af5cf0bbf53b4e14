"""Piles, solved: what each move gains under perfect play.

Two players share four piles of at most two stones. They take turns to lift the top stone off a pile until none is
left; each stone is worth 1, 2 or 3 points to whoever lifts it. Every stone can be seen, also the lower ones. What a
move gains is the points its player will then be ahead of the other, if both play perfectly from there on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PILES, HEIGHT = 4, 2
CELLS = PILES * HEIGHT
WORTHS = (1, 2, 3)
NONE = -1  # no stone, no pile
IMPOSSIBLE = -99  # what a move gains off an empty pile


@lru_cache(maxsize=1)
def _solved() -> NDArray[np.int8]:
    """What lifting the top of each pile gains who looks 1 to 8 moves ahead, by the worths of the eight cells."""
    base = 1 + len(WORTHS)  # 0 is an empty cell
    cells = np.indices((base,) * CELLS).reshape(CELLS, -1).T
    tops, lower = cells[:, ::HEIGHT], cells[:, 1::HEIGHT]
    number = base ** np.arange(CELLS)[::-1].reshape(PILES, HEIGHT)
    after = np.arange(len(cells))[:, None] + (lower - tops) * number[:, 0] - lower * number[:, 1]
    gain, value = [], np.zeros(len(cells), dtype=np.int64)
    for _ in range(CELLS):
        gain.append(np.where(tops > 0, tops - value[after], IMPOSSIBLE))
        value = np.where((tops > 0).any(axis=1), gain[-1].max(axis=1), 0)
    return np.stack(gain).astype(np.int8).reshape(CELLS, *(base,) * CELLS, PILES)


def gains(worths: Ints, ahead: int = CELLS) -> Ints:
    """What each move gains [n, 4], by the worths of top and lower stone of each pile [n, 4, 2], 0 for no stone.

    Whoever looks fewer moves ahead takes what is still there then for nothing.
    """
    return _solved()[ahead - 1][tuple(worths.reshape(-1, CELLS).T)].astype(np.int64)


def best(worths: Ints, ahead: int = CELLS) -> Ints:
    """The pile whose top is the one best move to who looks so far ahead, or NONE where there are several."""
    gain = gains(worths, ahead)
    alone = (gain == gain.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(alone, gain.argmax(axis=1), NONE)


def depth(worths: Ints) -> Ints:
    """How many moves one must look ahead, at least, to see what is best; and whoever looks further sees the same."""
    seen = np.stack([best(worths, ahead) for ahead in range(1, CELLS + 1)])
    return 1 + ((seen != seen[-1]) * np.arange(1, CELLS + 1)[:, None]).max(axis=0)
