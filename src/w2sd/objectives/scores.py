"""What models say of pairs and of items: scores, as objectives and measurements take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PairScores(NamedTuple):
    """What a reward model says of the two answers of each pair, in slot order."""

    first: Tensor  # [B]
    second: Tensor  # [B]

    @property
    def margin(self) -> Tensor:
        """How much better the first answer is, in the units of the loss."""
        return self.first - self.second

    @property
    def logits(self) -> Tensor:
        """The two slots as two classes, [B, 2]."""
        return torch.stack([self.first, self.second], dim=-1)

    def swapped(self, where: Tensor) -> PairScores:
        """The same with the two answers exchanged in some pairs."""
        return PairScores(*_swap(self.first, self.second, where))


class PairLogProbs(NamedTuple):
    """What a language model says of the two answers of each pair, in slot order: log-probabilities, summed over tokens.

    The end token counts where an answer has one. The reference is another language model, of which only this is known.
    """

    first: Tensor  # [B]
    second: Tensor  # [B]
    n_first: Tensor  # [B] tokens of the first answer
    n_second: Tensor  # [B]
    ref_first: Tensor | None = None  # [B] the same sums under the reference, where there is one
    ref_second: Tensor | None = None  # [B]

    @property
    def mean_margin(self) -> Tensor:
        """First minus second answer, per token."""
        return self.first / self.n_first - self.second / self.n_second

    @property
    def sum_margin(self) -> Tensor:
        """First minus second answer; of two that are equally likely per token the shorter one wins."""
        return self.first - self.second

    @property
    def reference(self) -> PairLogProbs:
        """The same of the reference, which has read the same tokens."""
        assert self.ref_first is not None
        assert self.ref_second is not None
        return PairLogProbs(self.ref_first, self.ref_second, self.n_first, self.n_second)

    def swapped(self, where: Tensor) -> PairLogProbs:
        """The same with the two answers exchanged in some pairs."""
        sides = [_swap(self.first, self.second, where), _swap(self.n_first, self.n_second, where)]
        if self.ref_first is not None and self.ref_second is not None:
            sides.append(_swap(self.ref_first, self.ref_second, where))
        return PairLogProbs(*(side for both in sides for side in both))


class ClassScores(NamedTuple):
    """What a classifier says of each item."""

    logits: Tensor  # [B, C]


def _swap(first: Tensor, second: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(where, second, first), torch.where(where, first, second)
