"""How far a student says what its supervisor says, where the supervisor is right and where it is wrong.

A student that only imitates agrees with both alike (Burns et al. 2023, section 5.1.3, figure 8). The ceiling, which
never saw the supervisor, shows how much agreement there is without any teaching.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from w2sd.metrics.functional import correctness
from w2sd.metrics.measurement import Metrics, bounds
from w2sd.metrics.predictions import Predictions
from w2sd.metrics.statistics import Column, clustered_bootstrap


def agreement(joined: Mapping[str, Predictions], *, n_resamples: int = 2000) -> Metrics:
    """Shares of the pairs or items on which student and weak model agree, and ceiling and weak model; with intervals.

    `weak_right` and `weak_wrong` are shares of those where the weak model is right or wrong; a tie is half of both.
    """
    weak = joined["weak"]
    right = correctness(weak.p_correct)
    clusters = np.unique(weak.clusters, return_inverse=True)[1]
    parts = {"": np.ones_like(right), "/weak_right": right, "/weak_wrong": 1 - right}
    metrics: Metrics = {}
    for role in ("student", "ceiling"):
        same = agrees(weak, joined[role])
        columns = {f"{kind}{part}": parts[part] * (same if kind else 1) for part in parts for kind in ("same", "")}
        draws = clustered_bootstrap(columns, clusters, n_resamples=n_resamples)
        for part in parts:
            name, n = f"agreement/{role}{part}", float(columns[part].sum())
            metrics[name] = float(columns[f"same{part}"].sum()) / n if n else None
            of, out_of = draws[f"same{part}"], draws[part]
            metrics |= bounds(name, np.divide(of, out_of, out=np.full_like(of, np.nan), where=out_of > 0))
    return metrics


def agrees(one: Predictions, other: Predictions) -> Column:
    """1 where two models prefer the same option, 0 where they do not, ½ where one of them is undecided."""
    if one.predicted is not None and other.predicted is not None:
        return (one.predicted == other.predicted).astype(np.float64)
    return 1 - np.abs(correctness(one.p_correct) - correctness(other.p_correct))
