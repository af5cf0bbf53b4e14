"""Where flips happen on the scale of the weak model's confidence.

Pointwise, an explicit conflict of strength α leaves a student that is wrong stable only where the weak label is below
(1 + α) / 2 (docs/concepts.md): flip rates against the weak model's confidence show whether that boundary is there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.deception import Flips
from w2sd.metrics.functional import confidences
from w2sd.metrics.regions import same_rows

EDGES = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Bin(NamedTuple):
    """The rows of C0 whose weak confidence is at least `edge` and below the next edge."""

    edge: float
    n: int
    flips: int
    rate: float | None  # None where there are no rows


def rates_by_confidence(moved: Flips, weak: ArrayLike) -> list[Bin]:
    """Flip rates by the weak model's confidence in the truth; a confidence of 1 is in the last bin.

    >>> moved = Flips(np.ones(4, bool), np.array([True, False, False, False]), np.zeros(4, bool))
    >>> [(bin.edge, bin.n, bin.flips) for bin in rates_by_confidence(moved, [0.5, 0.52, 0.2, 1]) if bin.n]
    [(0.0, 1, 0), (0.5, 2, 1), (0.95, 1, 0)]
    """
    p = confidences("weak", weak)
    same_rows(c0=moved.c0, weak=p)
    code = np.searchsorted(EDGES[1:-1], p, side="right")
    n, flips = (np.bincount(code[rows], minlength=len(EDGES) - 1).tolist() for rows in (moved.c0, moved.f))
    rates = [lost / there if there else None for lost, there in zip(flips, n, strict=True)]
    return [Bin(*row) for row in zip(EDGES[:-1], n, flips, rates, strict=True)]


def quantiles_of_flips(moved: Flips, weak: ArrayLike) -> dict[float, float | None]:
    """Quantiles of the weak model's confidence over the flips; None without flips."""
    p = confidences("weak", weak)[moved.f]
    return {q: float(np.quantile(p, q)) if len(p) else None for q in QUANTILES}
