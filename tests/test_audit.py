"""The candidates of the audit: what cancels in each by construction, and that errors in blind spots do not."""

from __future__ import annotations

import numpy as np
import pytest

from candidates import CANDIDATES, World, known, noised, noised_where_unsure, shifted
from development import p_value
from w2sd.metrics.regions import KU

BELIEF = [name for name in CANDIDATES if name.startswith("belief")]
BESIDE_WEAK = [name for name in BELIEF if "weak" in name]


@pytest.fixture(scope="module")
def world() -> World:
    """2,000 pairs that the ceiling knows, half of them blind spots, and students that imitate their teacher."""
    rng = np.random.default_rng(0)
    blind, own = np.arange(2000) % 2 == 0, rng.normal(size=2000)
    weak = np.where(blind, rng.normal(0, 0.7, 2000), 3 + rng.normal(0, 0.7, 2000))
    shared = 0.8 + own + 0.3 * weak
    return World(weak, np.full(2000, 6.0), shared + rng.normal(0, 0.5, (4, 2000)))


def student(world: World) -> np.ndarray:
    return world.believed + np.random.default_rng(1).normal(0, 0.5, 2000)


@pytest.mark.parametrize("name", CANDIDATES)
def test_errors_in_blind_spots_count(world: World, name: str) -> None:
    y = student(world)
    harmed = np.where(world.region == KU, -0.5 * y, y)
    assert CANDIDATES[name](world, harmed) > CANDIDATES[name](world, y) + 0.05


@pytest.mark.parametrize("name", BELIEF)
def test_the_scale_of_a_student_does_not_count(world: World, name: str) -> None:
    y = student(world)
    assert CANDIDATES[name](world, 7 * y) == pytest.approx(CANDIDATES[name](world, y))


@pytest.mark.parametrize("name", BESIDE_WEAK)
def test_what_is_taken_from_the_weak_model_does_not_count(world: World, name: str) -> None:
    y, weak = student(world), np.clip(world.weak, -4, 4)
    assert CANDIDATES[name](world, y + 0.4 * weak) == pytest.approx(CANDIDATES[name](world, y))


def test_a_shift_alike_everywhere_does_not_count_beside_the_truth(world: World) -> None:
    y, name = student(world), "belief beside weak and truth"
    assert CANDIDATES[name](world, y - 0.7) == pytest.approx(CANDIDATES[name](world, y))
    assert CANDIDATES["belief beside weak"](world, y - 0.7) > CANDIDATES["belief beside weak"](world, y)


def test_virtual_students_have_the_dose(world: World) -> None:
    y, rng = student(world), np.random.default_rng(2)
    for made in (shifted(world, y, 0.8), noised(world, y, 0.8, rng), noised_where_unsure(world, y, 0.97, rng)):
        assert known(world, made) < known(world, y)
    assert known(world, shifted(world, y, 0.8)) == pytest.approx(0.8, abs=0.01)
    assert shifted(world, y, 1.0) == pytest.approx(y)


def test_the_randomisation_test_is_exact_in_the_limit() -> None:
    """Four above four are one relabelling of 70; within two worlds, one of 4,900; a null is uniform."""
    rng = np.random.default_rng(0)
    high, low = np.arange(4.0) + 10, np.arange(4.0)
    assert p_value([high], [low], rng) == pytest.approx(1 / 70, abs=0.006)
    assert p_value([high, high], [low, low], rng) < 0.002
    assert p_value([low], [low], rng) > 0.5
    nulls = [p_value([rng.normal(size=5)], [rng.normal(size=5)], rng) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(nulls) < 0.05) <= 0.1
