"""The verdict on designs small enough to count by hand, its draws against slow ones, and why there may be none."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.builders import refused

from verdict_errors import NULLS, PLANTED, Scenario, Study, draw
from w2sd.metrics import replicates as replicates_module
from w2sd.metrics.replicates import NULL, STUDENT, Replicate, count_world, two_level
from w2sd.metrics.statistics import Column, interval, t_quantile, t_tail
from w2sd.metrics.verdict import FALSE_EXCESS, MIN_FLIPS, Verdict, holm, judge, trend
from w2sd.predictions import Predictions

N = 1000  # pairs of which the first half is ku, the second kk


def table(wrong: Sequence[int] = (), clusters: Sequence[str] | None = None, n: int = N) -> Predictions:
    """A model that is right and sure but for some rows."""
    p = np.full(n, 0.9)
    p[list(wrong)] = 0.2
    ids = [f"{i:04}" for i in range(n)]
    return Predictions(ids, list(clusters or ids), p, np.log(p / (1 - p)))


def replicate(
    seed: int,
    *,
    ku: int = 60,
    kk: int = 20,
    control: tuple[int, int] = (10, 10),
    twin: tuple[int, int] = (0, 0),
    without: Sequence[str] = (),
    world: str = "w",
) -> Replicate:
    """A student that flips `ku` pairs of ku and `kk` of kk; every control flips `control` of them, and
    every twin `twin`. One stratum."""
    half = N // 2

    def flipping(in_ku: int, in_kk: int) -> Predictions:
        return table([(7 * seed + i) % half + part for part, k in ((0, in_ku), (half, in_kk)) for i in range(k)])

    weak = table(range(N // 2))
    roles = {"weak": weak, "ceiling": table(), "baseline": table(), "student": flipping(ku, kk)}
    roles |= {role: flipping(*control) for role in ("placebo/more_data", "placebo/unrelated", "gold_conflict")}
    roles |= {f"twin_{n}": flipping(*twin) for n in (1, 2, 3)} | {"gold_baseline": table()}
    kept = {role: rows for role, rows in roles.items() if not any(role.startswith(gone) for gone in without)}
    return Replicate(world, str(seed), kept, np.zeros(N, dtype=np.intp))


def varied(extra: Sequence[int] = (0, 3, 1, 2), **settings: object) -> list[Replicate]:
    return [replicate(seed, ku=60 + more, **settings) for seed, more in enumerate(extra)]  # type: ignore[arg-type]


def test_figures_by_hand() -> None:
    verdict = judge(varied(control=(12, 8)))
    # half of what flips is expected in ku: (60 - 20) / 2, and so on; a control has (12 - 8) / 2
    assert verdict.excess_flips == pytest.approx((20 + 21.5 + 20.5 + 21) / 4)
    assert verdict.nulls == {name: pytest.approx(2) for name in ("more_data", "unrelated", "gold_conflict")} | {
        "twins": 0
    }
    assert verdict.margin == pytest.approx(20.75 - 2)
    assert verdict.flips == pytest.approx(81.5)
    assert verdict.floor == pytest.approx(FALSE_EXCESS * 81.5)
    error = float(np.std([20, 21.5, 20.5, 21], ddof=1)) / 2
    assert verdict.t == pytest.approx(18.75 / error)
    assert verdict.t_needed == pytest.approx(3.182446305284)
    assert verdict.margin_lo == pytest.approx(18.75 - 3.182446305284 * error)
    assert (verdict.n_worlds, verdict.n_seeds, verdict.result) == (1, 4, "shown")
    assert verdict.p is not None
    assert verdict.p < 0.05


def test_largest_control_is_taken_in_each_replicate_and_not_of_the_means() -> None:
    replicates = []
    for seed, one in enumerate(varied()):
        arms = dict(one.predictions)
        arms["gold_conflict" if seed % 2 else "placebo/unrelated"] = table(range(30))  # 15 excess flips
        replicates.append(one._replace(predictions=arms))
    verdict = judge(replicates)
    assert verdict.nulls["gold_conflict"] == verdict.nulls["unrelated"] == pytest.approx(7.5)
    assert verdict.margin == pytest.approx(20.75 - 15)


def test_seeds_of_a_world_are_averaged_before_the_largest_control_is_taken() -> None:
    replicates = []
    for world in range(4):
        for seed, one in enumerate(varied((world, world, world, world), world=f"w{world}")):
            arms = dict(one.predictions)
            arms["gold_conflict" if seed % 2 else "placebo/unrelated"] = table(range(30))
            replicates.append(one._replace(predictions=arms))
    verdict = judge(replicates)
    assert (verdict.n_worlds, verdict.n_seeds) == (4, 16)
    assert verdict.margin == pytest.approx(20 + 0.75 - 7.5)
    assert verdict.t_needed == pytest.approx(t_quantile(3))


@pytest.mark.parametrize(
    ("settings", "result", "says"),
    [
        ({}, "shown", "clear the floor"),
        ({"control": (60, 20)}, "not_shown", "but 0.8 over the largest control"),
        ({"kk": 55}, "not_shown", "do not clear the floor"),
        ({"kk": 300}, "not_shown", "do not clear the floor"),
    ],
)
def test_both_conditions_are_needed(settings: Mapping[str, object], result: str, says: str) -> None:
    verdict = judge(varied(**settings))
    assert verdict.result == result
    assert says in verdict.reason
    assert verdict.needs == ""
    assert verdict.p is not None
    assert (verdict.p < 0.05) is (result == "shown")


def test_an_effect_within_the_error_of_the_instrument_is_not_shown() -> None:
    verdict = judge([replicate(seed, ku=484 + seed % 3, kk=415, control=(0, 0)) for seed in range(2, 10)])
    assert verdict.t is not None
    assert verdict.t_needed is not None
    assert verdict.excess_flips_lo is not None
    assert verdict.floor is not None
    assert verdict.t > verdict.t_needed
    assert 0 < verdict.excess_flips_lo < verdict.floor
    assert verdict.result == "not_shown"


@pytest.mark.parametrize(
    ("replicates", "reason", "needs"),
    [
        (varied()[:1], "1 seed, where 4 are needed", "3 more seeds with all arms"),
        (varied()[:3], "3 seeds, where 4 are needed", "1 more seed with all arms"),
        (
            [one._replace(world=f"w{n % 2}") for n, one in enumerate(varied())],
            "2 worlds, where 4 are needed",
            "2 more worlds with all arms",
        ),
        (varied(without=["placebo"]), "no placebo", "a placebo for each student"),
        (varied(without=["gold"]), "no gold + conflict", "gold + conflict for each student"),
        (varied(without=["twin"]), "no seed twins", "3 seed twins for each student"),
        (
            [*varied()[:3], replicate(3, without=["placebo/unrelated"])],
            "no placebo unrelated in 1 of 4 replicates",
            "placebo unrelated for each student",
        ),
        (varied((0, 0, 0, 0)), "replicates that do not differ", "students that were trained with different seeds"),
        (varied((-60, -59, -60, -60)), f"20 flips per student, where {MIN_FLIPS} are needed", "about 976 more pairs"),
        (
            varied((-60, -60, -60, -60), kk=0),
            f"0 flips per student, where {MIN_FLIPS} are needed",
            "a stronger conflict",
        ),
    ],
)
def test_what_cannot_be_tested_says_what_to_run(replicates: list[Replicate], reason: str, needs: str) -> None:
    verdict = judge(replicates)
    assert verdict.result == "not_testable"
    assert reason in verdict.reason.split("; ")
    assert needs in verdict.needs.split("; ")


def test_difficulty_is_told_by_three_twins_or_by_true_strata() -> None:
    blind = [one._replace(strata=None) for one in varied(without=["twin_3"])]
    verdict = judge(blind)
    assert (verdict.result, verdict.excess_flips, verdict.margin) == ("not_testable", None, None)
    assert "difficulty is told by true strata or 3 twins, here 2" in verdict.reason
    assert verdict.needs == "3 seed twins for each student"
    few = judge(varied(without=["twin_3"]))  # the true strata are known; how many to average over is part of the rule
    assert (few.result, few.reason, few.needs) == (
        "not_testable",
        "fewer than 3 seed twins",
        "3 seed twins for each student",
    )


def test_a_control_that_cannot_be_measured_does_not_drop_out() -> None:
    dead = [one._replace(predictions={**one.predictions, "gold_baseline": table(range(N))}) for one in varied()]
    verdict = judge(dead)
    assert verdict.result == "not_testable"
    assert verdict.reason == "gold_conflict cannot be measured: what it departs from gets nothing right"
    assert verdict.needs == "students that learn"


def test_one_cluster_and_an_empty_region_are_no_errors_of_numpy() -> None:
    one_cluster = [
        one._replace(predictions={role: rows._replace(clusters=["c"] * N) for role, rows in one.predictions.items()})
        for one in varied()
    ]
    verdict = judge(one_cluster)
    assert verdict.result == "not_testable"
    assert verdict.reason == "one cluster, which says nothing about errors"
    assert (verdict.excess_flips_lo, verdict.t) == (None, None)

    sure = [one._replace(predictions={**one.predictions, "weak": table()}) for one in varied()]
    assert (
        "no pair that the baseline gets right is known to the ceiling and not to the weak model" in judge(sure).reason
    )

    flat = table()._replace(p_correct=np.full(N, 0.5), margin=np.zeros(N))
    same = [one._replace(predictions=dict.fromkeys(one.predictions, flat), strata=None) for one in varied()]
    assert judge(same).result == "not_testable"


def test_replicates_of_a_world_have_the_same_pairs() -> None:
    replicates = varied()
    other = {role: rows._replace(ids=[f"x{id}" for id in rows.ids]) for role, rows in replicates[2].predictions.items()}
    replicates[2] = replicates[2]._replace(predictions=other)
    with refused("w/2.weak.id"):
        judge(replicates)
    with refused("replicates", 0):
        judge([])


def test_metrics_are_flat() -> None:
    metrics = judge(varied()).metrics()
    assert metrics["verdict/result"] == "shown"
    assert {"verdict/reason", "verdict/needs", "verdict/null/twins", "verdict/excess_flips_lo"} <= set(metrics)
    assert Verdict("not_testable", "no data").metrics()["verdict/excess_flips"] is None


def test_neither_the_order_of_rows_nor_of_replicates_matters_to_the_figures() -> None:
    replicates = draw(PLANTED[2], Study(4, 4, 300), (1,))
    order = np.random.default_rng(0).permutation(300)

    def shuffled(rows: Predictions) -> Predictions:
        ids = [rows.ids[i] for i in order]
        return Predictions(ids, ids, rows.p_correct[order], rows.margin[order])

    turned = [
        one._replace(predictions={role: shuffled(rows) for role, rows in one.predictions.items()})
        for one in reversed(replicates)
    ]
    there, again = judge(replicates, n_resamples=200), judge(turned, n_resamples=200)
    for name in ("excess_flips", "flips", "floor", "margin", "t"):
        assert getattr(there, name) == pytest.approx(getattr(again, name), rel=1e-12), name
    assert judge(replicates, n_resamples=200) == there


def test_a_twin_is_judged_by_strata_of_the_three_other_students() -> None:
    one = draw(NULLS[0], Study(1, 4, 400), (5,))[0]
    twins = ("twin_1", "twin_2", "twin_3")
    (count,) = count_world("w", [one], 0.75, 10, (0,)).counts
    alone = []
    for twin in twins:  # as a student whose first two twins are the two others, and whose third is itself: no flips
        first, second = (one.predictions[role] for role in twins if role != twin)
        arms = {role: one.predictions[role] for role in ("weak", "ceiling", "baseline")}
        arms |= {"student": one.predictions[twin], "twin_1": first, "twin_2": second, "twin_3": one.predictions[twin]}
        (judged,) = count_world("w", [one._replace(predictions=arms)], 0.75, 10, (0,)).counts
        alone.append(judged.excess[STUDENT])
    expected = 4 / 3 * np.mean([value for value in alone if value is not None])
    assert count.excess[f"{NULL}twins"] == pytest.approx(expected)


def slow_draws(world: list[Replicate], n: int, rng: np.random.Generator) -> Column:
    """Seeds and pairs of one world resampled by copying rows."""
    means = []
    for _ in range(n):
        rows = rng.integers(len(world[0].predictions["weak"].ids), size=len(world[0].predictions["weak"].ids))
        values = []
        for seed in rng.integers(len(world), size=len(world)):
            arms, strata = world[seed].predictions, np.asarray(world[seed].strata)[rows]
            p = {role: table.p_correct[rows] for role, table in arms.items()}
            ku = (p["ceiling"] >= 0.75) & (p["weak"] < 0.75)
            for base in (role for role in p if role == "baseline" or role.startswith("twin_")):
                right, ends = p[base] >= 0.5, p["student"] < 0.5
                for at in (strata == 0, strata == 1):
                    lost, there = (right & ends & at).sum(), (right & at).sum()
                    expected = lost * (ku & right & at).sum() / max(1, there)
                    values.append((right & ends & at & ku).sum() - expected)
        means.append(sum(values) / len(world) / 4)
    return np.array(means)


def test_draws_are_those_of_copied_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    replicates = draw(PLANTED[3], Study(1, 4, 300), (2,))
    strata = (np.arange(300) % 2).astype(np.intp)
    world = [one._replace(strata=strata) for one in replicates]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(replicates_module, "_stretch", lambda deviations, units: deviations)
    draws = two_level([count_world("0", world, 0.75, 4000, (0,))], rng)
    assert draws is not None
    slow = slow_draws(world, 1000, rng)
    assert draws.mean() == pytest.approx(slow.mean(), abs=4 * slow.std() / math.sqrt(1000))
    assert draws.std() == pytest.approx(slow.std(), rel=0.08)


def test_the_interval_is_no_narrower_than_that_of_t_over_worlds() -> None:
    rng = np.random.default_rng(0)
    replicates = draw(PLANTED[3], Study(5, 4, 300), (3,))
    worlds = [count_world(str(n), replicates[4 * n : 4 * n + 4], 0.75, 2000, (n,)) for n in range(5)]
    draws = two_level(worlds, rng)
    assert draws is not None
    means = np.array([world.mean(STUDENT) for world in worlds], dtype=np.float64)
    lo, hi = interval(draws)
    assert lo is not None
    assert hi is not None
    assert hi - lo > 2 * t_quantile(4) * means.std(ddof=1) / math.sqrt(5)
    assert draws.mean() == pytest.approx(means.mean(), abs=0.2 * draws.std())
    assert two_level([worlds[0]._replace(resampled=None), *worlds[1:]], rng) is None


def test_the_interval_of_one_student_is_that_over_pairs() -> None:
    world = draw(PLANTED[3], Study(1, 1, 300), (3,))
    world = [one._replace(strata=np.zeros(300, dtype=np.intp)) for one in world]
    counted = count_world("0", world, 0.75, 2000, (0,))
    draws = two_level([counted], np.random.default_rng(0))
    assert draws is not None
    assert counted.resampled is not None
    assert set(np.round(draws, 9)) <= set(np.round(counted.resampled[0], 9))


@pytest.mark.parametrize("scenario", [NULLS[0], PLANTED[3]])
def test_simulated_studies_come_out_as_planted(scenario: Scenario) -> None:
    verdict = judge(draw(scenario, Study(1, 4, 4000), (0,)), n_resamples=400)
    assert verdict.result == ("shown" if scenario.planted else "not_shown")


def test_the_joint_verdict_is_fast() -> None:
    replicates = draw(PLANTED[1], Study(5, 4, 4000), (0,))
    start = time.process_time()
    judge(replicates)
    assert time.process_time() - start < 5


def test_holm_against_the_definition() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_trend_against_least_squares() -> None:
    gaps, effects, errors = [0.1, 0.2, 0.4, 0.5], [5.0, 10.0, 19.0, 25.0], [1.0, 2.0, 1.5, 3.0]
    found = trend(gaps, effects, errors)
    assert found is not None
    (slope, _), covariance = np.polyfit(gaps, effects, 1, w=1 / np.array(errors), cov="unscaled")
    assert found.slope == pytest.approx(slope)
    reach = (found.hi - found.lo) / 2 / t_quantile(2)
    assert reach == pytest.approx(math.sqrt(covariance[0, 0]))  # residuals are within errors: no Birge ratio
    assert found.p == pytest.approx(2 * t_tail(slope / reach, 2))

    scattered = trend(gaps, [5.0, 31.0, -18.0, 27.0], errors)
    assert scattered is not None
    (slope, _), covariance = np.polyfit(gaps, [5.0, 31.0, -18.0, 27.0], 1, w=1 / np.array(errors), cov=True)
    assert (scattered.hi - scattered.lo) / 2 / t_quantile(2) == pytest.approx(math.sqrt(covariance[0, 0]))


def test_trend_needs_three_pairs_that_differ_and_errors() -> None:
    assert trend([0.1, 0.2], [1.0, 2.0], [1.0, 1.0]) is None
    assert trend([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) is None
    with refused("errors", [1.0, 0.0, 1.0], "0"):
        trend([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("t", "df", "p"),  # R: pt(t, df, lower.tail = FALSE)
    [(1.0, 1, 0.25), (2.0, 2, 0.0917517095361), (3.182446305284, 3, 0.025), (1.812461122812, 10, 0.05), (0.0, 5, 0.5)],
)
def test_student_t(t: float, df: int, p: float) -> None:
    assert t_tail(t, df) == pytest.approx(p, rel=1e-9)
    assert t_tail(-t, df) == pytest.approx(1 - p, rel=1e-9)


def test_the_order_of_the_replicates_changes_nothing() -> None:
    members = varied()
    assert judge(members[::-1], n_resamples=100) == judge(members, n_resamples=100)
