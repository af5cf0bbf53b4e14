"""The four regions of what the strong and the weak model know."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

REGIONS = ("kk", "ku", "uk", "uu")  # first letter: strong, second: weak; k known, u unknown
KK, KU, UK, UU = range(4)

Codes = NDArray[np.intp]
Flags = NDArray[np.bool_]

_ROUNDING = 1e-12  # 1 - 0.4 is not quite 0.6


def regions(strong: ArrayLike, weak: ArrayLike, threshold: float = 0.75) -> Codes:
    """The region of each row, as an index into REGIONS; a confidence of at least `threshold` counts as known.

    S_k = {x: M_strong(x) >= T}, W_k = {x: M_weak(x) >= T} (Yang et al. 2024, arXiv 2406.11431, section 3), with the
    confidences of the ceiling and of the weak model, both trained on the truth. Known means right *and* sure.

    >>> [REGIONS[code] for code in regions([0.9, 0.9, 0.2, 0.74], [0.75, 0.6, 0.9, 0.1])]
    ['kk', 'ku', 'uk', 'uu']
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number from 0 to 1, got {threshold}")
    return known_regions(np.asarray(strong) >= threshold, np.asarray(weak) >= threshold)


def known_regions(strong: ArrayLike, weak: ArrayLike) -> Codes:
    """The region of each row from flags that say what each model knows, as the embedded world can.

    >>> known_regions([True, True, False, False], [True, False, True, False]).tolist()
    [0, 1, 2, 3]
    """
    return np.where(strong, KK, UK) + np.where(weak, 0, 1)


def confident_errors(
    weak: ArrayLike, student: ArrayLike, weak_at: float = 0.75, student_at: float = 0.75
) -> tuple[Flags, Flags]:
    """Where the student is sure and wrong, 1 - s >= student_at, and where weak is not sure: max(w, 1 - w) < weak_at.

    After the blind spots of arXiv 2604.25077, whose thresholds are arguments here.
    """
    w, s = np.asarray(weak), np.asarray(student)
    return 1 - s >= student_at - _ROUNDING, np.maximum(w, 1 - w) < weak_at - _ROUNDING
