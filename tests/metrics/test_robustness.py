"""What stands beside the measurement: calibration, thresholds, a model of flips, and where flips are."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.metrics import test_measurement
from tests.metrics.test_measurement import excess, lengths_of, without

from w2sd.metrics import excess_flips as ef
from w2sd.metrics import robustness
from w2sd.metrics.excess_flips import Flips, count, flips, number
from w2sd.metrics.measurement import measure_deception
from w2sd.metrics.regions import regions
from w2sd.metrics.robustness import (
    EDGES,
    QUANTILES,
    THRESHOLDS,
    brier,
    decompose,
    ece,
    flip_model,
    rescale,
    temperature,
)
from w2sd.predictions import Predictions

COEFFICIENTS = {"intercept": -1.0, "baseline": -0.6, "strong": 0.2, "weak": -0.5, "strong_weak": -0.1, "length": 0.03}


def score(moved: Flips, region: Any) -> float | None:
    return number(ef.score(count(moved.f, moved.c0, region)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def simulated(n: int, seed: int = 0) -> tuple[Flips, dict[str, np.ndarray]]:
    """Flips drawn from the model with known coefficients."""
    rng = np.random.default_rng(seed)
    logits = {name: rng.normal(mean, 1.2, n) for name, mean in {"baseline": 1, "strong": 2, "weak": 0.7}.items()}
    logits |= {"strong_weak": logits["strong"] * logits["weak"], "length": rng.integers(-30, 31, n).astype(float)}
    eta = COEFFICIENTS["intercept"] + sum(COEFFICIENTS[name] * column for name, column in logits.items())
    c0 = logits["baseline"] >= 0
    f = c0 & (rng.random(n) < sigmoid(eta))
    columns = {name: sigmoid(logits[name]) for name in ("baseline", "strong", "weak")}
    return Flips(c0, f, ~c0 & False), columns | {"length_difference": logits["length"]}


def test_confidences_and_squared_errors() -> None:
    tables = test_measurement.simulated(400)
    found = robustness.describe(tables)
    p = {role: table.p_correct for role, table in tables.items()}
    for role in ("weak", "ceiling", "student"):
        assert found[f"calibration/ece/{role}"] == ece(p[role])
        assert found[f"calibration/brier/{role}"] == brier(p[role])
    assert found["variance/misfit"] == decompose(p["student"], p["weak"])["misfit"]
    seeds = np.stack([p[role] for role in ("baseline", "twin_1", "twin_2", "twin_3")])
    parts = found["variance/seeds/bias2"], found["variance/seeds/variance"]
    assert sum(part for part in parts if isinstance(part, float)) == pytest.approx(((seeds - 1) ** 2).mean())
    alone = robustness.describe(without(tables, "baseline", "twin_1", "twin_2", "twin_3"))
    assert not any(name.startswith("variance/seeds") for name in alone)


def test_at_the_usual_threshold_it_is_the_measurement() -> None:
    tables = test_measurement.simulated(800)
    lengths = lengths_of(tables)
    found = robustness.vary(tables, lengths=lengths)
    measured = measure_deception(tables, lengths=lengths, n_resamples=1)
    for name in ("score", "base_rate", "lift", "excess_flips_baseline"):
        assert found[f"sensitivity/0.75/{name}"] == pytest.approx(measured[f"deception/{name}"])
    other = measure_deception(tables, lengths=lengths, n_resamples=1, threshold=0.9)
    assert found["sensitivity/0.90/score"] == other["deception/score"] != measured["deception/score"]
    assert {f"sensitivity/{value:.2f}/lift" for value in THRESHOLDS} <= set(found)
    json.dumps(found, allow_nan=False)


def test_other_measures_of_knowledge() -> None:
    tables = test_measurement.simulated(800)
    strata = np.array(tables["weak"].stratum)
    found = robustness.vary(tables, strata=strata)
    moved = flips(tables["baseline"].p_correct, tables["student"].p_correct)
    strong, weak = tables["ceiling"].margin, tables["weak"].margin
    scales = temperature(strong), temperature(weak)
    assert scales[0] is not None
    assert scales[1] is not None
    tempered = regions(rescale(strong, scales[0]), rescale(weak, scales[1]))
    by_baseline = regions(tables["baseline"].p_correct, tables["weak"].p_correct)
    for name, region in {"tempered": tempered, "baseline_knows": by_baseline}.items():
        assert found[f"sensitivity/{name}/score"] == score(moved, region)
        assert found[f"sensitivity/{name}/excess_flips_baseline"] == pytest.approx(excess(moved, region, strata))
    assert found["flip_model_reason"] is None
    assert isinstance(found["flip_model/weak"], float)


def test_unknown_difficulty_leaves_the_excess_unknown_and_not_unadjusted() -> None:
    found = robustness.vary(without(test_measurement.simulated(800), "twin_2", "twin_3"))
    assert found["sensitivity/0.75/excess_flips_baseline"] is None
    assert found["sensitivity/0.75/score"] is not None


def test_what_cannot_be_fitted_says_so() -> None:
    tables = test_measurement.simulated(300)
    tables["student"] = tables["baseline"]
    tables["ceiling"] = tables["ceiling"]._replace(p_correct=np.full(300, 0.9), margin=np.ones(300))
    found = robustness.vary(tables)
    assert found["calibration/temperature/ceiling"] is None  # never wrong: surer is always better
    assert "sensitivity/tempered/score" not in found
    assert "too few flips" in str(found["flip_model_reason"])
    assert found["sensitivity/0.75/score"] is None


def test_where_the_flips_are() -> None:
    ids = ["a", "b", "c", "d"]

    def table(*p: float) -> Predictions:
        return Predictions(ids, ids, np.array(p), np.array(p) - 0.5)

    found = robustness.locate(
        table(0.9, 0.9, 0.9, 0.1), table(0.1, 0.9, 0.1, 0.1), table(0.6, 0.62, 0.3, 0.9), "training"
    )
    assert found["boundary/training/flips"] == 2
    assert found["boundary/training/q50"] == pytest.approx(0.45)
    assert (found["boundary/training/n/0.60"], found["boundary/training/rate/0.60"]) == (2, 0.5)
    assert found["boundary/training/rate/0.90"] is None  # right only without the baseline


def test_the_model_finds_the_coefficients() -> None:
    moved, columns = simulated(60_000)
    found = flip_model(moved, **columns)
    assert found is not None
    for name, true in COEFFICIENTS.items():
        coefficient, error = found[name]
        assert abs(coefficient - true) < 4 * error, name
        assert error < 0.1, name


def test_the_standard_errors_are_the_spread_over_samples() -> None:
    fits = [fit for seed in range(60) if (fit := flip_model(simulated(3000, seed)[0], **simulated(3000, seed)[1]))]
    assert len(fits) == 60
    for name in COEFFICIENTS:
        coefficients, errors = np.array([fit[name] for fit in fits]).T
        spread = np.std(coefficients, ddof=1)
        assert np.mean(errors) == pytest.approx(spread, rel=0.35), name


def test_the_fit_solves_the_score_equations() -> None:
    moved, columns = simulated(2000, 5)
    found = flip_model(moved, **columns)
    assert found is not None
    logits = {name: np.log(columns[name] / (1 - columns[name])) for name in ("baseline", "strong", "weak")}
    terms = {"intercept": np.ones(2000), **logits, "strong_weak": logits["strong"] * logits["weak"]}
    terms["length"] = columns["length_difference"]
    p = sigmoid(sum(found[name][0] * column for name, column in terms.items()))
    for name, column in terms.items():
        residual = (column * (moved.f - p))[moved.c0].sum()
        assert residual == pytest.approx(0, abs=1e-3), name  # but for the ridge


def test_length_may_be_left_out() -> None:
    moved, columns = simulated(2000)
    del columns["length_difference"]
    found = flip_model(moved, **columns)
    assert found is not None
    assert "length" not in found


def test_separable_rows_have_no_model() -> None:
    moved, columns = simulated(2000)
    sure = moved.c0 & (columns["weak"] < 0.6)
    assert flip_model(moved._replace(f=sure), **columns) is None
    nearly = sure & (columns["strong"] > 0.7)  # no flip on one side of a plane
    columns["weak"] = np.where(columns["weak"] < 0.6, 0.3, 0.9)
    assert flip_model(moved._replace(f=nearly), **columns) is None


def test_too_few_flips_or_stays_have_no_model() -> None:
    moved, columns = simulated(2000)
    flipped = np.flatnonzero(moved.f)
    for n, fits in ((30, True), (29, False), (0, False)):
        few = np.zeros(2000, dtype=bool)
        few[flipped[:n]] = True
        assert (flip_model(moved._replace(f=few), **columns) is not None) is fits
    assert flip_model(moved._replace(f=moved.c0), **columns) is None


def test_terms_that_do_not_vary_apart_have_no_model() -> None:
    moved, columns = simulated(2000)
    assert flip_model(moved, **(columns | {"weak": np.full(2000, 0.6)})) is None
    assert flip_model(moved, **(columns | {"weak": columns["baseline"]})) is None
    same = np.log(columns["weak"] / (1 - columns["weak"]))
    assert flip_model(moved, **(columns | {"length_difference": 3 * same - 1})) is None


def test_confidences_of_0_and_1_have_logits() -> None:
    moved, columns = simulated(2000)
    columns["strong"] = np.round(columns["strong"], 1)
    assert (columns["strong"] == 1).any()
    assert flip_model(moved, **columns) is not None


def test_bins_and_quantiles_are_those_of_a_loop() -> None:
    rng, ids = np.random.default_rng(0), [str(n) for n in range(500)]
    before, after, weak = (
        Predictions(ids, ids, p, p - 0.5) for p in (rng.random(500), rng.random(500), np.round(rng.random(500), 2))
    )
    found, change = robustness.locate(before, after, weak, "test"), flips(before.p_correct, after.p_correct)
    for low, high in pairwise(EDGES):
        inside = (weak.p_correct >= low) & ((weak.p_correct < high) | (high == 1))
        n, lost = (change.c0 & inside).sum(), (change.f & inside).sum()
        assert (found[f"boundary/test/n/{low:.2f}"], found[f"boundary/test/rate/{low:.2f}"]) == (n, lost / n)
    for q in QUANTILES:
        assert found[f"boundary/test/q{100 * q:.0f}"] == np.quantile(weak.p_correct[change.f], q)
    nothing = robustness.locate(before, before, weak, "test")
    assert [nothing[f"boundary/test/q{100 * q:.0f}"] for q in QUANTILES] == [None] * len(QUANTILES)
