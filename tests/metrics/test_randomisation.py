"""The randomisation test: exact where that is possible, and right about its level."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2sd.metrics import randomisation
from w2sd.metrics.randomisation import DRAWS, EXACT, least_p, n_relabellings, p_value
from w2sd.predictions import Column


def slow(treated: Sequence[Column], controls: Sequence[Column]) -> float:
    """Every relabelling, one by one."""

    def deals(a: Column, b: Column) -> list[float]:
        both = [*a, *b]
        return [
            float(np.mean([both[n] for n in chosen]) - np.mean([both[n] for n in range(len(both)) if n not in chosen]))
            for chosen in itertools.combinations(range(len(both)), len(a))
        ]

    observed = sum(a.mean() - b.mean() for a, b in zip(treated, controls, strict=True))
    sums = [sum(deal) for deal in itertools.product(*map(deals, treated, controls))]
    return sum(one >= observed - 1e-9 for one in sums) / len(sums)


ARMS = st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=3).map(lambda x: np.array(x, float)), min_size=2)


@given(treated=ARMS.map(lambda arms: arms[:2]), controls=ARMS.map(lambda arms: arms[:2]))
def test_few_relabellings_are_all_tried(treated: list[Column], controls: list[Column]) -> None:
    p = p_value(treated, controls)
    assert p == pytest.approx(slow(treated, controls))
    assert p >= least_p(treated, controls)
    shuffled = [side[::-1] for side in treated], [side[::-1] for side in controls]
    assert p_value(*shuffled) == p


def test_no_more_than_the_level_of_relabellings_is_below_the_level() -> None:
    """Under the null every deal is as likely: counted over all of one world."""
    both = np.random.default_rng(0).normal(size=9)
    deals = list(itertools.combinations(range(9), 4))
    ps = [p_value([both[list(deal)]], [np.delete(both, deal)]) for deal in deals]
    for level in (0.01, 0.05, 0.2):
        assert np.mean([p <= level for p in ps]) <= level
    assert min(ps) == 1 / len(deals) == least_p([both[:4]], [both[4:]])


def test_many_relabellings_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    treated, controls = [rng.normal(0.8, 1, 4) for _ in range(2)], [rng.normal(0, 1, 4) for _ in range(2)]
    assert n_relabellings(treated, controls) == 4900 <= EXACT
    exact = p_value(treated, controls)
    monkeypatch.setattr(randomisation, "EXACT", 4899)
    drawn = p_value(treated, controls)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * (exact / DRAWS) ** 0.5)
    assert drawn == p_value([side[::-1] for side in treated], controls)
    assert least_p(treated, controls) == 1 / (1 + DRAWS)


def test_equal_students_are_no_evidence() -> None:
    same = [np.full(4, 0.1 + 0.2)]
    assert p_value(same, same) == 1
