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


def examples(states_NAD: ArrayLike, labels_NK: ArrayLike) -> Examples:
    """Items, which have one state each; or pairs, which have two in slot order, as their difference and its mirror.

    >>> pair = examples([[[3.0, 2.0], [1.0, 2.0]]], [[0.75, 0.25]])
    >>> pair.vectors.tolist(), pair.labels.tolist()
    ([[2.0, 0.0], [-2.0, -0.0]], [[0.75, 0.25], [0.25, 0.75]])
    """
    states, labels = np.asarray(states_NAD, dtype=np.float64), np.asarray(labels_NK, dtype=np.float64)
    if states.ndim != 3 or len(states) != len(labels):
        raise ValueError(f"states: expected some for each of {len(labels)} labels, got the shape {states.shape}")
    if not np.isfinite(states).all():
        raise ValueError("states: expected finite numbers")
    of = np.arange(len(states))
    if states.shape[1] == 1:
        return Examples(states[:, 0], labels, of)
    x = states[:, 0] - states[:, 1]
    return Examples(np.concatenate([x, -x]), np.concatenate([labels, labels[:, ::-1]]), np.concatenate([of, of]))


def preferred_class(labels: Floats) -> NDArray[np.int64]:
    """The class that each label prefers; −1 where two are exactly as likely."""
    best = labels == labels.max(axis=1, keepdims=True)
    return np.where(best.sum(axis=1) == 1, best.argmax(axis=1), -1)


def require_two_classes(known: Examples) -> None:
    """Refuse labels that say the same of every example."""
    preferred = set(preferred_class(known.labels).tolist()) - {-1}
    if len(preferred) < 2:
        said = f"labels that all prefer class {preferred.pop()}" if preferred else "labels that prefer no class"
        raise Refused("probe", said, "labels that prefer two classes or more")


def require_neighbours(known: Examples, k: int) -> None:
    """Refuse more neighbours than there are other examples."""
    n = len(np.unique(known.of))
    require(0 < k < n, "k", k, f"a number of neighbours from 1 to {n - 1}, of {n} examples")
