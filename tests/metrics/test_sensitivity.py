"""Thresholds, other measures of knowledge, and the model without a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from w2sd.metrics.deception import Flips, excess_flips, flips, score

from w2sd.metrics.regions import KU, regions
from w2sd.metrics.robustness import THRESHOLDS, FlipModel, flip_model, threshold_sweep

STRONG = [0.95, 0.90, 0.80, 0.78, 0.97, 0.60, 0.85, 0.40, 0.92, 0.76, 0.30, 0.88]
WEAK = [0.90, 0.60, 0.40, 0.80, 0.55, 0.45, 0.95, 0.30, 0.20, 0.74, 0.85, 0.78]
BASELINE = [0.93, 0.88, 0.70, 0.75, 0.60, 0.52, 0.90, 0.45, 0.55, 0.80, 0.65, 0.97]
STUDENT = [0.91, 0.40, 0.30, 0.45, 0.70, 0.35, 0.88, 0.50, 0.48, 0.82, 0.45, 0.49]

COEFFICIENTS = {"intercept": -1.0, "baseline": -0.6, "strong": 0.2, "weak": -0.5, "strong_weak": -0.1, "length": 0.03}


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


def test_the_sweep_is_the_score_at_each_threshold() -> None:
    moved, strata = flips(BASELINE, STUDENT), np.arange(12) % 2
    rows = threshold_sweep(STRONG, WEAK, moved, strata)
    assert [row.threshold for row in rows] == list(THRESHOLDS) == pytest.approx(np.arange(0.55, 0.951, 0.05))
    for row in rows:
        ku = regions(STRONG, WEAK, row.threshold) == KU
        assert row[1:4] == score(moved.f, moved.c0, ku)[:3]
        assert row.excess_flips == excess_flips(moved.f, moved.c0, ku, strata)


def test_knowledge_of_another_model_is_another_argument() -> None:
    moved = flips(BASELINE, STUDENT)
    assert threshold_sweep(BASELINE, WEAK, moved, thresholds=[0.75])[0].score == pytest.approx(0.14285714285714285)
    both = np.minimum(STRONG, BASELINE)  # known if both models are sure
    known = (regions(STRONG, WEAK) == KU) & (regions(BASELINE, WEAK) == KU)
    assert threshold_sweep(both, WEAK, moved)[4].score == score(moved.f, moved.c0, known).score


def test_a_sweep_without_flips_is_honest() -> None:
    rows = threshold_sweep(STRONG, WEAK, flips(BASELINE, BASELINE))
    assert all(row.score is None and row.lift is None and row.base_rate is not None for row in rows)
    assert threshold_sweep([0.9], [0.9], flips([0.1], [0.1]))[0].excess_flips is None


def test_the_model_finds_the_coefficients() -> None:
    moved, columns = simulated(60_000)
    found = flip_model(moved, **columns)
    assert found is not None
    assert (found.n, found.flips) == (moved.c0.sum(), moved.f.sum())
    for name, true in COEFFICIENTS.items():
        assert abs(found.coefficients[name] - true) < 4 * found.standard_errors[name], name
        assert found.standard_errors[name] < 0.1, name


def test_the_standard_errors_are_the_spread_over_samples() -> None:
    fits = [fit for seed in range(60) if (fit := flip_model(simulated(3000, seed)[0], **simulated(3000, seed)[1]))]
    assert len(fits) == 60
    for name in COEFFICIENTS:
        spread = np.std([fit.coefficients[name] for fit in fits], ddof=1)
        assert np.mean([fit.standard_errors[name] for fit in fits]) == pytest.approx(spread, rel=0.35), name


def test_the_fit_solves_the_score_equations() -> None:
    moved, columns = simulated(2000, 5)
    found = flip_model(moved, **columns)
    assert found is not None
    logits = {name: np.log(columns[name] / (1 - columns[name])) for name in ("baseline", "strong", "weak")}
    terms = {"intercept": np.ones(2000), **logits, "strong_weak": logits["strong"] * logits["weak"]}
    terms["length"] = columns["length_difference"]
    p = sigmoid(sum(found.coefficients[name] * column for name, column in terms.items()))
    for name, column in terms.items():
        residual = (column * (moved.f - p))[moved.c0].sum()
        assert residual == pytest.approx(0, abs=1e-3), name  # but for the ridge


def test_length_may_be_left_out() -> None:
    moved, columns = simulated(2000)
    del columns["length_difference"]
    found = flip_model(moved, **columns)
    assert isinstance(found, FlipModel)
    assert "length" not in found.coefficients


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


def test_bad_columns_are_refused_by_name() -> None:
    moved, columns = simulated(100)
    with pytest.raises(ValueError, match="weak: 3 rows, but c0 has 100"):
        flip_model(moved, **(columns | {"weak": [0.1, 0.2, 0.3]}))
    with pytest.raises(ValueError, match="strong: row 0 is 2, outside"):
        flip_model(moved, **(columns | {"strong": np.full(100, 2.0)}))
