"""Scores for tests of objectives and conflicts, in the form that an objective's student gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, tensor

from w2sd.objectives.base import Moment
from w2sd.objectives.reward import StepObjective
from w2sd.objectives.scores import PairLogProbs, PairScores

N_FIRST, N_SECOND = 3.0, 5.0  # tokens of the answers


def pure(objective: Any) -> Any:
    """The objective itself, or what it is at the end of a training, on a batch that is even on both sides."""
    if not isinstance(objective, StepObjective):
        return objective
    margins = torch.linspace(-3, 3, 16, dtype=torch.float64)
    logits = PairScores(margins, torch.zeros_like(margins)).logits
    return objective.fixed(Moment(1, 1), logits, torch.linspace(0.05, 0.95, 16, dtype=torch.float64))


def doubles(*values: Any) -> tuple[Tensor, ...]:
    return tuple(tensor(value, dtype=torch.float64) for value in values)


def log_probs(first: Any, second: Any, ref_first: Any = None, ref_second: Any = None, n: Any = (1.0, 1.0)) -> Any:
    """Sums of log-probabilities, of answers of `n` tokens."""
    sides = [None if side is None else torch.as_tensor(side, dtype=torch.float64) for side in (ref_first, ref_second)]
    first, second = (torch.as_tensor(side, dtype=torch.float64) for side in (first, second))
    return PairLogProbs(first, second, *(torch.full_like(first, float(tokens)) for tokens in n), *sides)


def scored(objective: Any, first: Tensor, second: Tensor, n: tuple[float, float] = (N_FIRST, N_SECOND)) -> Any:
    """These scores, or for a policy log-probabilities of answers of different lengths; beside them a reference's."""
    if objective.student == "reward":
        return PairScores(first, second)
    lengths = [torch.full_like(first.detach(), tokens) for tokens in n]
    reference = [0.5 * side.detach().flip(0) - 1 for side in (first, second)] if objective.needs_reference else []
    return PairLogProbs(first, second, *lengths, *reference)


def level(objective: Any, first: Tensor, second: Tensor) -> Any:
    """The same with nothing but the scores to tell the answers apart: equal lengths, equal in the reference's eyes."""
    pair = scored(objective, first, second, (1.0, 1.0))
    if not objective.needs_reference:
        return pair
    return pair._replace(ref_first=torch.zeros_like(first), ref_second=torch.zeros_like(second))


def rows(pair: Any, which: slice) -> Any:
    """Some pairs alone."""
    return type(pair)(*(None if side is None else side[which] for side in pair))


def exchanged(pair: Any) -> Any:
    """The same pairs in the other slots."""
    sides = list(pair)
    sides[::2], sides[1::2] = sides[1::2], sides[::2]
    return type(pair)(*sides)
