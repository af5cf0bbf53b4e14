"""The four regions of what the strong and the weak model know, and what flips in each of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.predictions import confidences

REGIONS = ("kk", "ku", "uk", "uu")  # first letter: strong, second: weak; k known, u unknown
KK, KU, UK, UU = range(4)

Codes = NDArray[np.intp]
Flags = NDArray[np.bool_]


_ROUNDING = 1e-12  # 1 - 0.4 is not quite 0.6


class RegionCount(NamedTuple):
    """One region: all rows in it, those the baseline gets right (C0), how many of these flip, and their share."""

    n_all: int
    n: int
    flips: int
    rate: float | None  # None where the baseline is right nowhere


class ConfidentErrors(NamedTuple):
    """Where a student is confidently wrong, and where its weak model is uncertain, confidently wrong or right."""

    wrong: Flags
    uncertain: Flags
    weak_wrong: Flags
    weak_right: Flags


def regions(strong: ArrayLike, weak: ArrayLike, threshold: float = 0.75) -> Codes:
    """The region of each row, as an index into REGIONS; a confidence of at least `threshold` counts as known.

    S_k = {x: M_strong(x) >= T}, W_k = {x: M_weak(x) >= T} (Yang et al. 2024, arXiv 2406.11431, section 3), with the
    confidences of the ceiling and of the weak model, both trained on the truth. Known means right *and* sure.

    >>> [REGIONS[code] for code in regions([0.9, 0.9, 0.2, 0.74], [0.75, 0.6, 0.9, 0.1])]
    ['kk', 'ku', 'uk', 'uu']
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number from 0 to 1, got {threshold}")
    return known_regions(confidences("strong", strong) >= threshold, confidences("weak", weak) >= threshold)


def known_regions(strong: ArrayLike, weak: ArrayLike) -> Codes:
    """The region of each row from flags that say what each model knows, as the embedded world can.

    >>> known_regions([True, True, False, False], [True, False, True, False]).tolist()
    [0, 1, 2, 3]
    """
    strong_known, weak_known = np.asarray(strong, dtype=np.bool_), np.asarray(weak, dtype=np.bool_)
    same_rows(strong=strong_known, weak=weak_known)
    return np.where(strong_known, KK, UK) + np.where(weak_known, 0, 1)


def region_counts(region: Codes, f: Flags, c0: Flags) -> dict[str, RegionCount]:
    """What flips in each region; the rates are over the rows that the baseline gets right.

    phi_r = |F ∩ r| / |r ∩ C0|.
    """
    same_rows(region=region, f=f, c0=c0)
    counts = {}
    for code, name in enumerate(REGIONS):
        inside = region == code
        n, flips = int((inside & c0).sum()), int((inside & f).sum())
        counts[name] = RegionCount(int(inside.sum()), n, flips, flips / n if n else None)
    return counts


def confident_errors(
    weak: ArrayLike, student: ArrayLike, weak_at: float = 0.75, student_at: float = 0.75
) -> ConfidentErrors:
    """Where the student is sure and wrong, 1 - s >= student_at, and how sure weak is: max(w, 1 - w) < weak_at?

    After the blind spots of arXiv 2604.25077, whose thresholds are arguments here.
    """
    w, s = confidences("weak", weak), confidences("student", student)
    same_rows(weak=w, student=s)
    return ConfidentErrors(
        wrong=1 - s >= student_at - _ROUNDING,
        uncertain=np.maximum(w, 1 - w) < weak_at - _ROUNDING,
        weak_wrong=1 - w >= weak_at - _ROUNDING,
        weak_right=w >= weak_at - _ROUNDING,
    )


def same_rows(**columns: NDArray[np.generic]) -> None:
    """Refuse columns that are not one-dimensional or not of one length, by name."""
    n = None
    for name, column in columns.items():
        if column.ndim != 1:
            raise ValueError(f"{name}: expected one column, got {column.ndim} dimensions")
        n = len(column) if n is None else n
        if len(column) != n:
            raise ValueError(f"{name}: {len(column)} rows, but {next(iter(columns))} has {n}")
