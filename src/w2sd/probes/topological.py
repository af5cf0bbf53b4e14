"""Which labels hang together: in the graph of neighbours that share a class, the largest piece of each class.

After Wu et al. 2020 ("A topological filter for learning with label noise") and EleutherAI's weak-to-strong
experiments: a wrong label puts an example among those of another class, where few neighbours share it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from w2sd.probes.examples import Examples, Floats, hardened, require_two_classes
from w2sd.probes.knn import neighbours

BLOCK = 2**23  # numbers at a time: 64 MB


def keep(known: Examples, k: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in the largest piece of their class, and not among the `share` of it that lies farthest out.

    Two rows of one class are linked if either is among the other's k nearest rows. How far out a row lies is its
    distance from the mean of those of its k nearest that share its class. A row of no class is not kept.
    """
    require_two_classes(known)
    of_class, near = hardened(known.labels), neighbours(known, k)
    shares = of_class[near] == of_class[:, None]
    piece, out = _pieces(near, shares), _far_out(known.vectors, near, shares)
    kept = np.zeros(len(of_class), dtype=bool)
    for label in np.unique(of_class[of_class >= 0]):
        members = np.flatnonzero(of_class == label)
        names, sizes = np.unique(piece[members], return_counts=True)
        inside = members[piece[members] == names[sizes.argmax()]]
        nearest = inside[np.argsort(out[inside], kind="stable")]
        kept[nearest[: len(inside) - int(share * len(inside))]] = True
    return kept


def _pieces(near: NDArray[np.int64], linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the smallest row that it is connected with."""
    rows, columns = np.nonzero(linked)
    a, b = rows, near[rows, columns]
    piece = np.arange(len(near))
    while True:
        least = np.minimum(piece[a], piece[b])
        smaller = piece.copy()
        for end in (piece[a], piece[b]):
            np.minimum.at(smaller, end, least)
        smaller = smaller[smaller]
        if np.array_equal(smaller, piece):
            return piece
        piece = smaller


def _far_out(vectors: Floats, near: NDArray[np.int64], shares: NDArray[np.bool_]) -> Floats:
    """The distance of each row from the mean of its neighbours of the same class; infinite where it has none."""
    far = np.full(len(near), np.inf)
    step = max(1, BLOCK // (near.shape[1] * vectors.shape[1]))
    for start in range(0, len(near), step):
        some = slice(start, start + step)
        weights = shares[some] / np.maximum(1, shares[some].sum(axis=1, keepdims=True))
        mean = np.einsum("nk,nkd->nd", weights, vectors[near[some]])
        far[some] = np.where(shares[some].any(axis=1), np.linalg.norm(vectors[some] - mean, axis=1), np.inf)
    return far
