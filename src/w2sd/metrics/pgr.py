"""Performance gap recovered while a student is being tested."""

from __future__ import annotations

import math

from torch import Tensor

from w2sd.metrics import functional
from w2sd.metrics.accuracy import PairMetric


class PerformanceGapRecovered(PairMetric):
    """The share of the weak-to-ceiling gap that the student recovers: `functional.pgr` over all batches and ranks.

    `update` takes `uid` (int64, [B]) and the confidences in the better answer ([B], in [0, 1]) of the student
    (`p_correct`), its weak supervisor (`weak`) and its ceiling (`ceiling`) on the same pairs. `compute` returns a
    float64 scalar; where PGR is undefined it is NaN, because a tensor cannot be None.

    >>> from torch import tensor
    >>> metric = PerformanceGapRecovered()
    >>> right, wrong = 0.9, 0.2
    >>> metric.update(uid=tensor([1, 2]), p_correct=tensor([right, 0.5]), weak=tensor([right, wrong]),
    ...               ceiling=tensor([right, right]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    columns = ("p_correct", "weak", "ceiling")
    higher_is_better = True

    def update(self, uid: Tensor, p_correct: Tensor, weak: Tensor, ceiling: Tensor) -> None:
        """Keep a batch."""
        self.hold(uid, p_correct=p_correct, weak=weak, ceiling=ceiling)

    def compute(self) -> Tensor:
        """PGR over the distinct pairs seen so far, or NaN."""
        rows = {name: functional.accuracy(column) for name, column in self.rows().items()}
        pgr = functional.pgr(rows["weak"], rows["p_correct"], rows["ceiling"])
        return self.value(math.nan if pgr is None else pgr)
