"""What a probe is fitted to: vectors, what a weak model thinks of each, and which of them are one example.

A pair is a difference of two states, and which slot is the first is a coin's word: the same pair with its answers
exchanged is the vector reversed, under the opposite label. So every pair stands here twice, and a probe gives the
exchanged pair exactly the opposite answer, whatever the coin was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.errors import Refused, require

Floats = NDArray[np.float64]


class Examples(NamedTuple):
    """Vectors and labels; rows of one number in `of` are one example, and have no say about each other."""

    vectors: Floats  # [n, D]
    labels: Floats  # [n, C] distributions over classes
    of: NDArray[np.int64]  # [n]


def examples(vectors: ArrayLike, labels: ArrayLike) -> Examples:
    """Items and their distributions [n, C]; or differences of pairs and P(first is better) [n], each with its mirror.

    >>> examples([[1.0, 2.0]], [0.75]).vectors.tolist(), examples([[1.0, 2.0]], [0.75]).labels.tolist()
    ([[1.0, 2.0], [-1.0, -2.0]], [[0.75, 0.25], [0.25, 0.75]])
    """
    x, y = np.asarray(vectors, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y):
        raise ValueError(f"vectors: expected one for each of {len(y)} labels, got the shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("vectors: expected finite numbers")
    of = np.arange(len(x))
    if y.ndim == 2:
        return Examples(x, y, of)
    first = np.column_stack([y, 1 - y])
    return Examples(np.concatenate([x, -x]), np.concatenate([first, first[:, ::-1]]), np.concatenate([of, of]))


def hardened(labels: Floats) -> NDArray[np.int64]:
    """The class that each label prefers; −1 where two are exactly as likely."""
    best = labels == labels.max(axis=1, keepdims=True)
    return np.where(best.sum(axis=1) == 1, best.argmax(axis=1), -1)


def require_two_classes(known: Examples) -> None:
    """Refuse labels that say the same of every example."""
    preferred = set(hardened(known.labels).tolist()) - {-1}
    if len(preferred) < 2:
        said = f"labels that all prefer class {preferred.pop()}" if preferred else "labels that prefer no class"
        raise Refused("probe", said, "labels that prefer two classes or more")


def require_neighbours(known: Examples, k: int) -> None:
    """Refuse more neighbours than there are other examples."""
    n = len(np.unique(known.of))
    require(0 < k < n, "k", k, f"a number of neighbours from 1 to {n - 1}, of {n} examples")
