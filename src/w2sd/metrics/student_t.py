"""Student's t distribution for whole degrees of freedom, in closed form, and the interval of a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from w2sd.metrics.scale import Scale


class Mean(NamedTuple):
    """A mean with its 95% t interval."""

    value: float
    lo: float | None = None
    hi: float | None = None


def mean(values: Sequence[float], scale: Scale) -> Mean:
    """The mean of independent values; one value, or one that all share, has no spread to make an interval from.

    An interval is cut at the ends of its figure's scale. The true mean is not beyond them, so this costs no coverage.

    >>> from w2sd.metrics.scale import SHARE
    >>> [round(end, 3) for end in mean([0.4, 0.5, 0.6], SHARE)], mean([0.5, 0.5], SHARE)
    ([0.5, 0.252, 0.748], Mean(value=0.5, lo=None, hi=None))
    >>> mean([0.5, 0.8], SHARE)
    Mean(value=0.65, lo=0.0, hi=1.0)
    """
    n, middle = len(values), math.fsum(values) / len(values)
    if len(set(values)) == 1:
        return Mean(middle)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    reach = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Mean(middle, max(middle - reach, scale.lowest), min(middle + reach, scale.highest))


@cache
def t_quantile(df: int) -> float:
    """The 97.5% quantile of Student's t for whole degrees of freedom.

    >>> [round(t_quantile(df), 3) for df in (1, 2, 3, 4, 100)]
    [12.706, 4.303, 3.182, 2.776, 1.984]
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > 0.025 else (low, middle)
    return low


def t_tail(t: float, df: int) -> float:
    """P(T > t): Abramowitz and Stegun 26.7.3 (odd df) and 26.7.4 (even).

    >>> round(t_tail(2.0, 4), 6), round(t_tail(-1.0, 3), 6)
    (0.058058, 0.804499)
    """
    angle = math.atan(t / math.sqrt(df))
    sine, cosine, odd = math.sin(angle), math.cos(angle), df % 2
    term, series = (cosine if odd else 1.0), 0.0
    for k in range(odd, df - 1, 2):
        series += term
        term *= cosine**2 * (k + 1) / (k + 2)
    within = 2 / math.pi * (angle + sine * series) if odd else sine * series
    return min(1.0, max(0.0, (1 - within) / 2))
