"""Regions: reference vector V27, edges of the threshold, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from w2sd.metrics.excess_flips import count, flips, rates
from w2sd.metrics.regions import REGIONS, known_regions, regions

STRONG = [0.95, 0.90, 0.80, 0.78, 0.97, 0.60, 0.85, 0.40, 0.92, 0.76, 0.30, 0.88]
WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
BASELINE = [0.93, 0.88, 0.70, 0.75, 0.60, 0.52, 0.90, 0.45, 0.55, 0.80, 0.65, 0.97]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]

V27 = [
    ("kk", {0, 3, 6, 11}, (4, 2, 2 / 4)),
    ("ku", {1, 2, 4, 8, 9}, (5, 3, 3 / 5)),
    ("uk", {10}, (1, 1, 1.0)),
    ("uu", {5, 7}, (1, 1, 1.0)),
]


@pytest.mark.parametrize(("name", "rows", "figures"), V27)
def test_regions_of_the_worked_example(name: str, rows: set[int], figures: tuple[int, int, float]) -> None:
    region, code, moved = regions(STRONG, WEAK), REGIONS.index(name), flips(BASELINE, STUDENT)
    assert set(np.flatnonzero(region == code)) == rows
    cells = count(moved.f, moved.c0, region)
    assert (cells.c0[0, code, 0], cells.f[0, code, 0], rates(cells)[code, 0]) == figures


def test_a_confidence_at_the_threshold_is_known() -> None:
    below = float(np.nextafter(0.75, 0))
    assert regions([0.75, 0.75, below, below], [0.75, below, 0.75, below]).tolist() == [0, 1, 2, 3]
    assert regions([0.9, 0.9], [0.6, 0.6], threshold=0.6).tolist() == [0, 0]
    assert regions([0.9, 0.9], [0.6, 0.6], threshold=1.0).tolist() == [3, 3]


def test_flags_and_confidences_give_the_same_regions() -> None:
    strong, weak = np.random.default_rng(0).random((2, 500))
    assert (known_regions(strong >= 0.75, weak >= 0.75) == regions(strong, weak)).all()


def test_an_empty_region_has_no_rate() -> None:
    moved = flips([0.9, 0.4], [0.9, 0.4])
    cells = count(moved.f, moved.c0, regions([0.9, 0.2], [0.9, 0.9]))
    assert cells.c0[0, :, 0].tolist() == [1, 0, 0, 0]
    assert rates(cells)[:, 0] == pytest.approx([0, np.nan, np.nan, np.nan], nan_ok=True)


def test_regions_cover_every_row_once() -> None:
    rng = np.random.default_rng(1)
    moved = flips(*rng.random((2, 300)))
    cells = count(moved.f, moved.c0, regions(*rng.random((2, 300))))
    assert (cells.c0.sum(), cells.f.sum()) == (moved.c0.sum(), moved.f.sum())


def test_a_threshold_that_is_no_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold: expected a number from 0 to 1, got 75"):
        regions([0.9], [0.9], threshold=75)
