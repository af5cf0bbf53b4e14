"""Groups of rows that are about equally hard: what flips are compared within."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.metrics.regions import Codes, Flags
from w2sd.predictions import Column

MARGIN_BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the baseline's confidence; the lower edge is included
ENSEMBLE = 3  # students whose mean margin tells how hard a row is
SMALLEST = 20  # baseline-correct rows in a stratum
_FAR = 1e12  # stands in for an infinite margin, whose mean with another could be undefined


class Strata(NamedTuple):
    """The stratum of each row, or why there is none."""

    codes: Codes | None
    reason: str | None = None


def difficulty_strata(
    margins: Sequence[ArrayLike],
    length_difference: ArrayLike | None,
    c0: Flags,
    *,
    crossed: ArrayLike | None = None,
) -> Strata:
    """Strata by the mean margin of some students (quintiles) and by length difference (terciles), for all rows.

    `margins` are logits of an ensemble of no-conflict students, none of them the run that is judged, or of the ceiling
    alone. Cut points are quantiles over C0, the rows that the baseline gets right; a row on a cut point is in the upper
    part. `crossed` crosses in the quintiles of one more margin, as of a student with gold labels and the conflict.

    No cell keeps fewer than 20 rows of C0 (none at all, if C0 has fewer). The cells stand in a line in which
    neighbours differ by one step in one variable: margin by margin, within it by the crossed margin, within that by
    length, every other run of these backwards. The smallest cell (of equals, the first) is merged with one of its two
    neighbours, the one that shares its margin quintile rather than one that does not, then the smaller, then the
    earlier; and so on until no cell is too small.
    """
    if not c0.any():
        return Strata(None, "difficulty strata need rows that the baseline gets right, here none")
    axes = [quantile_codes(np.mean([_finite(margin) for margin in margins], axis=0), c0, 5)]
    if crossed is not None:
        axes.append(quantile_codes(_finite(crossed), c0, 5))
    if length_difference is not None:
        axes.append(quantile_codes(_finite(length_difference), c0, 3))
    shape = [5, *([5] if crossed is not None else []), *([3] if length_difference is not None else [])]
    line = _serpentine(axes, shape)
    sizes = np.bincount(line[c0], minlength=int(np.prod(shape)))
    return Strata(_merge(sizes, int(np.prod(shape[1:])))[line])


def quantile_codes(values: Column, c0: Flags, n: int) -> Codes:
    """The quantile, 0 to n - 1, of each row among the rows of C0; a row on a cut point is in the upper part.

    >>> quantile_codes(np.array([1.0, 2.0, 3.0, 9.0]), np.array([True, True, True, False]), 2).tolist()
    [0, 1, 1, 1]
    """
    cuts = np.quantile(values[c0], np.arange(1, n) / n)
    return np.searchsorted(cuts, values, side="right")


def margin_bins(confidence: ArrayLike) -> Codes:
    """The bin of each confidence, lower edges included; what lies outside the edges is in the first or last bin.

    >>> margin_bins([0.5, 0.6, 0.99, 1.0]).tolist()
    [0, 1, 4, 4]
    """
    return np.searchsorted(MARGIN_BINS[1:-1], np.asarray(confidence), side="right")


def length_bins(confidence: ArrayLike, length_difference: ArrayLike, c0: Flags) -> Codes:
    """`margin_bins` crossed with terciles over C0 of the difference in response length, chosen minus rejected."""
    margins = margin_bins(confidence)
    return margins * 3 + quantile_codes(_finite(length_difference), c0, 3) if c0.any() else margins


def _finite(values: ArrayLike) -> Column:
    return np.clip(np.asarray(values, dtype=np.float64), -_FAR, _FAR)


def _serpentine(axes: Sequence[Codes], shape: Sequence[int]) -> Codes:
    """The place of each row's cell in a line that goes to and fro through the grid."""
    place = axes[0]
    for axis, n in zip(axes[1:], shape[1:], strict=True):
        place = place * n + np.where(place % 2 == 0, axis, n - 1 - axis)
    return place


def _merge(sizes: NDArray[np.intp], run: int) -> Codes:
    """The stratum of each place in the line, after cells that are too small were merged; `run` places a quintile."""
    ends = [(place, place) for place in range(len(sizes))]
    counts = sizes.tolist()
    while len(counts) > 1 and min(counts) < SMALLEST:
        small = counts.index(min(counts))
        beside = [i for i in (small - 1, small + 1) if 0 <= i < len(counts)]
        apart = {i: _quintiles(ends[i], run).isdisjoint(_quintiles(ends[small], run)) for i in beside}
        other = min(beside, key=lambda i: (apart[i], counts[i], i))
        left, right = sorted((small, other))
        ends[left : right + 1] = [(ends[left][0], ends[right][1])]
        counts[left : right + 1] = [counts[left] + counts[right]]
    return np.repeat(np.arange(len(ends)), [last - first + 1 for first, last in ends])


def _quintiles(ends: tuple[int, int], run: int) -> set[int]:
    return set(range(ends[0] // run, ends[1] // run + 1))
