"""Deception and its nulls: reference vectors V27 to V29, V32, properties, and honest None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from w2sd.metrics import excess_flips as ef
from w2sd.metrics.excess_flips import Cells, Flips, count, excess_flips, flips, number, p_seed, p_spread
from w2sd.metrics.regions import KK, KU, REGIONS, UU, confident_errors, regions
from w2sd.metrics.statistics import interval
from w2sd.metrics.strata import length_bins, margin_bins
from w2sd.predictions import Column

STRONG = [0.95, 0.90, 0.80, 0.78, 0.97, 0.60, 0.85, 0.40, 0.92, 0.76, 0.30, 0.88]
WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
BASELINE = [0.93, 0.88, 0.70, 0.75, 0.60, 0.52, 0.90, 0.45, 0.55, 0.80, 0.65, 0.97]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]
TWIN = [0.90, 0.70, 0.45, 0.80, 0.55, 0.40, 0.92, 0.55, 0.60, 0.78, 0.48, 0.95]

MOVED = flips(BASELINE, STUDENT)
REGION = regions(STRONG, WEAK)
TWO_BINS = np.searchsorted([0.75], BASELINE, side="right")


def one(equation: Callable[[Cells], Column], f: Any, c0: Any, region: Any, strata: Any = None) -> float | None:
    """A figure of the rows themselves; where `region` is flags, they say what is in ku."""
    if np.asarray(region).dtype == bool:
        region = np.where(region, KU, UU)
    return number(equation(count(f, c0, region, strata)))


def own(equation: Callable[[Cells], Column], strata: Any = None) -> Callable[[], float | None]:
    return lambda: one(equation, MOVED.f, MOVED.c0, REGION, strata)


V27: list[tuple[str, Callable[[], float | None], float]] = [
    ("DS", own(ef.score), 0.42857142857142855),
    ("pi0", own(ef.base_rate), 0.45454545454545453),
    ("lift", own(ef.lift), 0.9428571428571428),
    ("excess", own(ef.excess), -0.025974025974025983),
    ("p_region", lambda: p_spread(count(MOVED.f, MOVED.c0, REGION)), 0.803030303030303),
    ("risk ratio", own(ef.risk_ratio), 0.9),
    ("odds ratio", own(ef.odds_ratio), 0.7777777777777778),
    ("rate ratio", own(ef.rate_ratio), 1.2),
    ("DS_margin", own(ef.matched, TWO_BINS), 0.4857142857142857),
    ("excess flips", own(excess_flips), -2 / 11),
    ("in two bins", own(excess_flips, TWO_BINS), -0.4),
]
V29 = [
    (0.75, 0.60, (3, 6)),  # confidently wrong and weak uncertain, weak uncertain
    (0.75, 0.55, (3, 6)),
    (0.60, 0.60, (1, 2)),
]


def simulated(n: int, seed: int, n_strata: int = 6) -> tuple[Flips, Any, Any]:
    """Flips and regions that have nothing to do with one another, and strata."""
    rng = np.random.default_rng(seed)
    moved = flips(rng.beta(2, 1, n), rng.beta(2, 1, n))
    return moved, regions(rng.beta(3, 1, n), rng.beta(2, 1, n)), rng.integers(n_strata, size=n)


@pytest.mark.parametrize(("name", "figure", "expected"), V27, ids=[name for name, *_ in V27])
def test_the_worked_example(name: str, figure: Callable[[], float | None], expected: float) -> None:
    assert figure() == pytest.approx(expected, abs=1e-9)


def test_flips_of_the_worked_example() -> None:
    assert set(np.flatnonzero(MOVED.f)) == {1, 2, 3, 5, 8, 10, 11}
    assert set(np.flatnonzero(MOVED.g)) == {7}  # 0.50 counts as right
    assert MOVED.c0.sum() == 11


def test_the_bootstrap_of_the_worked_example() -> None:
    drawn = np.random.default_rng(0)
    rows = np.array([drawn.integers(0, 12, 12) for _ in range(2000)])
    weights = np.array([np.bincount(row, minlength=12) for row in rows], dtype=np.int8).T
    shares = ef.score(count(MOVED.f, MOVED.c0, REGION, None, weights))
    lo, hi = interval(shares)
    assert (lo, np.isnan(shares).sum()) == (0, 0)
    assert hi == pytest.approx(0.8333333333, abs=1e-9)


def cells(moved: Flips, region: Any = REGION) -> Cells:
    return count(moved.f, moved.c0, region)


def test_the_seed_null() -> None:
    student, twin = cells(MOVED), cells(flips(BASELINE, TWIN))
    null = ef.seed_null(student, [twin])
    figures = [number(null[name]) for name in ("seed_null", "excess_phi", "net_score")]
    assert figures == pytest.approx([1 / 3, 0.4, 0.5], abs=1e-9)
    assert p_seed(student, [twin]) == 0.5
    assert number(ef.did(student, [twin])) == pytest.approx(0.1 - (1 / 5 - 0), abs=1e-12)


@pytest.mark.parametrize(("weak_at", "student_at", "expected"), V29)
def test_blind_spots(weak_at: float, student_at: float, expected: tuple[int, int]) -> None:
    wrong, uncertain = confident_errors(WEAK, STUDENT, weak_at, student_at)
    assert ((wrong & uncertain).sum(), uncertain.sum()) == expected


@pytest.mark.parametrize("n_strata", [1, 6])
def test_the_exact_p_is_what_shuffling_within_strata_gives(n_strata: int) -> None:
    (c0, f, _), region, strata = simulated(400, 1, n_strata)
    ku, rng, draws = region == KU, np.random.default_rng(2), 10_000
    inside = np.zeros(draws, dtype=np.int64)
    for stratum in range(n_strata):
        n, k, drawn = ((rows & (strata == stratum)).sum() for rows in (c0, c0 & ku, f))
        inside += rng.hypergeometric(k, n - k, drawn, size=draws)
    p = p_spread(count(f, c0, region, strata))
    simulated_p = (inside >= (f & ku).sum()).mean()
    assert p == pytest.approx(simulated_p, abs=4 * np.sqrt(0.25 / draws))


def test_hypergeometric_chances_sum_to_one_and_have_the_right_mean() -> None:
    for n, k, draws in [
        (4000, 1800, 600),
        (5, 5, 2),
        (5, 0, 2),
        (9, 4, 9),
        (9, 4, 0),
        (0, 0, 0),
        (10**6, 10**5, 10**4),
    ]:
        least, chances = ef.hypergeometric(n, k, draws)
        assert chances.sum() == pytest.approx(1, abs=1e-12)
        mean = ((least + np.arange(len(chances))) * chances).sum()
        assert mean == pytest.approx(draws * k / n if n else 0, rel=1e-9)


def test_shuffled_flips_have_the_base_rate_as_their_mean_score() -> None:
    (c0, f, _), region, _ = simulated(600, 3)
    ku, rng, right = region == KU, np.random.default_rng(4), np.flatnonzero(c0)
    scores = []
    for _ in range(3000):
        shuffled = np.zeros_like(f)
        shuffled[rng.permutation(right)[: f.sum()]] = True
        scores.append((shuffled & ku).sum() / f.sum())
    assert one(ef.score, shuffled, c0, ku) == scores[-1]
    assert np.mean(scores) == pytest.approx(one(ef.base_rate, f, c0, ku), abs=4 * np.std(scores) / np.sqrt(3000))


def test_lift_is_near_one_where_there_is_no_structure() -> None:
    lifts = []
    for seed in range(200):
        (c0, f, _), region, _ = simulated(2000, seed)
        lifts.append(one(ef.lift, f, c0, region))
    assert np.mean(lifts) == pytest.approx(1, abs=4 * np.std(lifts) / np.sqrt(200))
    assert np.std(lifts) < 0.1


def test_the_order_of_rows_does_not_matter() -> None:
    (c0, f, _), region, strata = simulated(500, 5)
    order = np.random.default_rng(6).permutation(500)
    counted, again = count(f, c0, region, strata), count(f[order], c0[order], region[order], strata[order])
    assert all((one == other).all() for one, other in zip(counted, again, strict=True))


def test_one_stratum_adjusts_for_nothing() -> None:
    (c0, f, _), region, _ = simulated(500, 8)
    plain = count(f, c0, region)
    assert number(excess_flips(plain)) == pytest.approx((number(ef.excess(plain)) or 0) * f.sum(), abs=1e-9)
    assert ef.matched(plain) == pytest.approx(ef.base_rate(plain), abs=1e-12)
    assert ef.rate_ratio_mh(plain) == pytest.approx(ef.rate_ratio(plain), abs=1e-12)
    assert all((a == b).all() for a, b in zip(plain, count(f, c0, region, np.zeros(500, dtype=int)), strict=True))


def test_what_is_in_excess_in_one_region_is_missing_in_the_others() -> None:
    (c0, f, _), region, strata = simulated(500, 9)
    excess = [one(excess_flips, f, c0, region == code, strata) for code in range(len(REGIONS))]
    assert np.abs(excess).max() > 1
    assert sum(value or 0 for value in excess) == pytest.approx(0, abs=1e-9)


def test_flips_that_follow_difficulty_alone_have_no_excess() -> None:
    """Half of each hard row's kind flips, a tenth of each easy one's; the region is most of the hard rows."""
    hard = np.repeat([True, False], 100)
    region = np.where(np.concatenate([np.arange(100) < 80, np.arange(100) < 20]), KU, KK)
    f = np.concatenate([np.arange(100) % 2 == 0, np.arange(100) % 10 == 0])
    adjusted, plain = (count(f, np.ones(200, dtype=bool), region, strata) for strata in (hard.astype(int), None))
    assert number(excess_flips(adjusted)) == pytest.approx(0, abs=1e-12)
    assert (number(excess_flips(plain)) or 0) > 10
    assert number(ef.rate_ratio_mh(adjusted)) == pytest.approx(1, abs=1e-12)
    assert (number(ef.rate_ratio(adjusted)) or 0) > 1.5


def test_the_mantel_haenszel_ratio_by_hand() -> None:
    # Two strata: ku 3 of 5 and 1 of 10, kk 2 of 10 and 1 of 20.
    counts = [(0, KU, 3, 5), (1, KU, 1, 10), (0, 0, 2, 10), (1, 0, 1, 20)]
    stratum = np.concatenate([[b] * n for b, _, _, n in counts])
    region = np.concatenate([[r] * n for _, r, _, n in counts])
    f = np.concatenate([np.arange(n) < flipped for _, _, flipped, n in counts])
    expected = (3 * 10 / 15 + 1 * 20 / 30) / (2 * 5 / 15 + 1 * 10 / 30)
    assert one(ef.rate_ratio_mh, f, np.ones(45, dtype=bool), region, stratum) == pytest.approx(expected, abs=1e-12)


def test_length_strata_take_the_length_shortcut_out() -> None:
    """Rows whose better answer is longer flip, and ku is made of them: all of it is length."""
    rng = np.random.default_rng(10)
    length = rng.integers(-9, 10, size=900)
    baseline = np.full(900, 0.8)
    student = np.where(length > 3, 0.2, 0.8)
    moved, ku = flips(baseline, student), length > 3
    terciles = one(ef.matched, moved.f, moved.c0, ku, length_bins(baseline, length, moved.c0))
    margins = one(ef.matched, moved.f, moved.c0, ku, margin_bins(baseline))
    assert terciles is not None
    assert margins is not None
    assert terciles > 2 * margins


RATIOS = (ef.risk_ratio, ef.odds_ratio, ef.rate_ratio, ef.rate_ratio_mh)


@pytest.mark.parametrize("p_correct", [0.9, 0.5, 0.1])
def test_equal_confidences_everywhere_are_measured(p_correct: float) -> None:
    moved, region = flips([p_correct] * 5, [p_correct] * 5), np.full(5, KU)
    counted = cells(moved, region)
    right = 1.0 if p_correct >= 0.5 else None
    assert number(ef.base_rate(counted)) == right
    assert number(excess_flips(counted)) == (0.0 if right else None)
    for equation in (ef.score, ef.lift, ef.excess, ef.matched, *RATIOS):
        assert one(equation, moved.f, moved.c0, region, np.arange(5)) is None
    assert p_spread(counted) is p_seed(counted, [counted]) is number(ef.did(counted, [counted])) is None
    null = ef.seed_null(counted, [counted])
    assert (number(null["seed_null"]), number(null["net_score"])) == (None, None)


def test_an_empty_region_has_no_ratio() -> None:
    counted = count(np.array([True, False, False]), np.ones(3, dtype=bool), np.array([0, 0, 3]))
    assert [number(figure(counted)) for figure in (ef.score, ef.base_rate, ef.lift, ef.excess)] == [0, 0, None, 0]
    assert p_spread(counted) == 1
    assert [number(figure(counted)) for figure in (*RATIOS, excess_flips)] == [None] * 5
    assert number(ef.did(counted, [counted])) is None


def test_seeds_that_flip_nothing_are_not_counted() -> None:
    nothing = cells(flips(BASELINE, BASELINE))
    assert p_seed(cells(MOVED), []) is None
    assert p_seed(cells(MOVED), [nothing]) == 1
    assert p_seed(cells(MOVED), [nothing, cells(MOVED), cells(flips(BASELINE, TWIN))]) == 2 / 3


def test_a_student_that_flips_less_than_its_twins_has_no_net_score() -> None:
    assert number(ef.seed_null(cells(flips(BASELINE, TWIN)), [cells(MOVED)])["net_score"]) is None
