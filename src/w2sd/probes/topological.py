"""Which labels hang together: in the graph of neighbours that share a class, the largest piece of each class.

After Wu et al. 2020 ("A topological filter for learning with label noise") and EleutherAI's weak-to-strong
experiments: a wrong label puts an example among those of another class, where few neighbours share it. Theirs are the
pieces in which each row can be reached from each by way of nearest neighbours; here links have no direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from w2sd.probes.examples import Examples, preferred_class, require_two_classes
from w2sd.probes.knn import knn, neighbours


def keep(known: Examples, k: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in the largest piece of their class; if fewer than `share` of all are not, less some more.

    Two rows of one class are linked if either is among the other's k nearest rows; a row of no class is not kept. What
    goes beyond that are rows whose labels are farthest from the mean label of the k nearest that are kept.
    """
    require_two_classes(known)
    kept = _in_largest_piece(known, k)
    kept &= ~np.isin(known.of, known.of[~kept])  # a pair is kept with its mirror, also where pieces are equally large
    n, copies = known.of.max() + 1, np.bincount(known.of)[0]
    n_more = copies * round(share * n) - int((~kept).sum())
    if n_more > 0:
        far = np.abs(known.labels - knn(known, k, kept)).sum(axis=1)
        kept[np.lexsort((known.of, -np.where(kept, far, -1)))[:n_more]] = False
    return kept


def _in_largest_piece(known: Examples, k: int) -> NDArray[np.bool_]:
    of_class, near = preferred_class(known.labels), neighbours(known, k)
    piece = _pieces(near, of_class[near] == of_class[:, None])
    kept = np.zeros(len(of_class), dtype=bool)
    for label in np.unique(of_class[of_class >= 0]):
        members = of_class == label
        names, sizes = np.unique(piece[members], return_counts=True)
        kept |= members & (piece == names[sizes.argmax()])
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
