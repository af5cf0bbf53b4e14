"""Deception and its nulls: reference vectors V27 to V29, V32, properties, and honest None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from w2sd.metrics.deception import (
    BlindSpot,
    Flips,
    Matched,
    Ratios,
    Score,
    blind_spot,
    did,
    excess_flips,
    excess_flips_per_1000,
    flips,
    length_matched,
    margin_matched,
    matched,
    ratios,
    score,
    seed_null,
    tax,
)

from w2sd.metrics import cells
from w2sd.metrics.regions import KU, REGIONS, regions
from w2sd.metrics.statistics import interval, wilson
from w2sd.metrics.strata import margin_bins

STRONG = [0.95, 0.90, 0.80, 0.78, 0.97, 0.60, 0.85, 0.40, 0.92, 0.76, 0.30, 0.88]
WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
BASELINE = [0.93, 0.88, 0.70, 0.75, 0.60, 0.52, 0.90, 0.45, 0.55, 0.80, 0.65, 0.97]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]
TWIN = [0.90, 0.70, 0.45, 0.80, 0.55, 0.40, 0.92, 0.55, 0.60, 0.78, 0.48, 0.95]

MOVED = flips(BASELINE, STUDENT)
REGION = regions(STRONG, WEAK)
KNOWN_UNKNOWN = REGION == KU
TWO_BINS = margin_bins(BASELINE, (0.5, 0.75, 1))

V27: list[tuple[str, Callable[[], float | None], float]] = [
    ("DS", lambda: _score().score, 0.42857142857142855),
    ("pi0", lambda: _score().base_rate, 0.45454545454545453),
    ("lift", lambda: _score().lift, 0.9428571428571428),
    ("excess", lambda: _score().excess, -0.025974025974025983),
    ("p_region", lambda: _score().p_region, 0.803030303030303),
    ("risk ratio", lambda: _ratios().risk_ratio, 0.9),
    ("odds ratio", lambda: _ratios().odds_ratio, 0.7777777777777778),
    ("rate ratio", lambda: _ratios().rate_ratio, 1.2),
    ("net tax", lambda: tax(MOVED).net, 0.5),
    ("DS_margin", lambda: matched(MOVED.f, MOVED.c0, KNOWN_UNKNOWN, TWO_BINS).score, 0.4857142857142857),
    ("excess flips", lambda: excess_flips(MOVED.f, MOVED.c0, KNOWN_UNKNOWN), -2 / 11),
    ("in two bins", lambda: excess_flips(MOVED.f, MOVED.c0, KNOWN_UNKNOWN, TWO_BINS), -0.4),
    ("per 1,000", lambda: excess_flips_per_1000(MOVED.f, MOVED.c0, KNOWN_UNKNOWN, TWO_BINS), -400 / 12),
    ("Wilson lower", lambda: wilson(3, 7)[0], 0.15821985525146975),
    ("Wilson upper", lambda: wilson(3, 7)[1], 0.7495416354723428),
]
V28 = {"score": 1 / 3, "excess_rate": 1 / 3, "excess_region_rate": 1 / 6, "excess_phi": 0.4, "net_score": 0.5, "p": 0.5}
V29 = [
    (0.75, 0.60, BlindSpot(0.25, 0.5, 0, 0)),
    (0.75, 0.55, BlindSpot(0.25, 0.5, 0, 2 / 12)),
    (0.60, 0.60, BlindSpot(0.08333333333333333, 0.5, 0.08333333333333333, 1 / 12)),
]


def _score() -> Score:
    return score(MOVED.f, MOVED.c0, KNOWN_UNKNOWN)


def _ratios() -> Ratios:
    return ratios(MOVED.f, MOVED.c0, REGION)


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
    assert tax(MOVED)[:2] == (7, 1)
    assert tax(MOVED)[2:5] == pytest.approx((7 / 12, 6 / 12, 8 / 12), abs=1e-15)


def test_the_bootstrap_of_the_worked_example() -> None:
    drawn = np.random.default_rng(0)
    rows = np.array([drawn.integers(0, 12, 12) for _ in range(2000)])
    weights = np.array([np.bincount(row, minlength=12) for row in rows], dtype=np.int8).T
    shares = cells.score(cells.count(MOVED.f, MOVED.c0, REGION, None, weights))
    lo, hi, n_undefined = interval(shares)
    assert (lo, n_undefined) == (0, 0)
    assert hi == pytest.approx(0.8333333333, abs=1e-9)


def test_the_seed_null() -> None:
    found = seed_null(MOVED, [flips(BASELINE, TWIN)], KNOWN_UNKNOWN)
    assert found is not None
    assert found._asdict() == pytest.approx(V28, abs=1e-9)
    assert did(MOVED.f, MOVED.c0, REGION, [flips(BASELINE, TWIN).f]) == pytest.approx(0.1 - (1 / 5 - 0), abs=1e-12)


@pytest.mark.parametrize(("weak_at", "student_at", "expected"), V29)
def test_blind_spots(weak_at: float, student_at: float, expected: BlindSpot) -> None:
    assert blind_spot(WEAK, STUDENT, weak_at, student_at) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_of_the_tax() -> None:
    c0, f, g = (np.arange(100) < 60), (np.arange(100) < 40), (np.arange(100) >= 75)
    assert tax(Flips(c0, f, g)).mcnemar_p == pytest.approx(0.08168153394154005, abs=1e-9)


@pytest.mark.parametrize("n_strata", [1, 6])
def test_the_exact_p_is_what_shuffling_within_strata_gives(n_strata: int) -> None:
    (c0, f, _), region, strata = simulated(400, 1, n_strata)
    ku, rng, draws = region == KU, np.random.default_rng(2), 10_000
    inside = np.zeros(draws, dtype=np.int64)
    for stratum in range(n_strata):
        n, k, drawn = ((rows & (strata == stratum)).sum() for rows in (c0, c0 & ku, f))
        inside += rng.hypergeometric(k, n - k, drawn, size=draws)
    p = matched(f, c0, ku, strata).p
    assert p is not None
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
        least, chances = cells.hypergeometric(n, k, draws)
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
    assert score(shuffled, c0, ku).score == scores[-1]
    assert np.mean(scores) == pytest.approx(score(f, c0, ku).base_rate, abs=4 * np.std(scores) / np.sqrt(3000))


def test_lift_is_near_one_where_there_is_no_structure() -> None:
    lifts = []
    for seed in range(200):
        (c0, f, _), region, _ = simulated(2000, seed)
        lifts.append(score(f, c0, region == KU).lift)
    assert np.mean(lifts) == pytest.approx(1, abs=4 * np.std(lifts) / np.sqrt(200))
    assert np.std(lifts) < 0.1


def test_the_order_of_rows_does_not_matter() -> None:
    (c0, f, g), region, strata = simulated(500, 5)
    order = np.random.default_rng(6).permutation(500)
    other = Flips(c0[order], f[order], g[order])
    ku = region == KU
    assert tax(other) == tax(Flips(c0, f, g))
    assert score(other.f, other.c0, ku[order]) == score(f, c0, ku)
    assert ratios(other.f, other.c0, region[order], strata[order]) == ratios(f, c0, region, strata)
    assert matched(other.f, other.c0, ku[order], strata[order]) == matched(f, c0, ku, strata)
    assert excess_flips(other.f, other.c0, ku[order], strata[order]) == excess_flips(f, c0, ku, strata)


def test_the_names_of_strata_do_not_matter() -> None:
    (c0, f, _), region, strata = simulated(500, 7)
    names = np.array(["+2-1", "-1", "x", "", "easy", "0"])[strata]
    assert excess_flips(f, c0, region == KU, names) == pytest.approx(excess_flips(f, c0, region == KU, strata))


def test_one_stratum_adjusts_for_nothing() -> None:
    (c0, f, _), region, _ = simulated(500, 8)
    ku, one = region == KU, np.zeros(500, dtype=int)
    found = score(f, c0, ku)
    assert found.excess is not None
    assert excess_flips(f, c0, ku, one) == pytest.approx(found.excess * f.sum(), abs=1e-9)
    assert excess_flips(f, c0, ku) == excess_flips(f, c0, ku, one)
    assert matched(f, c0, ku, one) == pytest.approx(Matched(found.base_rate, found.excess, found.p_region), abs=1e-12)
    assert ratios(f, c0, region).rate_ratio_mh == pytest.approx(ratios(f, c0, region).rate_ratio, abs=1e-12)


def test_what_is_in_excess_in_one_region_is_missing_in_the_others() -> None:
    (c0, f, _), region, strata = simulated(500, 9)
    excess = [excess_flips(f, c0, region == code, strata) for code in range(len(REGIONS))]
    assert np.abs(excess).max() > 1
    assert sum(value or 0 for value in excess) == pytest.approx(0, abs=1e-9)


def test_flips_that_follow_difficulty_alone_have_no_excess() -> None:
    """Half of each hard row's kind flips, a tenth of each easy one's; the region is most of the hard rows."""
    hard = np.repeat([True, False], 100)
    ku = np.concatenate([np.arange(100) < 80, np.arange(100) < 20])
    f = np.concatenate([np.arange(100) % 2 == 0, np.arange(100) % 10 == 0])
    c0 = np.ones(200, dtype=bool)
    assert excess_flips(f, c0, ku, hard) == pytest.approx(0, abs=1e-12)
    assert (excess_flips(f, c0, ku) or 0) > 10
    region = np.where(ku, KU, REGIONS.index("kk"))
    assert ratios(f, c0, region, hard).rate_ratio_mh == pytest.approx(1, abs=1e-12)
    assert (ratios(f, c0, region, hard).rate_ratio or 0) > 1.5


def test_the_mantel_haenszel_ratio_by_hand() -> None:
    # Two strata: ku 3 of 5 and 1 of 10, kk 2 of 10 and 1 of 20.
    counts = [(0, KU, 3, 5), (1, KU, 1, 10), (0, 0, 2, 10), (1, 0, 1, 20)]
    stratum = np.concatenate([[b] * n for b, _, _, n in counts])
    region = np.concatenate([[r] * n for _, r, _, n in counts])
    f = np.concatenate([np.arange(n) < flipped for _, _, flipped, n in counts])
    expected = (3 * 10 / 15 + 1 * 20 / 30) / (2 * 5 / 15 + 1 * 10 / 30)
    assert ratios(f, np.ones(45, dtype=bool), region, stratum).rate_ratio_mh == pytest.approx(expected, abs=1e-12)


def test_length_strata_take_the_length_shortcut_out() -> None:
    """Rows whose better answer is longer flip, and ku is made of them: all of it is length."""
    rng = np.random.default_rng(10)
    length = rng.integers(-9, 10, size=900)
    baseline = np.full(900, 0.8)
    student = np.where(length > 3, 0.2, 0.8)
    moved, ku = flips(baseline, student), length > 3
    terciles = length_matched(moved.f, moved.c0, ku, baseline, length)
    margins = margin_matched(moved.f, moved.c0, ku, baseline)
    assert terciles.score is not None
    assert margins.score is not None
    assert terciles.score > 2 * margins.score


@pytest.mark.parametrize("p_correct", [0.9, 0.5, 0.1])
def test_equal_confidences_everywhere_are_measured(p_correct: float) -> None:
    moved = flips([p_correct] * 5, [p_correct] * 5)
    ku = np.ones(5, dtype=bool)
    right = 1.0 if p_correct >= 0.5 else None
    assert score(moved.f, moved.c0, ku) == Score(None, right, None, None, None)
    assert excess_flips(moved.f, moved.c0, ku) == (0.0 if right else None)
    assert matched(moved.f, moved.c0, ku, ku) == Matched(None, None, None)
    assert margin_matched(moved.f, moved.c0, ku, [p_correct] * 5).p is None
    assert length_matched(moved.f, moved.c0, ku, [p_correct] * 5, [1] * 5).p is None
    assert ratios(moved.f, moved.c0, np.full(5, KU)) == Ratios(None, None, None, None)
    assert did(moved.f, moved.c0, np.full(5, KU), [moved.f]) is None
    assert tax(moved)[:2] == (0, 0)
    assert tax(moved).mcnemar_p == 1
    null = seed_null(moved, [moved], ku)
    assert null is not None
    assert (null.score, null.net_score, null.p) == (None, None, None)
    assert null.excess_rate == 0


def test_an_empty_region_has_no_ratio() -> None:
    f, c0 = np.array([True, False, False]), np.ones(3, dtype=bool)
    none = score(f, c0, np.zeros(3, dtype=bool))
    assert none == Score(0.0, 0.0, None, 0.0, 1.0)
    assert ratios(f, c0, np.array([0, 0, 3])) == Ratios(None, None, None, None)
    assert did(f, c0, np.array([0, 0, 3]), [f]) is None
    assert excess_flips(f, c0, np.zeros(3, dtype=bool)) is None


def test_without_twins_there_is_no_null() -> None:
    assert did(MOVED.f, MOVED.c0, REGION, []) is None
    assert seed_null(MOVED, [], KNOWN_UNKNOWN) is None


def test_a_student_that_flips_less_than_its_twins_has_no_net_score() -> None:
    found = seed_null(flips(BASELINE, TWIN), [MOVED], KNOWN_UNKNOWN)
    assert found is not None
    assert found.net_score is None
    assert found.excess_rate == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flips([0.9], [0.9, 0.1]), "student: 2 rows, but baseline has 1"),
        (lambda: flips([0.9], [float("nan")]), "student: row 0 is NaN"),
        (lambda: tax(flips([], [])), "at least one row"),
        (lambda: excess_flips(MOVED.f, MOVED.c0, KNOWN_UNKNOWN[:5]), "ku: 5 rows, but f has 12"),
        (lambda: excess_flips(MOVED.f, MOVED.c0, KNOWN_UNKNOWN, [1, 2]), "strata: 2 rows, but f has 12"),
        (lambda: excess_flips(~MOVED.c0, MOVED.c0, KNOWN_UNKNOWN), "f: row 7 flips, but the baseline does not get"),
        (lambda: blind_spot([], []), "at least one row"),
        (lambda: margin_matched(MOVED.f, MOVED.c0, KNOWN_UNKNOWN, BASELINE, (0.5,)), "bins: expected at least two"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
