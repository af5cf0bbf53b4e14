"""One of two processes that measure a padded test set together. Run by test_torchmetrics.py, never imported by it.

    python two_ranks.py RANK RENDEZVOUS_FILE ROWS.json RESULT.json

The rows are dealt out as a padded distributed sampler would: rank r takes every second row from r on, and the last
rank gets the first row once more where the count is odd.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(rank: int, rendezvous: str, rows: str, result: str) -> None:
    import torch
    import torch.distributed as dist
    from torchmetrics import MetricCollection

    from w2sd.metrics.accuracy import PairwiseAccuracy
    from w2sd.metrics.deception_score import DeceptionScore
    from w2sd.metrics.pgr import PerformanceGapRecovered

    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    torch.set_default_dtype(torch.float64)  # JSON numbers are doubles
    columns = {name: torch.tensor(column) for name, column in json.loads(Path(rows).read_text()).items()}
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
    Path(result).write_text(json.dumps({"n": len(mine), "epochs": values}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
