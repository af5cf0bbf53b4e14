"""How confidence becomes a target: without a word about which slot holds the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from w2sd.supervision import Hard, Soft

SUPERVISIONS = [Soft(), Hard()]
each_supervision = pytest.mark.parametrize("supervision", SUPERVISIONS, ids=lambda s: type(s).__name__.lower())
# Multiples of 2**-12, so that 1 - p is exact and a tie stays a tie.
GRID = np.arange(2**12 + 1) / 2**12


def test_soft_targets_are_the_confidence_itself() -> None:
    p = np.random.default_rng(0).uniform(size=100)
    assert (Soft().targets(p) == p).all()


@pytest.mark.parametrize(
    ("p_first", "expected"),
    [
        (0.0, 0.0),
        (1e-300, 0.0),
        (0.25, 0.0),
        (float(np.nextafter(0.5, 0)), 0.0),
        (0.5, 0.5),
        (float(np.nextafter(0.5, 1)), 1.0),
        (0.75, 1.0),
        (1.0, 1.0),
    ],
)
def test_hard_targets_are_the_preferred_side_and_half_for_an_exact_tie(p_first: float, expected: float) -> None:
    assert Hard().targets(p_first) == expected
    assert Hard().targets(np.array([p_first, 1.0]))[0] == expected


def test_hard_targets_take_no_other_value() -> None:
    targets = Hard().targets(GRID)
    assert set(targets) == {0.0, 0.5, 1.0}
    assert targets.dtype == np.float64
    assert (targets == 0.5).sum() == 1


@each_supervision
def test_swapping_the_slots_swaps_the_target(supervision: Any) -> None:
    assert (supervision.targets(1 - GRID) == 1 - supervision.targets(GRID)).all()


@each_supervision
def test_targets_are_shares_and_never_fall_as_the_confidence_rises(supervision: Any) -> None:
    targets = supervision.targets(GRID)
    assert targets.shape == GRID.shape
    assert targets.min() == 0
    assert targets.max() == 1
    assert (np.diff(targets) >= 0).all()


@each_supervision
def test_a_target_depends_on_its_own_row_alone(supervision: Any) -> None:
    rng = np.random.default_rng(1)
    p, order = rng.choice(GRID, size=200), rng.permutation(200)
    assert (supervision.targets(p[order]) == supervision.targets(p)[order]).all()
    assert supervision.targets(np.array([])).shape == (0,)


@each_supervision
def test_the_confidences_are_left_as_they_are(supervision: Any) -> None:
    p = np.array([0.1, 0.5, 0.9])
    supervision.targets(p)
    assert p.tolist() == [0.1, 0.5, 0.9]
