"""How much there is in what a model reads, for rates: examples, tokens, and what is there for shape alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Number = int | float | Tensor  # a tensor stays on its device: to look at it would make the processor wait


class Tally(NamedTuple):
    """Sums over some rows, which `plus` those of others."""

    examples: Number = 0  # pairs; answers or documents where there are none
    tokens: Number = 0
    places: Number = 0  # tokens and padding
    predicted: Number = 0  # tokens whose probability is asked for, if the model can say it
    squares: Number = 0  # of the lengths of the rows

    def plus(self, other: Tally) -> Tally:
        return Tally(*(one + another for one, another in zip(self, other, strict=True)))

    def minus(self, other: Tally) -> Tally:
        return Tally(*(one - another for one, another in zip(self, other, strict=True)))


def of_rows(examples: int, mask_BT: Tensor, n_answer_B: Tensor) -> Tally:
    """What is in rows that are padded to one length and end in answers."""
    lengths_B = mask_BT.sum(dim=1)
    return Tally(examples, lengths_B.sum(), mask_BT.numel(), n_answer_B.sum(), lengths_B.square().sum())
