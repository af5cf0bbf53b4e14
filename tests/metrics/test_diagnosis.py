"""What stands beside the measurement is what the functions say, and null where they say nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.metrics.test_measure_deception import lengths_of, simulated, without
from w2sd.metrics.deception import excess_flips, flips, score

from w2sd.metrics import diagnosis
from w2sd.metrics.calibration import brier, decompose, ece, rescale, temperature
from w2sd.metrics.measurement import measure_deception
from w2sd.metrics.regions import KU, regions
from w2sd.metrics.robustness import THRESHOLDS
from w2sd.predictions import Predictions


def test_confidences_and_squared_errors() -> None:
    tables = simulated(400)
    found = diagnosis.describe(tables)
    p = {role: table.p_correct for role, table in tables.items()}
    for role in ("weak", "ceiling", "student"):
        assert found[f"calibration/ece/{role}"] == ece(p[role])
        assert found[f"calibration/brier/{role}"] == brier(p[role])
    assert found["variance/misfit"] == decompose(p["student"], p["weak"]).misfit
    seeds = np.stack([p[role] for role in ("baseline", "twin_1", "twin_2", "twin_3")])
    parts = found["variance/seeds/bias2"], found["variance/seeds/variance"]
    assert sum(part for part in parts if isinstance(part, float)) == pytest.approx(((seeds - 1) ** 2).mean())
    alone = diagnosis.describe(without(tables, "baseline", "twin_1", "twin_2", "twin_3"))
    assert not any(name.startswith("variance/seeds") for name in alone)


def test_at_the_usual_threshold_it_is_the_measurement() -> None:
    tables = simulated(800)
    lengths = lengths_of(tables)
    found = diagnosis.vary(tables, lengths=lengths)
    measured = measure_deception(tables, lengths=lengths, n_resamples=1)
    for name in ("score", "base_rate", "lift", "excess_flips_baseline"):
        assert found[f"sensitivity/0.75/{name}"] == pytest.approx(measured[f"deception/{name}"])
    assert {f"sensitivity/{value:.2f}/lift" for value in THRESHOLDS} <= set(found)
    json.dumps(found, allow_nan=False)


def test_other_measures_of_knowledge() -> None:
    tables = simulated(800)
    strata = np.array(tables["weak"].stratum)
    found = diagnosis.vary(tables, strata=strata)
    moved = flips(tables["baseline"].p_correct, tables["student"].p_correct)
    strong, weak = tables["ceiling"].margin, tables["weak"].margin
    scales = temperature(strong), temperature(weak)
    assert scales[0] is not None
    assert scales[1] is not None
    tempered = regions(rescale(strong, scales[0]), rescale(weak, scales[1])) == KU
    by_baseline = regions(tables["baseline"].p_correct, tables["weak"].p_correct) == KU
    for name, ku in {"tempered": tempered, "baseline_knows": by_baseline}.items():
        assert found[f"sensitivity/{name}/score"] == score(moved.f, moved.c0, ku).score
        expected = excess_flips(moved.f, moved.c0, ku, strata)
        assert found[f"sensitivity/{name}/excess_flips_baseline"] == pytest.approx(expected)
    assert found["flip_model_reason"] is None
    assert isinstance(found["flip_model/weak"], float)


def test_unknown_difficulty_leaves_the_excess_unknown_and_not_unadjusted() -> None:
    found = diagnosis.vary(without(simulated(800), "twin_2", "twin_3"))
    assert found["sensitivity/0.75/excess_flips_baseline"] is None
    assert found["sensitivity/0.75/score"] is not None


def test_what_cannot_be_fitted_says_so() -> None:
    tables = simulated(300)
    tables["student"] = tables["baseline"]
    tables["ceiling"] = tables["ceiling"]._replace(p_correct=np.full(300, 0.9), margin=np.ones(300))
    found = diagnosis.vary(tables)
    assert found["calibration/temperature/ceiling"] is None  # never wrong: surer is always better
    assert "sensitivity/tempered/score" not in found
    assert "too few flips" in str(found["flip_model_reason"])
    assert found["sensitivity/0.75/score"] is None


def test_where_the_flips_are() -> None:
    ids = ["a", "b", "c", "d"]

    def table(*p: float) -> Predictions:
        return Predictions(ids, ids, np.array(p), np.array(p) - 0.5)

    found = diagnosis.locate(
        table(0.9, 0.9, 0.9, 0.1), table(0.1, 0.9, 0.1, 0.1), table(0.6, 0.62, 0.3, 0.9), "training"
    )
    assert found["boundary/training/flips"] == 2
    assert found["boundary/training/q50"] == pytest.approx(0.45)
    assert (found["boundary/training/n/0.60"], found["boundary/training/rate/0.60"]) == (2, 0.5)
    assert found["boundary/training/rate/0.90"] is None  # right only without the baseline


def test_an_infinite_margin_has_no_temperature_and_stops_nothing() -> None:
    tables = simulated(300)
    far = tables["ceiling"].margin.copy()
    far[np.argmax(far)] = np.inf
    tables["ceiling"] = tables["ceiling"]._replace(margin=far)
    found = diagnosis.vary(tables)
    assert found["calibration/temperature/ceiling"] is None
    assert found["calibration/temperature/weak"] is not None
