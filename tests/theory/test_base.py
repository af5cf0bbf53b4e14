"""Figures over resampled replicates: where they have an interval, and where not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from w2sd.theory.base import Values, over_resamples

VALUES = np.arange(8.0)


def undefined(times: int) -> Callable[[Values], float]:
    """The mean, except in so many resamples."""
    calls = itertools.count()
    return lambda values: math.nan if 0 < next(calls) <= times else float(values.mean())


@pytest.mark.parametrize(("times", "names"), [(0, 3), (25, 3), (26, 1)])
def test_a_figure_that_is_often_undefined_has_no_interval(times: int, names: int) -> None:
    found = over_resamples("gain", undefined(times), VALUES)
    assert found["gain"] == 3.5
    assert list(found) == ["gain", "gain_lo", "gain_hi"][:names]
    assert all(0 < found["gain_lo"] < 3.5 < found["gain_hi"] < 7 for _ in range(1, names))  # type: ignore[operator]


def test_one_replicate_has_no_interval_and_what_is_undefined_no_value() -> None:
    assert over_resamples("gain", np.mean, VALUES[:1]) == {"gain": 0.0}
    assert over_resamples("gain", lambda values: math.nan, VALUES) == {"gain": None}
