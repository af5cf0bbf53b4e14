"""Flips on the scale of the weak model's confidence."""

from __future__ import annotations

import numpy as np
import pytest
from w2sd.metrics.deception import Flips, flips

from w2sd.metrics.robustness import EDGES, QUANTILES, quantiles_of_flips, rates_by_confidence


def moved(n: int = 500, seed: int = 0) -> tuple[Flips, np.ndarray]:
    rng = np.random.default_rng(seed)
    return flips(rng.random(n), rng.random(n)), np.round(rng.random(n), 2)


def test_bins_are_those_of_a_loop() -> None:
    change, weak = moved()
    rows = rates_by_confidence(change, weak)
    assert [row.edge for row in rows] == list(EDGES[:-1])
    for row, top in zip(rows, EDGES[1:], strict=True):
        inside = (weak >= row.edge) & ((weak < top) | (top == 1))
        assert row.n == (change.c0 & inside).sum()
        assert row.flips == (change.f & inside).sum()
        assert row.rate == (row.flips / row.n if row.n else None)
    assert sum(row.flips for row in rows) == change.f.sum()


def test_a_bin_without_rows_has_no_rate() -> None:
    change = flips([0.9, 0.9], [0.1, 0.9])
    rates = {row.edge: row.rate for row in rates_by_confidence(change, [0.76, 1.0])}
    assert (rates[0.75], rates[0.95], rates[0.5]) == (1.0, 0.0, None)


def test_quantiles_are_of_flips_alone() -> None:
    change, weak = moved(seed=1)
    found = quantiles_of_flips(change, weak)
    assert list(found) == list(QUANTILES)
    assert found[0.5] == pytest.approx(np.median(weak[change.f]))
    assert quantiles_of_flips(flips([0.9], [0.9]), [0.3]) == dict.fromkeys(QUANTILES)


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="weak"):
        rates_by_confidence(flips([0.9], [0.9]), [0.3, 0.4])
