"""Regions: reference vector V27, edges of the threshold, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from w2sd.metrics.excess_flips import flips
from w2sd.metrics.regions import REGIONS, RegionCount, confident_errors, known_regions, region_counts, regions

STRONG = [0.95, 0.90, 0.80, 0.78, 0.97, 0.60, 0.85, 0.40, 0.92, 0.76, 0.30, 0.88]
WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
BASELINE = [0.93, 0.88, 0.70, 0.75, 0.60, 0.52, 0.90, 0.45, 0.55, 0.80, 0.65, 0.97]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]

V27 = [
    ("kk", {0, 3, 6, 11}, RegionCount(4, 4, 2, 2 / 4)),
    ("ku", {1, 2, 4, 8, 9}, RegionCount(5, 5, 3, 3 / 5)),
    ("uk", {10}, RegionCount(1, 1, 1, 1.0)),
    ("uu", {5, 7}, RegionCount(2, 1, 1, 1.0)),
]


@pytest.mark.parametrize(("name", "rows", "count"), V27)
def test_regions_of_the_worked_example(name: str, rows: set[int], count: RegionCount) -> None:
    region = regions(STRONG, WEAK)
    assert set(np.flatnonzero(region == REGIONS.index(name))) == rows
    moved = flips(BASELINE, STUDENT)
    assert region_counts(region, moved.f, moved.c0)[name] == count


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
    counts = region_counts(regions([0.9, 0.2], [0.9, 0.9]), moved.f, moved.c0)
    assert counts == {
        "kk": RegionCount(1, 1, 0, 0.0),
        "ku": RegionCount(0, 0, 0, None),
        "uk": RegionCount(1, 0, 0, None),
        "uu": RegionCount(0, 0, 0, None),
    }


def test_regions_cover_every_row_once() -> None:
    rng = np.random.default_rng(1)
    moved = flips(*rng.random((2, 300)))
    counts = region_counts(regions(*rng.random((2, 300))), moved.f, moved.c0).values()
    assert [sum(column) for column in zip(*(count[:3] for count in counts), strict=True)] == [
        300,
        moved.c0.sum(),
        moved.f.sum(),
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regions([0.9], [0.9, 0.8]), "weak: 2 rows, but strong has 1"),
        (lambda: regions([0.9], [1.2]), r"weak: row 0 is 1\.2, outside"),
        (lambda: regions([0.9], [float("nan")]), "weak: row 0 is NaN"),
        (lambda: regions([0.9], [0.9], threshold=75), "threshold: expected a number from 0 to 1, got 75"),
        (lambda: known_regions([[True]], [[True]]), "strong: expected one column, got 2 dimensions"),
        (lambda: confident_errors([0.9, 0.1], [0.9]), "student: 1 rows, but weak has 2"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
