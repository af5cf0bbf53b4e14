"""Difficulty strata: where they are cut, how small cells are merged, and when there are none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from w2sd.metrics.strata import SMALLEST, difficulty_strata, length_bins, margin_bins, quantile_codes

RNG = np.random.default_rng(0)
N = 3000
MARGINS = list(RNG.normal(1, 2, size=(3, N)))
LENGTHS = RNG.integers(-40, 40, size=N)
C0 = RNG.random(N) < 0.9


def codes(*args: object, **kwargs: object) -> np.ndarray:
    found = difficulty_strata(*args, **kwargs)  # type: ignore[arg-type]
    assert found.reason is None
    assert found.codes is not None
    return found.codes


def test_strata_are_quintiles_of_the_mean_margin_by_terciles_of_length() -> None:
    mean = np.mean(MARGINS, axis=0)
    quintile = np.searchsorted(np.quantile(mean[C0], [0.2, 0.4, 0.6, 0.8]), mean, side="right")
    tercile = np.searchsorted(np.quantile(LENGTHS[C0], [1 / 3, 2 / 3]), LENGTHS, side="right")
    found = codes(MARGINS, LENGTHS, C0)
    assert found.shape == (N,)
    assert len(np.unique(found)) == 15
    assert len(np.unique(np.column_stack([found, quintile, tercile]), axis=0)) == 15  # one to one
    assert len(np.unique(codes(MARGINS, None, C0))) == 5


def test_a_baseline_that_is_never_right_has_no_strata() -> None:
    found = difficulty_strata(MARGINS, LENGTHS, np.zeros(N, dtype=bool))
    assert found.codes is None
    assert "rows that the baseline gets right" in str(found.reason)


def test_the_ceiling_form_takes_one_margin() -> None:
    found = codes([MARGINS[0]], None, C0)
    assert (found == quantile_codes(MARGINS[0], C0, 5)).all()


def test_the_crossed_form_has_the_quintiles_of_one_more_margin() -> None:
    gold = RNG.normal(size=N)
    found = codes(MARGINS, None, C0, crossed=gold)
    both = codes(MARGINS, None, C0) * 5 + quantile_codes(gold, C0, 5)
    assert len(np.unique(found)) == 25
    assert len(np.unique(np.column_stack([found, both]), axis=0)) == 25
    assert np.bincount(codes(MARGINS, LENGTHS, C0, crossed=gold)[C0]).min() >= SMALLEST


@pytest.mark.parametrize("n", [1, 10, 39, 60, 150, 299, 500])
@pytest.mark.parametrize("correlated", [False, True])
def test_no_stratum_is_small(n: int, correlated: bool) -> None:
    rng = np.random.default_rng(n)
    margins = list(rng.normal(size=(3, n)))
    lengths = margins[0] + rng.normal(size=n) if correlated else rng.normal(size=n)
    c0 = np.ones(n, dtype=bool)
    found = codes(margins, lengths, c0)
    sizes = np.bincount(found)
    assert sizes.min() >= min(n, SMALLEST)
    assert len(sizes) >= min(5, max(1, n // (2 * SMALLEST)))  # no more is merged than must be
    assert found.max() == len(sizes) - 1


def test_small_cells_join_their_own_quintile_first() -> None:
    """100 rows: each quintile has 20, so its three cells become one, and quintiles stay apart."""
    margins, lengths = np.arange(100.0), np.random.default_rng(1).permutation(100)
    found = codes([margins] * 3, lengths, np.ones(100, dtype=bool))
    assert found.tolist() == np.repeat(np.arange(5), 20).tolist()


def test_quintiles_too_small_join_their_neighbours() -> None:
    found = codes([np.arange(60.0)] * 3, None, np.ones(60, dtype=bool))  # five of 12
    assert all(later >= earlier for earlier, later in pairwise(found))
    assert np.bincount(found).tolist() == [24, 36]


def test_rows_outside_c0_have_strata_but_do_not_move_the_cuts() -> None:
    changed = [np.where(C0, margin, 99.0) for margin in MARGINS]
    before, after = codes(MARGINS, LENGTHS, C0), codes(changed, LENGTHS, C0)
    assert (before[C0] == after[C0]).all()
    assert len(after) == N


def test_the_order_of_rows_and_of_students_does_not_matter() -> None:
    order = np.random.default_rng(2).permutation(N)
    found = codes(MARGINS, LENGTHS, C0)
    shuffled = codes([margin[order] for margin in MARGINS], LENGTHS[order], C0[order])
    assert (shuffled == found[order]).all()
    assert (codes(MARGINS[::-1], LENGTHS, C0) == found).mean() > 0.999  # sums may round differently


def test_equal_margins_are_one_stratum() -> None:
    same = [np.ones(N)] * 3
    assert len(np.unique(codes(same, None, C0))) == 1
    assert len(np.unique(codes(same, LENGTHS, C0))) == 3
    assert len(np.unique(codes(MARGINS, np.zeros(N), C0))) == 5


def test_infinite_margins_are_the_easiest_and_the_hardest() -> None:
    margins = [margin.copy() for margin in MARGINS]
    margins[0][:2], margins[1][:2] = [np.inf, -np.inf], [np.inf, -np.inf]
    margins[0][2], margins[1][2] = np.inf, -np.inf  # of no mean
    found = codes(margins, None, C0)
    assert found[:2].tolist() == [4, 0]
    assert 0 <= found[2] <= 4


def test_margin_bins_include_their_lower_edges() -> None:
    assert margin_bins([0.5, 0.5999, 0.6, 0.7, 0.8, 0.9, 1.0, 0.2]).tolist() == [0, 0, 1, 2, 3, 4, 4, 0]


def test_length_bins_cross_margin_and_length() -> None:
    confidence = RNG.uniform(0.5, 1, size=N)
    found = length_bins(confidence, LENGTHS, C0)
    assert len(np.unique(found)) == 15
    tercile = quantile_codes(LENGTHS.astype(float), C0, 3)
    assert (found == margin_bins(confidence) * 3 + tercile).all()
