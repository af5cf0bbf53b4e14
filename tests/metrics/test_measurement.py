"""One student against its controls: every figure is that of the functions, every interval that of a plain bootstrap."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from tests.builders import refused

from w2sd.metrics import excess_flips as ef
from w2sd.metrics import statistics
from w2sd.metrics.arms import design
from w2sd.metrics.excess_flips import Cells, Flips, count, flips, number, p_seed, p_spread
from w2sd.metrics.measurement import RATIOS, compare, measure_deception
from w2sd.metrics.regions import KU, REGIONS, confident_errors, known_regions, regions
from w2sd.metrics.statistics import mcnemar_exact, resample, scale_of
from w2sd.metrics.strata import difficulty_strata, length_bins, margin_bins
from w2sd.predictions import Predictions, join, length_difference, select

CONFLICT = ("twin_1", "twin_2", "twin_3", "placebo/more_data", "placebo/noise", "gold_conflict", "gold_baseline")

TAX = ["tax/rate", "tax/net", "tax/churn"]
ESTIMATES = [
    *("excess_flips", "excess_flips_per_1000", "excess_flips_baseline", "excess_flips_ceiling"),
    *("did", "rate_ratio", "rate_ratio_mh", "risk_ratio", "odds_ratio", "score", "base_rate", "lift", "excess"),
    *("margin_matched", "length_matched", "seed_null", "net_score", "excess_phi"),
]
BLIND = ["deception/blind_spot", "deception/blind_spot_conditional", "deception/blind_spot_change"]
EXACT = ["p_region", "p_margin", "p_seed", "excess_flips_reason", "score_reason", "did_reason"]


def simulated(n: int = 1200, seed: int = 0, per_cluster: int = 1, known: bool = False) -> dict[str, Predictions]:
    """Models that agree on what is hard; the conflict student is worse where the weak model is unsure."""
    rng = np.random.default_rng(seed)
    ids = [f"{i:05}" for i in range(n)]
    clusters = [f"{i // per_cluster:05}" for i in range(n)]
    hard, lengths = rng.normal(size=n), rng.integers(5, 60, size=(2, n))
    stratum = [f"{level:+d}" for level in np.round(hard).astype(int)]

    def run(ability: float, noise: float, pull: Any = 0.0, knows: float | None = None) -> Predictions:
        margin = ability + hard - pull + noise * rng.normal(size=n)
        flags = None if knows is None or not known else rng.random(n) < knows
        return Predictions(ids, clusters, 1 / (1 + np.exp(-margin)), margin, stratum, flags, *lengths)

    tables = {"weak": run(0.8, 1.5, knows=0.5), "ceiling": run(3, 1, knows=0.9), "baseline": run(1.7, 0.7)}
    tables["student"] = run(1.6, 0.7, pull=1.2 * (tables["weak"].p_correct < 0.6))
    abilities = dict(zip(CONFLICT, (1.7, 1.7, 1.7, 1.6, 1.4, 1.8, 2.5), strict=True))
    return tables | {role: run(ability, 0.7) for role, ability in abilities.items()}


def names(squares: tuple[str, ...] = ("",), gold: bool = True, true_strata: bool = False) -> set[str]:
    """Every name that is promised."""
    nulls = ["null/twins", "null/more_data", "null/noise", *(["null/gold_conflict"] if gold else [])]
    extra = ["excess_flips_gold_crossed"] * gold + ["excess_flips_ensemble"] * true_strata
    found = {"deception/flips", "tax/flips", "tax/reverse", "tax/mcnemar_p", "n/twins"}
    estimates = [*TAX, *BLIND]
    for kind in squares:
        estimates += [f"deception{kind}/{name}" for name in (*ESTIMATES, *nulls, *extra)]
        estimates += [f"region{kind}/{name}/rate" for name in REGIONS]
        found |= {f"region{kind}/{name}/{part}" for name in REGIONS for part in ("n_all", "n", "flips")}
        found |= {f"deception{kind}/{name}" for name in EXACT}
        found |= {f"deception{kind}/{name}_n_undefined" for name in RATIOS}
    return found | {f"{name}{end}" for name in estimates for end in ("", "_lo", "_hi")}


def without(tables: Mapping[str, Predictions], *roles: str) -> dict[str, Predictions]:
    return {role: table for role, table in tables.items() if role not in roles}


def lengths_of(tables: Mapping[str, Predictions]) -> Any:
    return length_difference(tables["student"])


def strip(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures without their intervals."""
    return {name: value for name, value in metrics.items() if not name.endswith(("_lo", "_hi", "_n_undefined"))}


def excess(moved: Flips, region: Any, strata: Any = None) -> float | None:
    codes = None if strata is None else np.unique(strata, return_inverse=True)[1]
    return number(ef.excess_flips(count(moved.f, moved.c0, region, codes)))


def _count(moved: Flips, region: Any) -> Cells:
    return count(moved.f, moved.c0, region)


def test_every_promised_name_is_there_and_no_other() -> None:
    tables = simulated(300)
    metrics = measure_deception(tables, lengths=lengths_of(tables), n_resamples=50)
    assert set(metrics) == names()
    json.dumps(metrics, allow_nan=False)
    tables = simulated(300, known=True)
    metrics = measure_deception(tables, strata=tables["weak"].stratum, n_resamples=50)
    assert set(metrics) == names(("", "_true"), true_strata=True)
    metrics = measure_deception(without(tables, "gold_conflict", "gold_baseline"), n_resamples=50)
    assert set(metrics) == names(("", "_true"), gold=False)


def test_figures_are_those_of_the_functions() -> None:
    tables = simulated()
    lengths = lengths_of(tables)
    found = measure_deception(tables, lengths=lengths, n_resamples=20)
    p = {role: table.p_correct for role, table in tables.items()}
    margins = {role: table.margin for role, table in tables.items()}
    moved, region = flips(p["baseline"], p["student"]), regions(p["ceiling"], p["weak"])
    c0, f, g = moved

    def strata(*ensemble: str, c0: Any = c0, **options: Any) -> Any:
        return difficulty_strata([margins[role] for role in ensemble], lengths, c0, **options).codes

    def between(before: str, after: str, codes: Any) -> float:
        arm = flips(p[before], p[after])
        value = excess(arm, region, codes)
        assert value is not None
        return value

    own = strata("baseline", "twin_1", "twin_2")
    students = ["baseline", "twin_1", "twin_2", "twin_3"]
    others = {first: [role for role in students if role != first] for first in students}

    def averaged(run: str) -> float:
        ensembles = {
            first: [first, *(other for other in others[first] if other != run)][:3]
            for first in students
            if first != run
        }
        values = [between(first, run, strata(*ensemble, c0=p[first] >= 0.5)) for first, ensemble in ensembles.items()]
        return float(np.mean(values))

    twins = [averaged(twin) for twin in students[1:]]
    gold = strata("baseline", "twin_1", "twin_2", c0=p["gold_baseline"] >= 0.5)
    cells = count(f, c0, region, own)
    seeds = [_count(flips(p[one], p[other]), region) for one in students for other in others[one]]
    null = ef.seed_null(cells, seeds)
    margin = count(f, c0, region, margin_bins(p["baseline"]))
    length = count(f, c0, region, length_bins(p["baseline"], lengths, c0))
    (wrong, uncertain), (before, _) = (confident_errors(p["weak"], p[role]) for role in ("student", "baseline"))
    joint = (wrong & uncertain).mean()
    plain = ("score", "base_rate", "lift", "excess", "risk_ratio", "odds_ratio", "rate_ratio", "rate_ratio_mh")
    expected = {
        "tax/flips": f.sum(),
        "deception/flips": np.mean([flips(p[first], p["student"]).f.sum() for first in students]),
        "tax/reverse": g.sum(),
        "tax/rate": f.mean(),
        "tax/net": f.mean() - g.mean(),
        "tax/churn": f.mean() + g.mean(),
        "tax/mcnemar_p": mcnemar_exact(int(f.sum()), int(g.sum())),
        "n/twins": 3,
        "deception/excess_flips": averaged("student"),
        "deception/excess_flips_per_1000": 1000 * averaged("student") / len(c0),
        "deception/excess_flips_baseline": between("baseline", "student", own),
        "deception/excess_flips_ceiling": between("baseline", "student", strata("ceiling")),
        "deception/excess_flips_gold_crossed": between(
            "baseline", "student", strata("baseline", "twin_1", "twin_2", crossed=margins["gold_conflict"])
        ),
        "deception/null/twins": np.mean(twins),
        "deception/null/more_data": averaged("placebo/more_data"),
        "deception/null/noise": averaged("placebo/noise"),
        "deception/null/gold_conflict": between("gold_baseline", "gold_conflict", gold),
        "deception/did": number(ef.did(cells, seeds[:3])),  # the pairs of the baseline and each twin
        "deception/margin_matched": number(ef.matched(margin)),
        "deception/p_margin": p_spread(margin),
        "deception/p_region": p_spread(count(f, c0, region)),
        "deception/length_matched": number(ef.matched(length)),
        "deception/blind_spot": joint,
        "deception/blind_spot_conditional": wrong[uncertain].mean(),
        "deception/blind_spot_change": joint - (before & uncertain).mean(),
        "deception/p_seed": p_seed(cells, seeds),
        **{f"deception/{name}": number(getattr(ef, name)(cells)) for name in plain},
        **{f"deception/{name}": number(figure) for name, figure in null.items()},
        **{f"deception/{name}_reason": None for name in ("excess_flips", "score", "did")},
    }
    for code, name in enumerate(REGIONS):
        parts = {"n_all": region == code, "n": c0 & (region == code), "flips": f & (region == code)}
        expected |= {f"region/{name}/{part}": rows.sum() for part, rows in parts.items()}
        expected[f"region/{name}/rate"] = parts["flips"].sum() / parts["n"].sum()
    figures = strip(found)
    assert set(figures) == set(expected)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_true_strata_and_true_knowledge() -> None:
    tables = simulated(known=True)
    strata = np.array(tables["weak"].stratum)
    found = measure_deception(tables, strata=strata, n_resamples=20)
    moved = flips(tables["baseline"].p_correct, tables["student"].p_correct)
    squares = {
        "": regions(tables["ceiling"].p_correct, tables["weak"].p_correct),
        "_true": known_regions(tables["ceiling"].known, tables["weak"].known),
    }
    for kind, region in squares.items():
        expected = excess(moved, region, strata)
        assert found[f"deception{kind}/excess_flips_baseline"] == pytest.approx(expected, abs=1e-9)
        assert found[f"deception{kind}/score"] == number(ef.score(_count(moved, region)))
        assert found[f"region{kind}/ku/n"] == (moved.c0 & (region == KU)).sum()
        for null in ("twins", "noise", "gold_conflict"):
            assert found[f"deception{kind}/null/{null}"] is not None
    by_ensemble = measure_deception(tables, n_resamples=20)
    assert found["deception/excess_flips_ensemble"] == by_ensemble["deception/excess_flips_baseline"]
    few = measure_deception(without(tables, "twin_2", "twin_3"), strata=strata, n_resamples=20)
    assert few["deception/excess_flips_baseline"] == found["deception/excess_flips_baseline"]
    assert few["deception/excess_flips_ensemble"] is None
    one = flips(tables["baseline"].p_correct, tables["twin_1"].p_correct)
    expected = excess(one, squares[""], strata)
    assert few["deception/null/twins"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("per_cluster", [1, 4])
def test_intervals_are_those_of_a_plain_bootstrap(per_cluster: int) -> None:
    tables = without(simulated(600, per_cluster=per_cluster), "gold_conflict", "gold_baseline")
    lengths = lengths_of(tables)
    found = measure_deception(tables, lengths=lengths, n_resamples=4000)
    p = {role: table.p_correct for role, table in tables.items()}
    (c0, f, g), region = flips(p["baseline"], p["student"]), regions(p["ceiling"], p["weak"])
    strata = difficulty_strata([tables[r].margin for r in ("baseline", "twin_1", "twin_2")], lengths, c0).codes
    bins = {"margin": margin_bins(p["baseline"]), "length": length_bins(p["baseline"], lengths, c0)}
    twins = [flips(p["baseline"], p[role]) for role in ("twin_1", "twin_2", "twin_3")]
    members = np.arange(600).reshape(-1, per_cluster)
    rng, n_clusters = np.random.default_rng(1), 600 // per_cluster
    draws: dict[str, list[float | None]] = {}
    for _ in range(800):
        rows = members[rng.integers(n_clusters, size=n_clusters)].ravel()
        here = region[rows]
        cells = count(f[rows], c0[rows], here, strata[rows])
        others = [count(twin.f[rows], twin.c0[rows], here) for twin in twins]
        by = {name: count(f[rows], c0[rows], here, codes[rows]) for name, codes in bins.items()}
        sample = {
            "tax/net": f[rows].mean() - g[rows].mean(),
            "deception/excess_flips": number(ef.excess_flips(cells)),
            "deception/score": number(ef.score(cells)),
            "deception/lift": number(ef.lift(cells)),
            "deception/rate_ratio_mh": number(ef.rate_ratio_mh(cells)),
            "deception/risk_ratio": number(ef.risk_ratio(cells)),
            "deception/margin_matched": number(ef.matched(by["margin"])),
            "deception/length_matched": number(ef.matched(by["length"])),
            "deception/did": number(ef.did(cells, others)),
            "region/ku/rate": number(ef.rates(cells)[KU]),
        }
        for name, value in sample.items():
            draws.setdefault(name, []).append(value)
    for name, values in draws.items():
        plain = np.array(values, dtype=np.float64)
        outside = [(plain <= found[f"{name}_lo"]).mean(), (plain >= found[f"{name}_hi"]).mean()]
        assert outside == pytest.approx([0.025, 0.025], abs=0.02), name


def test_weights_are_repeated_rows() -> None:
    tables = simulated(200, per_cluster=2)
    compared = design(tables, tables["weak"].stratum, None)
    (c0, f, _), strata = compared.student.flips, compared.student.strata.codes
    region = regions(tables["ceiling"].p_correct, tables["weak"].p_correct)
    first, weights = resample(np.arange(200) // 2, 30, seed=3)
    assert (first == 1).all()
    assert weights.shape == (200, 30)
    assert (weights.sum(axis=0) == 200).all()
    assert (weights[::2] == weights[1::2]).all()  # whole clusters
    found = ef.excess_flips(count(f, c0, region, strata, weights))
    for sample, times in enumerate(weights.T):
        rows = np.repeat(np.arange(200), times)
        plain = ef.excess_flips(count(f[rows], c0[rows], region[rows], strata[rows]))
        assert found[sample] == pytest.approx(plain[0], abs=1e-9)


def test_draws_are_made_once_for_all_figures_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, draw, drawn = simulated(77), statistics._draw, []
    monkeypatch.setattr(statistics, "_draw", lambda *given: drawn.append(given) or draw(*given))
    kept = compare(tables)
    assert len(drawn) == 1
    monkeypatch.setattr(statistics, "_KEPT", 0)  # where memory would not hold them
    assert compare(tables) == kept
    assert len(drawn) > 2


def test_every_figure_is_on_its_scale() -> None:
    ends = ("_lo", "_hi", "_se", "_n_undefined")
    for name, value in compare(simulated(300)).items():
        if isinstance(value, int | float) and not name.endswith(ends):
            lowest, highest = scale_of(name)
            assert lowest <= value <= highest, name
    assert scale_of("variance/bias_weak") == (-1, 0)
    assert scale_of("variance/seeds/variance") == scale_of("variance/variance_weak") == (0, 0.25)


def test_resamples_in_blocks_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("w2sd.metrics.statistics._BLOCK", 1000)
    blocks = list(resample(np.arange(300), 11, seed=0))
    assert [block.shape for block in blocks] == [(300, 1), *[(300, 3)] * 3, (300, 2)]
    tables = simulated(300)
    assert measure_deception(tables, n_resamples=11)["deception/score_lo"] is not None


def test_metrics_are_the_same_whatever_the_order_of_rows() -> None:
    tables = simulated(300, per_cluster=3)
    order = np.random.default_rng(2).permutation(300)
    shuffled = join({role: select(table, order) for role, table in tables.items()})
    lengths = lengths_of(tables)
    first = measure_deception(tables, lengths=lengths, n_resamples=100)
    again = measure_deception(shuffled, lengths=lengths_of(shuffled), n_resamples=100)
    assert json.dumps(again) == json.dumps(first)
    assert measure_deception(tables, lengths=lengths, n_resamples=100, seed=1) != first


def test_a_student_without_flips_has_honest_nulls() -> None:
    tables = simulated(300, known=True)
    alone = measure_deception(tables | {"student": tables["baseline"]}, n_resamples=50)
    assert alone["tax/flips"] == 0
    assert isinstance(alone["deception/excess_flips"], float)  # against the twins there are flips
    assert alone["deception/excess_flips_baseline"] is alone["deception/score"] is None
    tables |= dict.fromkeys(("student", "twin_1", "twin_2", "twin_3"), tables["baseline"])
    found = measure_deception(tables, lengths=lengths_of(tables), n_resamples=50)
    reason = "no flips: the student gets right all that the baseline does"
    for kind in ("", "_true"):
        for name in ("excess_flips", "score"):
            assert found[f"deception{kind}/{name}_reason"] == reason
        for name in ESTIMATES:
            if name not in ("base_rate", "seed_null", "did", "excess_phi"):
                for end in ("", "_lo", "_hi"):
                    assert found[f"deception{kind}/{name}{end}"] is None, name
        assert found[f"deception{kind}/score_n_undefined"] == 50
        assert found[f"deception{kind}/null/twins"] is not None
    assert (found["tax/flips"], found["tax/rate"], found["tax/mcnemar_p"]) == (0, 0, 1)
    assert (found["region/kk/flips"], found["region/kk/rate"]) == (0, 0)
    assert found["deception/p_region"] is found["deception/p_margin"] is None


def test_a_control_without_flips_has_no_excess() -> None:
    tables = simulated(300)
    tables |= dict.fromkeys(("placebo/noise", "twin_1", "twin_2", "twin_3"), tables["baseline"])
    found = measure_deception(tables, n_resamples=50)
    assert found["deception/null/noise"] == 0
    assert found["deception/null/noise_lo"] is None


@pytest.mark.parametrize("missing", [["twin_3"], ["twin_1", "twin_3"], ["twin_1", "twin_2", "twin_3"]])
def test_missing_twins_leave_difficulty_unknown(missing: list[str]) -> None:
    tables = without(simulated(300), *missing)
    found = measure_deception(tables, n_resamples=50)
    n = 3 - len(missing)
    assert found["n/twins"] == n
    assert found["deception/excess_flips_reason"] == f"difficulty is told by true strata or 3 twins, here {n}"
    for name in ("excess_flips", "excess_flips_per_1000", "excess_flips_baseline", "null/noise", "rate_ratio_mh"):
        for end in ("", "_lo", "_hi"):
            assert found[f"deception/{name}{end}"] is None, name
    assert found["deception/excess_flips_ceiling"] is not None
    assert found["deception/score"] is not None
    assert (found["deception/did"] is None) is (n == 0)
    assert (found["deception/seed_null"] is None) is (n == 0)
    assert found["deception/did_reason"] == (None if n else "no twins")
    assert found["deception/null/twins"] is None


def test_four_twins_are_all_averaged() -> None:
    tables = simulated(300) | {"twin_4": simulated(300, seed=1)["baseline"]._replace(stratum=None)}
    tables["twin_10"] = tables["twin_4"]
    found = measure_deception(tables, n_resamples=10)
    assert found["n/twins"] == 5
    assert len(design(tables, None, None).seeds) == 6 * 5


def test_equal_confidences_everywhere() -> None:
    for p in (0.9, 0.5, 0.1):
        ids = [f"{i}" for i in range(8)]
        same = Predictions(ids, ids, np.full(8, p), np.full(8, p - 0.5))
        found = measure_deception(dict.fromkeys(simulated(8), same), lengths=np.zeros(8), n_resamples=50)
        assert found["deception/score"] is None
        assert found["deception/excess_flips"] is None
        expected = "no flips" if p >= 0.5 else "the baseline gets nothing right"
        assert str(found["deception/excess_flips_reason"]).startswith(expected)
        assert found["deception/base_rate"] == (None if p < 0.5 else 0)
        assert all(value is None for name, value in found.items() if name.endswith(("_lo", "_hi")))


def test_one_cluster_says_nothing_about_errors() -> None:
    tables = simulated(200, per_cluster=200)
    found = measure_deception(tables, lengths=lengths_of(tables), n_resamples=50)
    assert found["deception/score"] is not None
    assert all(value is None for name, value in found.items() if name.endswith(("_lo", "_hi")))


def test_one_row_is_measured() -> None:
    found = measure_deception(simulated(1), lengths=[3], n_resamples=10)
    assert found["tax/flips"] in (0, 1)


def test_an_empty_region_is_said_to_be_empty() -> None:
    tables = simulated(300)
    tables["weak"] = tables["weak"]._replace(p_correct=np.full(300, 0.9), margin=np.ones(300))
    found = measure_deception(tables, n_resamples=50)
    assert found["region/ku/n_all"] == 0
    assert found["region/ku/rate"] is None
    assert found["deception/lift"] is found["deception/rate_ratio"] is found["deception/did"] is None
    assert found["deception/did_reason"] == "no pair that the baseline gets right is in ku"
    assert found["deception/excess_flips"] is found["deception/null/twins"] is None
    assert "no pair that a no-conflict student gets right" in str(found["deception/excess_flips_reason"])
    assert found["deception/score"] == 0  # of the flips there are, none is there
    assert found["deception/lift_n_undefined"] == 50


def test_twins_of_the_student_have_lift_near_one_without_structure() -> None:
    lifts, excess = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        ids = [f"{i:04}" for i in range(1000)]
        roles = ("weak", "ceiling", "baseline", "student", "twin_1", "twin_2", "twin_3")
        tables = {}
        for role in roles:
            margin = rng.normal(1, 1, size=1000)
            tables[role] = Predictions(ids, ids, 1 / (1 + np.exp(-margin)), margin)
        found = measure_deception(tables, n_resamples=1)
        lifts.append(found["deception/lift"])
        excess.append(found["deception/excess_flips"])
    assert np.mean(lifts) == pytest.approx(1, abs=4 * np.std(lifts) / 5)
    assert np.mean(excess) == pytest.approx(0, abs=4 * np.std(excess) / 5)


def test_planted_deception_is_found() -> None:
    tables = simulated(4000)
    found = measure_deception(tables, lengths=lengths_of(tables))
    lo, twins = found["deception/excess_flips_lo"], found["deception/null/twins_hi"]
    assert isinstance(lo, float)
    assert isinstance(twins, float)
    assert lo > 30 > twins
    assert found["deception/p_region"] < 1e-6  # type: ignore[operator]


def test_four_thousand_pairs_take_less_than_a_second() -> None:
    tables = without(simulated(4000), "placebo/more_data", "placebo/noise", "gold_conflict", "gold_baseline")
    seconds = []
    for _ in range(3):
        start = time.process_time()
        measure_deception(tables, lengths=lengths_of(tables))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda t: without(t, "ceiling"), ("predictions", ANY, "ceiling")),
        (lambda t: without(t, "gold_baseline"), ("predictions", ANY, "gold_baseline gold_conflict")),
        (lambda t: without(t, "gold_conflict"), ("predictions", ANY, "gold_conflict gold_baseline")),
        (lambda t: t | {"twin_2": select(t["twin_2"], range(49))}, ("twin_2.id", "49 ids")),
        (lambda t: t | {"student": select(t["student"], range(50)[::-1])}, ("student.id", "50 ids")),
    ],
)
def test_roles_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Predictions]], dict[str, Predictions]], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        measure_deception(change(simulated(50)))


def test_columns_of_another_length_are_refused() -> None:
    tables = simulated(50)
    with refused("strata", (3,), "50"):
        measure_deception(tables, strata=[1, 2, 3])
    with refused("lengths", (1,), "50"):
        measure_deception(tables, lengths=[1.0])
