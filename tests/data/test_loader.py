"""Loaders: what is shuffled and dealt is all there, once, and a loader goes on where another stopped."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import answers_in

from w2sd.data.batch import AnswerRows
from w2sd.data.loader import Filler, Loader, Shuffled, deal, in_length_order

lengths_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=40).map(np.array)
hands_of_a_group = st.integers(1, 6)


@given(lengths_of_rows, hands_of_a_group)
def test_dealing_gives_every_row_to_one_hand(lengths: np.ndarray, hands: int) -> None:
    dealt = deal(list(range(len(lengths))), lengths, hands)
    assert len(dealt) == hands
    assert sorted(i for hand in dealt for i in hand) == list(range(len(lengths)))


@given(lengths_of_rows, hands_of_a_group)
def test_no_hand_has_more_tokens_than_another_by_more_than_the_longest_row(lengths: np.ndarray, hands: int) -> None:
    dealt = deal(list(range(len(lengths))), lengths, hands)
    tokens = [int(lengths[hand].sum()) for hand in dealt]
    assert max(tokens) - min(tokens) <= lengths.max()
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(lengths_of_rows, hands_of_a_group, st.randoms())
def test_dealing_does_not_depend_on_the_order_of_a_batch(lengths: np.ndarray, hands: int, rng: random.Random) -> None:
    batch = list(range(len(lengths)))
    shuffled = rng.sample(batch, len(batch))
    assert deal(shuffled, lengths, hands) == deal(batch, lengths, hands)


def batches(n_rows: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    shuffled = Shuffled(n_rows, batch, seed)
    shuffled.set_epoch(epoch)
    assert len(list(shuffled)) == len(shuffled)
    return list(shuffled)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_has_every_row_once(n_rows: int, batch: int, seed: int, epoch: int) -> None:
    pieces = batches(n_rows, batch, seed, epoch)
    assert sorted(i for piece in pieces for i in piece) == list(range(n_rows))
    assert {len(piece) for piece in pieces[:-1]} <= {batch}
    assert 1 <= len(pieces[-1]) <= batch


def test_the_last_batch_may_be_smaller() -> None:
    assert [len(piece) for piece in batches(10, 4, seed=0, epoch=0)] == [4, 4, 2]


def test_seed_and_epoch_decide_the_order_and_random_state_does_not() -> None:
    orders = {(seed, epoch): batches(40, 8, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len({str(order) for order in orders.values()}) == 9
    for shake in range(2):
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(shake)
        before = (torch.get_rng_state(), random.getstate())
        assert {key: batches(40, 8, *key) for key in orders} == orders
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]


def test_the_global_batch_changes_no_order() -> None:
    flat = [[i for piece in batches(40, batch, seed=3, epoch=1) for i in piece] for batch in (1, 7, 40, 99)]
    assert all(order == flat[0] for order in flat)


class Echo:
    """Rows that give back what they are asked for, and note it."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __getitem__(self, batch: list[int]) -> list[Any]:
        self.asked.append(batch)
        return batch


def loader(seed: int = 0) -> Loader:
    return Loader(Echo(), Shuffled(20, 3, seed))  # seven batches, the last of two rows


def epochs(of: Loader, *numbers: int) -> list[list[Any]]:
    out = []
    for epoch in numbers:
        of.sampler.set_epoch(epoch)
        out.append([batch.pieces for batch in of])
    return out


@pytest.mark.parametrize("place", range(8))
def test_a_loader_goes_on_where_another_stopped(place: int) -> None:
    """`place` batches were taken in epoch 1; 7 is the end of the epoch, from where the next one begins."""
    whole = epochs(loader(), 0, 1, 2)
    first = loader()
    epochs(first, 0)
    first.sampler.set_epoch(1)
    steps = iter(first)
    taken = [next(steps).pieces for _ in range(place)]
    state = first.state_dict()

    second = loader()
    second.load_state_dict(state)
    rest = epochs(second, 1, 2) if place < 7 else epochs(second, 2)
    if place == 0:  # nothing of this epoch was taken yet: the place is still the end of the one before
        assert state == {"place": 7}
    assert taken + (rest[0] if place < 7 else []) == whole[1]
    assert rest[-1] == whole[2]


@given(lengths_of_rows, st.integers(2, 5), st.integers(1, 8), st.integers(1, 100))
def test_a_group_takes_equally_many_pieces_and_together_all_rows_once(
    lengths: np.ndarray, world: int, size: int, micro_tokens: int
) -> None:
    """A piece too many for a process is one row of the same batch, marked as counting nothing."""
    prompts = [np.zeros(length, dtype=np.int64) for length in lengths]
    answers = [np.array([n]) for n in range(len(lengths))]  # of each row, its number
    shares = []
    for rank in range(world):
        mine = Loader(AnswerRows(prompts, answers, micro_tokens), Shuffled(len(lengths), size, 0))
        mine.rank, mine.world = rank, world
        shares.append([batch.pieces for batch in mine])
    for batch, *parts in zip(Shuffled(len(lengths), size, 0), *shares, strict=True):
        assert len({len(part) for part in parts}) == 1
        own = [piece for part in parts for piece in part if not isinstance(piece, Filler)]
        fillers = [piece.piece for part in parts for piece in part if isinstance(piece, Filler)]
        assert sorted(number for piece in own for _, [number] in answers_in(piece)) == sorted(batch)
        assert all(number in batch for piece in fillers for _, [number] in answers_in(piece))
        assert all(len(piece.ids) == 1 for piece in fillers)


def test_a_loader_makes_no_batch_that_it_skips() -> None:
    resumed = loader()
    resumed.load_state_dict({"place": 5})
    assert len(list(resumed)) == 2
    assert resumed.rows.asked == epochs(loader(), 0)[0][5:]


def test_a_state_survives_being_loaded() -> None:
    """A run that is interrupted again before its first batch stands where it stood."""
    for place in range(8):
        resumed = loader()
        resumed.load_state_dict({"place": place})
        assert resumed.state_dict() == {"place": place}


def test_a_resumed_epoch_is_short_and_the_next_one_is_whole() -> None:
    resumed = loader()
    resumed.load_state_dict({"place": 4})
    assert [len(epoch) for epoch in epochs(resumed, 0, 1, 2)] == [3, 7, 7]
    assert len(resumed) == 7


def test_a_fixed_order_is_kept() -> None:
    fixed = Loader(Echo(), [[3, 1], [2]])
    assert [[batch.indices for batch in fixed] for _ in range(2)] == [[[3, 1], [2]]] * 2
    assert not hasattr(fixed, "sampler")  # nobody to tell the epoch


@given(lengths_of_rows, st.integers(1, 10))
def test_rows_are_scored_in_order_of_length(lengths: np.ndarray, batch: int) -> None:
    pieces = in_length_order(lengths, batch)
    order = [i for piece in pieces for i in piece]
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) >= 0).all()
    assert all(len(piece) == batch for piece in pieces[:-1])
