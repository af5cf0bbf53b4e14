"""Selective loss: by hand, what leaves it exactly as it was, and what cancels."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2sd.metrics.regions import KK, KU
from w2sd.metrics.selective_loss import FAR, Reference, reference, selective_loss
from w2sd.predictions import Column, Predictions

N = 600


def table(margin: Column) -> Predictions:
    ids = [f"{n:04}" for n in range(len(margin))]
    return Predictions(ids, ids, 1 / (1 + np.exp(-margin.clip(-40, 40))), margin)


@cache
def small_world() -> dict[str, Any]:
    """A weak model that knows half of the pairs, a ceiling that knows all, and four no-conflict students."""
    rng = np.random.default_rng(0)
    weak = np.where(np.arange(N) < N // 2, rng.normal(-0.5, 1.2, N).clip(max=1), rng.normal(3, 1, N).clip(min=1.2))
    belief = 1 + 0.3 * weak + rng.normal(0, 1, N)
    students = [table(belief + rng.normal(0, 0.5, N)) for _ in range(4)]
    return {"weak": table(weak), "ceiling": table(np.full(N, 3.0)), "students": students}


@pytest.fixture
def world() -> dict[str, Any]:
    return small_world()


def made(world: dict[str, Any]) -> Reference:
    return reference(world["weak"], world["ceiling"], world["students"])


@pytest.mark.parametrize(
    ("in_ku", "in_kk", "loss"),
    [(1, 1, 0), (0.5, 1, 1 / 3), (0, 1, 1), (1, 0, -1), (-1, 1, 1), (0.2, 0.6, 0.5), (0, 0, 0)],
)
def test_by_hand(world: dict[str, Any], in_ku: float, in_kk: float, loss: float) -> None:
    found = made(world)
    kept = np.where(found.region == KU, in_ku, in_kk)
    assert selective_loss(found, [table(kept * found.belief)]) == pytest.approx([loss], abs=1e-9)


@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5), imitation=st.floats(-2, 2))
def test_scale_shift_and_imitation_leave_it_as_it_was(scale: float, shift: float, imitation: float) -> None:
    """Also imitation that differs between ku and kk, which no shift and no scale could imitate."""
    world = small_world()
    found = made(world)
    student = world["students"][0].margin * np.where(found.region == KU, 0.7, 1) + 0.2
    other = np.where(found.region == KU, 1.0, 0.3)
    changed = scale * (student + shift + imitation * other * found.weak)
    before, after = selective_loss(found, [table(student), table(changed)])
    assert after == pytest.approx(before, abs=1e-8)


@pytest.mark.parametrize("where", ["alike", "where the weak model is unsure"])
def test_noise_without_a_direction_cancels(world: dict[str, Any], where: str) -> None:
    found, rng = made(world), np.random.default_rng(1)
    p = world["weak"].p_correct
    size = np.ones(N) if where == "alike" else 4 * p * (1 - p)
    student = found.belief * np.where(found.region == KU, 0.7, 1)
    noised = selective_loss(found, [table(student + 2 * size * rng.normal(size=N)) for _ in range(400)])
    [without] = selective_loss(found, [table(student)])
    assert noised.std() > 0.05
    assert noised.mean() == pytest.approx(without, abs=4 * noised.std() / 20)


def test_very_strong_noise_does_not_cancel_in_the_ratio(world: dict[str, Any]) -> None:
    found, rng = made(world), np.random.default_rng(2)
    p = world["weak"].p_correct
    student = found.belief * np.where(found.region == KU, 0.7, 1)
    [without] = selective_loss(found, [table(student)])
    where_unsure, everywhere = (
        selective_loss(found, [table(student + 40 * size * rng.normal(size=N)) for _ in range(400)]).mean()
        for size in (4 * p * (1 - p), np.ones(N))
    )
    assert everywhere < without < where_unsure


def test_pairs_on_which_the_reference_differs_count_less(world: dict[str, Any]) -> None:
    """Of ten pairs in ku that a student gets wrong: it matters less where no-conflict students do not agree."""
    base = made(world).belief
    wrong = np.isin(np.arange(N), np.flatnonzero(base[: N // 2] > 1)[:10])
    apart = np.where(wrong, 3.0, 0.0) * np.array([-1, -1, 1, 1])[:, None]
    agreeing = [table(base + 0.1 * sign) for sign in (-1, -1, 1, 1)]
    differing = [table(base + 0.1 * sign + off) for sign, off in zip((-1, -1, 1, 1), apart, strict=True)]
    student = [table(np.where(wrong, -base, base))]
    losses = [
        selective_loss(reference(world["weak"], world["ceiling"], students), student)[0]
        for students in (agreeing, differing)
    ]
    assert losses[0] > 3 * losses[1] > 0


def test_the_reference(world: dict[str, Any]) -> None:
    found = made(world)
    assert (found.count(KU), found.count(KK)) == (N // 2, N // 2)
    assert found.belief == pytest.approx(np.mean([one.margin for one in world["students"]], axis=0))
    assert np.abs(found.weak).max() <= FAR + 1e-9
    inside = np.abs(world["weak"].margin) < FAR
    assert found.weak[inside] == pytest.approx(world["weak"].margin[inside])
    other = reference(world["weak"], world["ceiling"], world["students"][::-1])
    assert selective_loss(other, world["students"]) == pytest.approx(selective_loss(found, world["students"]))


def test_a_reference_of_equal_students_weighs_pairs_alike(world: dict[str, Any]) -> None:
    found = reference(world["weak"], world["ceiling"], world["students"][:1] * 2)
    assert found.weight.tolist() == [1.0] * N


def test_the_threshold_decides_what_is_known(world: dict[str, Any]) -> None:
    surer = reference(world["weak"], world["ceiling"], world["students"], threshold=0.95)
    assert surer.count(KU) > N // 2
