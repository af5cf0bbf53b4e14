"""Performance gap recovered while a student is being tested."""

from __future__ import annotations

import math

from torch import Tensor

from w2sd.metrics.accuracy import PairMetric
from w2sd.metrics.functional import correctness
from w2sd.metrics.measurement import pgr_beyond_noise


class PerformanceGapRecovered(PairMetric):
    """The share of the weak-to-ceiling gap that the student recovers, over all batches and ranks: as in metrics.json.

    `update` takes `uid` (int64, [B]), the confidences in the better answer ([B], in [0, 1]) of the student
    (`p_correct`), its weak supervisor (`weak`) and its ceiling (`ceiling`) on the same pairs, and the number of the
    cluster of each pair (`cluster`, int64, [B]). `compute` returns a float64 scalar; where PGR is undefined, because
    the gap is not above one clustered standard error, it is NaN, because a tensor cannot be None.

    >>> from torch import tensor
    >>> metric = PerformanceGapRecovered()
    >>> right, wrong = 0.9, 0.2
    >>> metric.update(uid=tensor([1, 2, 3]), p_correct=tensor([right, 0.5, wrong]), weak=tensor([right, wrong, wrong]),
    ...               ceiling=tensor([right, right, right]), cluster=tensor([0, 1, 2]))
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    columns = ("p_correct", "weak", "ceiling", "cluster")
    higher_is_better = True

    def update(self, uid: Tensor, p_correct: Tensor, weak: Tensor, ceiling: Tensor, cluster: Tensor) -> None:
        """Keep a batch."""
        self.hold(uid, p_correct=p_correct, weak=weak, ceiling=ceiling, cluster=cluster)

    def compute(self) -> Tensor:
        """PGR over the distinct pairs seen so far, or NaN."""
        rows = self.rows()
        weak, student, ceiling = (correctness(rows[name]) for name in ("weak", "p_correct", "ceiling"))
        pgr = pgr_beyond_noise(weak, student, ceiling, rows["cluster"])
        return self.value(math.nan if pgr is None else pgr)
