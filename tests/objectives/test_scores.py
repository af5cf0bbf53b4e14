"""Scores of pairs: margins in either reading, and what becomes of them where answers change their slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from w2sd.objectives.scores import PairLogProbs, PairScores

SIDES = {
    "first": [-30.0, -8.0],
    "second": [-33.0, -2.0],
    "n_first": [10.0, 4.0],
    "n_second": [3.0, 1.0],
    "ref_first": [-31.0, -9.0],
    "ref_second": [-32.0, -1.0],
}


def pairs(*names: str) -> PairLogProbs:
    return PairLogProbs(**{name: torch.tensor(SIDES[name], dtype=torch.float64) for name in names})


def test_margins_are_first_minus_second() -> None:
    assert PairScores(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])).margin.tolist() == [-2.0, 1.5]
    said = pairs(*SIDES)
    assert said.mean_margin.tolist() == [-3.0 + 11.0, -2.0 + 2.0]
    assert said.sum_margin.tolist() == [3.0, -6.0]
    assert said.reference.sum_margin.tolist() == [1.0, -8.0]
    assert said.reference.mean_margin.tolist() == pytest.approx([-3.1 + 32 / 3, -2.25 + 1.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: pairs(*SIDES),
        lambda: pairs(*list(SIDES)[:4]),
        lambda: PairScores(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])),
    ],
    ids=["with a reference", "without", "rewards"],
)
def test_exchanged_answers_exchange_everything_that_is_known_of_them(make: Callable[[], Any]) -> None:
    said, where = make(), torch.tensor([True, False])
    swapped = said.swapped(where)
    assert type(swapped) is type(said)
    for name in said._fields:
        other = name.replace("first", "x").replace("second", "first").replace("x", "second")
        if getattr(said, name) is None:
            assert getattr(swapped, name) is None
        else:
            assert getattr(swapped, name).tolist() == [getattr(said, other)[0].item(), getattr(said, name)[1].item()]
    margins = ("margin",) if isinstance(said, PairScores) else ("mean_margin", "sum_margin")
    for name in margins:
        assert getattr(swapped, name).tolist() == [-getattr(said, name)[0].item(), getattr(said, name)[1].item()]
