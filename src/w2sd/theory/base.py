"""What a theory is here: a frozen dataclass of the sizes of a toy, which simulates it on one processor in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.metrics import student_t
from w2sd.metrics.scale import scale_of
from w2sd.metrics.statistics import interval

Values = NDArray[np.float64]
Metrics = dict[str, float | None]


class Simulation(NamedTuple):
    """What a simulation found: flat figures, and every point behind them as the columns of one tidy table."""

    metrics: Metrics
    curves: Mapping[str, Sequence[Any]]


class Theory(Protocol):
    """A toy in which weak-to-strong generalisation can be computed; its fields are its configuration."""

    VERSION: ClassVar[int]

    def simulate(self, seed: int, advance: Callable[[int, int], None]) -> Simulation:
        """Run it; the same seed gives the same figures. `advance` hears of finished replicates and of how many."""
        ...


def columns(points: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Points that all have the same names, as columns."""
    rows = list(points)
    return {name: [row[name] for row in rows] for name in rows[0]}


def over_replicates(name: str, values: ArrayLike) -> Metrics:
    """The mean of one figure over replicates with its 95% t interval; without an interval where it does not vary.

    >>> {name: round(value, 3) for name, value in over_replicates("gain", [0.4, 0.5, 0.6]).items()}
    {'gain': 0.5, 'gain_lo': 0.252, 'gain_hi': 0.748}
    """
    mean, lo, hi = student_t.mean(np.asarray(values, dtype=np.float64).tolist(), scale_of(name))
    return {name: mean} if lo is None else {name: mean, f"{name}_lo": lo, f"{name}_hi": hi}


def over_resamples(name: str, figure: Callable[..., float], *arrays_R: Values, n_resamples: int = 500) -> Metrics:
    """A figure of several replicates together with its 95% interval over resampled replicates, their first axis.

    It is None where it is undefined (NaN), and has no interval where that happens in more than one resample of twenty.
    """
    found = figure(*arrays_R)
    if math.isnan(found):
        return {name: None}
    rng, n = np.random.default_rng(0), len(arrays_R[0])
    picks = (rng.integers(n, size=n) for _ in range(n_resamples))
    draws = interval([figure(*(array[pick] for array in arrays_R)) for pick in picks])
    if n < 2 or draws.n_undefined > n_resamples / 20:
        return {name: float(found)}
    return {name: float(found), f"{name}_lo": draws.lo, f"{name}_hi": draws.hi}
