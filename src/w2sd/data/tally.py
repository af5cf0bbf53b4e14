"""How much there is in what a model reads, for rates: examples, tokens, and what is there for shape alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    Number = int | float | Tensor  # a tensor stays on its device: to look at it would make the processor wait


class Tally(NamedTuple):
    """Counts over some rows; `plus` adds two."""

    examples: Number = 0  # pairs; answers or documents where there are none
    tokens: Number = 0
    places: Number = 0  # tokens and padding

    def plus(self, other: Tally) -> Tally:
        return Tally(*(one + another for one, another in zip(self, other, strict=True)))

    def minus(self, other: Tally) -> Tally:
        return Tally(*(one - another for one, another in zip(self, other, strict=True)))
