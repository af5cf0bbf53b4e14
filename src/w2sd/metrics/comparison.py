"""Everything that predictions alone say of one student: what the stage `compare` writes, and what `w2sd-score` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from w2sd.metrics import diagnosis
from w2sd.metrics.agreement import agreement
from w2sd.metrics.deceived import measure_deception
from w2sd.metrics.measurement import Metrics, measure
from w2sd.metrics.predictions import Predictions, length_difference


def compare(joined: Mapping[str, Predictions], *, threshold: float = 0.75) -> Metrics:
    """All figures of the student among these roles (`predictions.join`); of deception where there is a baseline."""
    metrics = {**measure(joined), **agreement(joined), **diagnosis.describe(joined)}
    if "baseline" not in joined:  # no conflict, and nothing to depart from
        return metrics
    weak, baseline, student = (joined[role] for role in ("weak", "baseline", "student"))
    how: dict[str, Any] = {"threshold": threshold, "strata": weak.stratum, "lengths": length_difference(baseline)}
    metrics |= {**measure_deception(joined, **how), **diagnosis.vary(joined, **how)}
    return metrics | diagnosis.locate(baseline, student, weak, "test")
