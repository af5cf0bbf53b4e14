"""What one of two processes does that measure a padded test set together, in a group that is there already."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import MetricCollection

from w2sd.metrics.torch_metrics import DeceptionScore, PairwiseAccuracy, PerformanceGapRecovered


def measure(rank: int, rows: dict[str, list[Any]]) -> dict[str, Any]:
    """The rows are dealt out as a padded distributed sampler would.

    Rank r takes every second row from r on, and the last rank gets the first row once more where the count is odd.
    """
    torch.set_default_dtype(torch.float64)  # JSON numbers are doubles
    columns = {name: torch.tensor(column) for name, column in rows.items()}
    n = len(columns["uid"])
    mine = torch.arange(rank, n + n % 2, 2) % n
    deception = {f"deception/{figure}": DeceptionScore(figure) for figure in ("score", "base_rate", "flips")}
    metrics = MetricCollection({"accuracy": PairwiseAccuracy(), "pgr": PerformanceGapRecovered(), **deception})
    values = []
    for n_batches in (3, 1 + rank):  # a second epoch after reset, with unequal numbers of batches
        for batch in mine.chunk(n_batches):
            metrics.update(**{name: column[batch] for name, column in columns.items()})
        values.append({name: value.item() for name, value in metrics.compute().items()})
        metrics.reset()
    torch.set_default_dtype(torch.float32)
    return {"n": len(mine), "epochs": values}
