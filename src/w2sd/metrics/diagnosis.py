"""What stands beside the measurement: confidences, squared errors, and whether the finding hangs on a choice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.arms import TWIN, Arm, own_arm
from w2sd.metrics.boundary import quantiles_of_flips, rates_by_confidence
from w2sd.metrics.calibration import brier, ece, rescale, temperature
from w2sd.metrics.deception import flips
from w2sd.metrics.measurement import Metrics
from w2sd.metrics.predictions import Predictions
from w2sd.metrics.sensitivity import THRESHOLDS, Threshold, flip_model, threshold_sweep
from w2sd.metrics.statistics import Column
from w2sd.metrics.variance import across_seeds, decompose


def describe(joined: Mapping[str, Predictions]) -> Metrics:
    """Calibration of weak model, ceiling and student; squared errors of student and weak model taken apart.

    Squared errors are also taken apart over seeds, of all no-conflict students, where there are several.
    """
    p = {role: joined[role].p_correct for role in joined}
    metrics: Metrics = {}
    for role in ("weak", "ceiling", "student"):
        metrics |= {f"calibration/ece/{role}": ece(p[role]), f"calibration/brier/{role}": brier(p[role])}
    metrics |= {f"variance/{name}": value for name, value in decompose(p["student"], p["weak"])._asdict().items()}
    seeds = [p[role] for role in joined if role == "baseline" or role.startswith(TWIN)]
    if len(seeds) > 1:
        by_row = across_seeds(np.stack(seeds))._asdict()
        metrics |= {f"variance/seeds/{name}": float(column.mean()) for name, column in by_row.items()}
    return metrics


def vary(
    joined: Mapping[str, Predictions],
    *,
    threshold: float = 0.75,
    strata: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
) -> Metrics:
    """Flips into ku where something else counts as knowledge, and a model of flips without any threshold.

    Other thresholds (`sensitivity/0.55` to `0.95`), confidences at the temperature that fits the test pairs best
    (`tempered`), and the no-conflict student in the place of the ceiling (`baseline_knows`). All against the baseline.
    """
    own = own_arm(joined, strata, lengths)
    weak, ceiling, baseline = (joined[role] for role in ("weak", "ceiling", "baseline"))
    metrics = _sweep(own, ceiling.p_correct, weak.p_correct, {f"{value:.2f}": value for value in THRESHOLDS})
    metrics |= _sweep(own, baseline.p_correct, weak.p_correct, {"baseline_knows": threshold})
    metrics |= _tempered(own, ceiling, weak, threshold)
    columns = (baseline.p_correct, ceiling.p_correct, weak.p_correct)
    fitted = flip_model(own.flips, *columns, None if lengths is None else np.asarray(lengths))
    metrics["flip_model_reason"] = None if fitted else "too few flips, or rows that do not hold the coefficients apart"
    if fitted:
        metrics |= {f"flip_model/{term}": value for term, value in fitted.coefficients.items()}
        metrics |= {f"flip_model/{term}_se": value for term, value in fitted.standard_errors.items()}
    return metrics


def locate(before: Predictions, after: Predictions, weak: Predictions, on: str) -> Metrics:
    """Where on the weak model's confidence the flips are, on `test` or `training` pairs."""
    moved = flips(before.p_correct, after.p_correct)
    metrics: Metrics = {f"boundary/{on}/flips": int(moved.f.sum())}
    for q, value in quantiles_of_flips(moved, weak.p_correct).items():
        metrics[f"boundary/{on}/q{100 * q:.0f}"] = value
    for row in rates_by_confidence(moved, weak.p_correct):
        metrics |= {f"boundary/{on}/n/{row.edge:.2f}": row.n, f"boundary/{on}/rate/{row.edge:.2f}": row.rate}
    return metrics


def _sweep(own: Arm, strong: Column, weak: Column, thresholds: Mapping[str, float]) -> Metrics:
    rows = threshold_sweep(strong, weak, own.flips, own.strata.codes, list(thresholds.values()))
    return {
        f"sensitivity/{name}/{figure}": value
        for name, row in zip(thresholds, rows, strict=True)
        for figure, value in _figures(row, adjusted=own.strata.codes is not None).items()
    }


def _figures(row: Threshold, *, adjusted: bool) -> dict[str, float | None]:
    excess = row.excess_flips if adjusted else None  # without strata of difficulty it would be something else
    return {"score": row.score, "base_rate": row.base_rate, "lift": row.lift, "excess_flips_baseline": excess}


def _tempered(own: Arm, ceiling: Predictions, weak: Predictions, threshold: float) -> Metrics:
    """Regions of confidences that were made to mean what they say; without a best temperature there are none."""
    fitted = {
        role: temperature(rows.margin) if np.isfinite(rows.margin).all() else None
        for role, rows in {"ceiling": ceiling, "weak": weak}.items()
    }
    metrics: Metrics = {f"calibration/temperature/{role}": value for role, value in fitted.items()}
    if fitted["ceiling"] is None or fitted["weak"] is None:
        return metrics
    strong = rescale(ceiling.margin, fitted["ceiling"])
    return metrics | _sweep(own, strong, rescale(weak.margin, fitted["weak"]), {"tempered": threshold})
