"""Accuracy, the performance gap recovered (PGR) and agreement with the supervisor, each with its uncertainty.

`p_correct` is everywhere the confidence that a model puts on the answer that is truly better: 1 knows, 0 is
confidently wrong, exactly 1/2 is a tie.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.errors import require
from w2sd.metrics.statistics import (
    Metrics,
    bounds,
    clustered_bootstrap,
    clustered_standard_error,
    mcnemar_exact,
)
from w2sd.predictions import Column, Predictions, require_joined

ROLES = ("weak", "student", "ceiling")
PUPILS = ("student", "ceiling")  # whose agreement with the weak model is measured


def correctness(p_correct: ArrayLike) -> Column:
    """1 for each right row, 0 for each wrong one, 1/2 for an exact tie.

    >>> correctness([0.9, 0.5, 0.2]).tolist()
    [1.0, 0.5, 0.0]
    """
    return (np.sign(np.asarray(p_correct) - 0.5) + 1) / 2


def accuracy(p_correct: ArrayLike) -> float:
    """The share of right rows, ties half: (1/n) sum_i 1[p_i > 1/2] + 1/2 1[p_i = 1/2].

    >>> accuracy([0.9, 0.6, 0.5, 0.2])
    0.625
    """
    return float(correctness(p_correct).mean())


def pgr(weak: float, student: float, ceiling: float) -> float | None:
    """The share of the gap between weak model and ceiling that the student recovers; None where there is no gap.

    PGR = (student - weak) / (ceiling - weak), all three accuracies (Burns et al. 2023, arXiv 2312.09390, section 3).
    0 imitates the supervisor, 1 reaches the ceiling; below 0 and above 1 both happen. It is undefined if, and only
    if, ceiling <= weak. It says nothing about noise: whether the gap itself is real is for the caller to ask.

    >>> round(pgr(0.60, 0.72, 0.80), 12)
    0.6
    >>> pgr(0.80, 0.90, 0.80) is None
    True
    """
    return (student - weak) / (ceiling - weak) if ceiling > weak else None


def pgr_beyond_noise(weak: Column, student: Column, ceiling: Column, clusters: ArrayLike) -> float | None:
    """PGR from the correctness of each row, or None where the gap could be noise.

    A gap within one paired clustered standard error, or one whose standard error is unknown, is no denominator.
    """
    standard_error = clustered_standard_error(ceiling - weak, clusters)
    means = [float(column.mean()) for column in (weak, student, ceiling)]
    return pgr(*means) if standard_error is not None and means[2] - means[0] > standard_error else None


def measure_accuracy(joined: Mapping[str, Predictions], *, n_resamples: int = 2000) -> Metrics:
    """Accuracies, gain and PGR of one student, with 95% intervals; undefined is None, never 0.

    Roles are over the same pairs in one order (`predictions.join`). All intervals come from one set of resampled
    clusters. Where the rows do not vary (one cluster, equal confidences everywhere) nothing is known about the error
    of a figure: its `_se`, `_lo`, `_hi` are None.
    """
    for role in ROLES:
        require(role in joined, "predictions", sorted(joined), f"a role {role}")
    require_joined(joined)
    roles = [*ROLES, *(role for role in ("baseline", "zero_shot") if role in joined)]
    clusters = np.unique(joined["weak"].clusters, return_inverse=True)[1]
    correct = {role: correctness(joined[role].p_correct) for role in roles}
    draws = clustered_bootstrap(correct, clusters, n_resamples=n_resamples)

    metrics: Metrics = {}
    for role in roles:
        metrics |= _mean(f"accuracy/{role}", correct[role], draws[role], clusters)
    gain, gain_draws = correct["student"] - correct["weak"], draws["student"] - draws["weak"]
    metrics |= _mean("gain", gain, gain_draws, clusters)
    right, weak_right = (joined[role].p_correct >= 0.5 for role in ("student", "weak"))  # ties too, as in regions
    metrics["gain_mcnemar_p"] = mcnemar_exact(int((right & ~weak_right).sum()), int((weak_right & ~right).sum()))
    gap, gap_draws = correct["ceiling"] - correct["weak"], draws["ceiling"] - draws["weak"]
    metrics |= _mean("pgr_gap", gap, gap_draws, clusters)
    ratios = np.divide(gain_draws, gap_draws, out=np.full_like(gap_draws, np.nan), where=gap_draws > 0)
    recovered = pgr_beyond_noise(correct["weak"], correct["student"], correct["ceiling"], clusters)
    ends = {"pgr_lo": None, "pgr_hi": None} if recovered is None else bounds("pgr", ratios)
    metrics |= {"pgr": recovered, **ends, "pgr_n_undefined": int(np.isnan(ratios).sum())}
    metrics["n/test"] = len(clusters)
    metrics["n/clusters"] = int(clusters.max()) + 1
    metrics["n/ties"] = sum(int((correct[role] == 0.5).sum()) for role in ROLES)
    return metrics


def _mean(name: str, values: Column, draws: Column, clusters: NDArray[np.intp]) -> Metrics:
    """A mean with its clustered standard error and interval."""
    standard_error = clustered_standard_error(values, clusters) or None  # 0: the rows do not vary
    return {name: float(values.mean()), f"{name}_se": standard_error} | bounds(name, draws)


def agreement(joined: Mapping[str, Predictions], *, n_resamples: int = 2000) -> Metrics:
    """Shares of the pairs or items on which student and weak model agree, and ceiling and weak model; with intervals.

    A student that only imitates agrees with the weak model alike where that is right and where it is wrong (Burns et
    al. 2023, section 5.1.3, figure 8). The ceiling, which never saw it, shows how much agreement there is untaught.
    `weak_right` and `weak_wrong` are shares of those where the weak model is right or wrong; a tie is half of both.
    """
    weak = joined["weak"]
    right = correctness(weak.p_correct)
    clusters = np.unique(weak.clusters, return_inverse=True)[1]
    parts = {"": np.ones_like(right), "/weak_right": right, "/weak_wrong": 1 - right}
    same = {f"{role}{part}": parts[part] * agrees(weak, joined[role]) for role in PUPILS for part in parts}
    draws = clustered_bootstrap({**parts, **same}, clusters, n_resamples=n_resamples)
    metrics: Metrics = {}
    for role in PUPILS:
        for part in parts:
            name, n = f"agreement/{role}{part}", float(parts[part].sum())
            metrics[name] = float(same[f"{role}{part}"].sum()) / n if n else None
            of, out_of = draws[f"{role}{part}"], draws[part]
            metrics |= bounds(name, np.divide(of, out_of, out=np.full_like(of, np.nan), where=out_of > 0))
    return metrics


def agrees(one: Predictions, other: Predictions) -> Column:
    """1 where two models prefer the same option, 0 where they do not, ½ where one of them is undecided."""
    if one.predicted is not None and other.predicted is not None:
        return (one.predicted == other.predicted).astype(np.float64)
    return 1 - np.abs(correctness(one.p_correct) - correctness(other.p_correct))
