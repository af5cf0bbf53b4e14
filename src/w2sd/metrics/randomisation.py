"""A randomisation test: would labels that are dealt anew within each world give as large a difference?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Sized
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from w2sd.predictions import Column

EXACT = 20_000  # relabellings that are all tried; of more, DRAWS are drawn
DRAWS = 10_000


def n_relabellings(treated: Sequence[Sized], controls: Sequence[Sized]) -> int:
    """In how many ways the labels of these students can be dealt, within each world.

    >>> n_relabellings([[1, 2, 3, 4]], [[5, 6, 7, 8]]), n_relabellings([[1, 2], [3]], [[4, 5], [6]])
    (70, 12)
    """
    return math.prod(math.comb(len(a) + len(b), len(a)) for a, b in zip(treated, controls, strict=True))


def least_p(treated: Sequence[Sized], controls: Sequence[Sized]) -> float:
    """The smallest p value that these students can have."""
    n = n_relabellings(treated, controls)
    return 1 / n if n <= EXACT else 1 / (1 + DRAWS)


def p_value(treated: Sequence[Column], controls: Sequence[Column]) -> float:
    """One-sided: the share of relabellings, the real one among them, whose difference is at least the real one.

    Arrays hold the students of a world. The difference is that of means, summed over worlds. The order of students
    changes nothing.

    >>> p_value([np.array([3.0, 4.0])], [np.array([1.0, 2.0])])  # the largest of 6
    0.16666666666666666
    """
    pairs = [(np.sort(a), np.sort(b)) for a, b in zip(treated, controls, strict=True)]
    observed = sum(a.mean() - b.mean() for a, b in pairs)
    if n_relabellings(treated, controls) <= EXACT:
        differences = np.zeros(1)
        for a, b in pairs:
            differences = np.add.outer(differences, _all_differences(a, b)).ravel()
        return float(_at_least(differences, observed) / len(differences))
    rng = np.random.default_rng(0)
    drawn = sum(_drawn_differences(a, b, rng) for a, b in pairs)
    return float((1 + _at_least(np.asarray(drawn), observed)) / (1 + DRAWS))


def _all_differences(a: Column, b: Column) -> Column:
    both = np.concatenate([a, b])
    return _difference(both[_deals(len(both), len(a))].sum(axis=1), both, len(a))


@lru_cache(maxsize=8)
def _deals(n: int, chosen: int) -> NDArray[np.intp]:
    return np.array(list(itertools.combinations(range(n), chosen)))


def _drawn_differences(a: Column, b: Column, rng: np.random.Generator) -> Column:
    both = np.concatenate([a, b])
    order = rng.permuted(np.tile(both, (DRAWS, 1)), axis=1)
    return _difference(order[:, : len(a)].sum(axis=1), both, len(a))


def _difference(total: Column, both: Column, n: int) -> Column:
    """The differences of means, from the totals of the first n."""
    difference: Column = total / n - (both.sum() - total) / (len(both) - n)
    return difference


def _at_least(differences: Column, observed: float) -> int:
    """How many are not below the observed one; sums in another order differ in their last digits."""
    return int((differences >= observed - 1e-12 * max(1.0, float(np.abs(differences).max()))).sum())
