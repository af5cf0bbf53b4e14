"""One comparison of weak model, student and ceiling: every figure with its uncertainty, under its flat name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.errors import require
from w2sd.metrics.functional import correctness, n_ties, pgr
from w2sd.metrics.predictions import Predictions, join
from w2sd.metrics.statistics import Column, clustered_bootstrap, clustered_standard_error, interval, mcnemar_exact

ROLES = ("weak", "student", "ceiling")

Metrics = dict[str, float | int | str | None]  # the only strings are reasons why a figure is None


def measure(predictions: Mapping[str, Predictions], *, n_resamples: int = 2000, seed: int = 0) -> Metrics:
    """Accuracies, gain and PGR of one student, joined by id, with 95% intervals; undefined is None, never 0.

    All intervals come from one set of resampled clusters. Where the rows do not vary (one cluster, equal
    confidences everywhere) nothing is known about the error of a figure: its `_se`, `_lo`, `_hi` are None.
    """
    for role in ROLES:
        require(role in predictions, "predictions", sorted(predictions), f"a role {role}")
    roles = [*ROLES, *(role for role in ("baseline", "zero_shot") if role in predictions)]
    joined = join({role: predictions[role] for role in roles})
    clusters = np.unique(joined["weak"].clusters, return_inverse=True)[1]
    correct = {role: correctness(joined[role].p_correct) for role in roles}
    draws = clustered_bootstrap(correct, clusters, n_resamples=n_resamples, seed=seed)

    metrics: Metrics = {}
    for role in roles:
        metrics |= _mean(f"accuracy/{role}", correct[role], draws[role], clusters)
    gain, gain_draws = correct["student"] - correct["weak"], draws["student"] - draws["weak"]
    metrics |= _mean("gain", gain, gain_draws, clusters)
    metrics["gain_mcnemar_p"] = _flips_p(joined["weak"].p_correct, joined["student"].p_correct)
    gap, gap_draws = correct["ceiling"] - correct["weak"], draws["ceiling"] - draws["weak"]
    metrics |= _mean("pgr_gap", gap, gap_draws, clusters)
    metrics |= _pgr(correct, gain_draws, gap_draws, clusters)
    metrics["n/test"] = len(clusters)
    metrics["n/clusters"] = int(clusters.max()) + 1
    metrics["n/ties"] = sum(n_ties(joined[role].p_correct) for role in ROLES)
    return metrics


def _mean(name: str, values: Column, draws: Column, clusters: NDArray[np.intp]) -> Metrics:
    """A mean with its clustered standard error and interval."""
    standard_error = clustered_standard_error(values, clusters) or None  # 0: the rows do not vary
    return {name: float(values.mean()), f"{name}_se": standard_error} | bounds(name, draws)


def bounds(name: str, draws: Column) -> Metrics:
    """The interval of the draws; None where they are all one value, for then they say nothing about the error."""
    lo, hi, _ = interval(draws)
    return {f"{name}_lo": None, f"{name}_hi": None} if lo == hi else {f"{name}_lo": lo, f"{name}_hi": hi}


def _pgr(correct: Mapping[str, Column], gain: Column, gap: Column, clusters: NDArray[np.intp]) -> Metrics:
    """PGR with its interval over the resamples that have a gap; None where the gap could be noise."""
    ratios = np.divide(gain, gap, out=np.full_like(gap, np.nan), where=gap > 0)
    metrics: Metrics = {"pgr": None, "pgr_lo": None, "pgr_hi": None, "pgr_n_undefined": interval(ratios).n_undefined}
    recovered = pgr_beyond_noise(correct["weak"], correct["student"], correct["ceiling"], clusters)
    if recovered is not None:
        metrics |= {"pgr": recovered} | bounds("pgr", ratios)
    return metrics


def pgr_beyond_noise(weak: Column, student: Column, ceiling: Column, clusters: ArrayLike) -> float | None:
    """PGR from the correctness of each row, or None where the gap could be noise.

    A gap within one paired clustered standard error, or one whose standard error is unknown, is no denominator.
    """
    standard_error = clustered_standard_error(ceiling - weak, clusters)
    means = [float(column.mean()) for column in (weak, student, ceiling)]
    return pgr(*means) if standard_error is not None and means[2] - means[0] > standard_error else None


def _flips_p(weak: Column, student: Column) -> float:
    """McNemar's p of the rows on which exactly one of two models is right; a tie counts as right, as in regions."""
    weak_right, student_right = weak >= 0.5, student >= 0.5
    return mcnemar_exact(int((student_right & ~weak_right).sum()), int((weak_right & ~student_right).sum()))
