"""States of a frozen transformer in the place of tokens: rows that were read before, and are not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from w2sd.data.batch import PairRows
from w2sd.data.tally import Tally

if TYPE_CHECKING:
    import numpy as np

    from w2sd.data.layout import Text


class States(NamedTuple):
    """Of each answer the state at its end: the first ones of all rows, then the second ones."""

    of_BD: Tensor

    def tally(self) -> Tally:
        """No token is read."""
        return Tally(len(self.of_BD))


class StateRows(PairRows):
    """Pairs in their slots, each answer as the state that a transformer had at its end. `states` is [n, 2, D]."""

    def __init__(self, states: np.ndarray, *pairs: Any, **others: Any) -> None:
        super().__init__(*pairs, **others)
        self.states = torch.from_numpy(states)

    def _length(self, text: Text) -> int:
        return len(text.answers)

    def pieces(self, batch: list[int]) -> list[list[int]]:
        """Rows of one size, so that the budget is a number of rows."""
        order, most = sorted(batch), max(1, self.micro_tokens // 2)
        return [order[start : start + most] for start in range(0, len(order), most)]

    def tokens(self, piece: list[int]) -> States:  # type: ignore[override]
        """Some rows, laid out as tokens are."""
        return States(self.states[piece].transpose(0, 1).flatten(0, 1))
