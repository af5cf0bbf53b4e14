"""States of a frozen transformer in the place of tokens: rows that were read before, and are not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from w2sd.data.batch import ItemRows, PairRows, Rows
from w2sd.data.tally import Tally

if TYPE_CHECKING:
    import numpy as np

    from w2sd.data.layout import Text


class States(NamedTuple):
    """The state at the end of each text; of pairs the first ones of all rows, then the second ones."""

    of_BD: Tensor

    def tally(self) -> Tally:
        """No token is read."""
        return Tally(len(self.of_BD))


class _StateRows(Rows):
    """Rows whose texts are states, [n, answers, D]."""

    def __init__(self, *rows: Any, states_NAD: np.ndarray, **others: Any) -> None:
        super().__init__(*rows, **others)
        self.states_NAD = torch.from_numpy(states_NAD)

    def _length(self, text: Text) -> int:
        return len(text.answers)

    def pieces(self, batch: list[int]) -> list[list[int]]:
        """Rows of one size, so that the budget is a number of rows."""
        order, most = sorted(batch), max(1, self.micro_tokens // self.states_NAD.shape[1])
        return [order[start : start + most] for start in range(0, len(order), most)]

    def tokens(self, piece: list[int]) -> States:  # type: ignore[override]
        """Some rows, laid out as tokens are."""
        return States(self.states_NAD[piece].transpose(0, 1).flatten(0, 1))


class StatePairs(_StateRows, PairRows):
    """Pairs in their slots, given as their states and as `PairRows` are."""


class StateItems(_StateRows, ItemRows):
    """Items, likewise."""
