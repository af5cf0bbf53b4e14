"""What the nearest others say: the mean label of the k nearest neighbours, by Euclidean distance.

As in EleutherAI's weak-to-strong experiments (k = 50), except that no example is its own neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from w2sd.errors import require
from w2sd.probes.examples import Examples, Floats, require_neighbours

BLOCK = 2**23  # distances at a time: 64 MB


def knn(known: Examples, k: int, voters: NDArray[np.bool_] | None = None) -> Floats:
    """P(class) of each row, [n, C]: the mean label of its k nearest neighbours, among the `voters` if not all are."""
    return known.labels[neighbours(known, k, voters)].mean(axis=1)


def neighbours(known: Examples, k: int, voters: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The k nearest rows of other examples, for each row, [n, k] from near to far."""
    require_neighbours(known, k)
    barred = np.zeros(len(known.of), dtype=bool) if voters is None else ~voters
    others = int((~barred).sum()) - int(np.bincount(known.of[~barred]).max(initial=0))
    require(k <= others, "k", k, f"a number of neighbours from 1 to {others}: that many are left to ask")
    near = np.empty((len(known.of), k), dtype=np.int64)
    for rows, distances in _distances(known.vectors):
        distances[:, barred] = np.inf
        distances[known.of[rows, None] == known.of] = np.inf
        near[rows] = _smallest(distances, k)
    return near


def _distances(vectors: Floats) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Some rows at a time, and their squared distances to all."""
    squares = (vectors**2).sum(axis=1)
    step = max(1, BLOCK // max(1, len(vectors)))
    for start in range(0, len(vectors), step):
        rows = np.arange(start, min(start + step, len(vectors)))
        yield rows, squares[rows, None] + squares - 2 * vectors[rows] @ vectors.T


def _smallest(distances: Floats, k: int) -> NDArray[np.int64]:
    """The columns of the k smallest values of each row, in their order."""
    few = np.argpartition(distances, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(distances, few, axis=1), axis=1, kind="stable")
    return np.take_along_axis(few, order, axis=1)
