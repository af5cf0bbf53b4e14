"""Global batches in an order that can be gone on with.

Several processes know the same global batches; each is dealt its part of every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from w2sd.data.batch import by_length


def deal(batch: list[int], lengths: np.ndarray, hands: int) -> list[list[int]]:
    """Every row of a batch in one of so many hands, whose sums of lengths differ by the longest row at most.

    From the longest row to the shortest, and to and fro between the hands, so that each has long and short ones.

    >>> deal([0, 1, 2, 3, 4], np.array([1, 2, 3, 4, 5]), 2)
    [[4, 1, 0], [3, 2]]
    """
    to_and_fro = [*range(hands), *reversed(range(hands))]
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for n, i in enumerate(reversed(by_length(batch, lengths))):
        dealt[to_and_fro[n % len(to_and_fro)]].append(i)
    return dealt


class Shuffled:
    """Global batches in an order that seed and epoch alone decide; the last one may be smaller."""

    def __init__(self, n_rows: int, batch: int, seed: int) -> None:
        self.n_rows, self.batch, self.seed, self.epoch = n_rows, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n_rows // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_rows).tolist()
        return (order[start : start + self.batch] for start in range(0, self.n_rows, self.batch))


class Batched(Protocol):
    """Rows that are indexed by the list of a global batch, and give that batch's pieces."""

    lengths: np.ndarray
    micro_tokens: int  # the budget, which may fall while batches are taken
    is_packed: bool  # whether a piece is one row without padding (data/layout.py)

    def pieces(self, batch: list[int]) -> list[list[int]]: ...

    def __getitem__(self, batch: list[int]) -> list[Any]: ...


class Filler(NamedTuple):
    """A piece that counts nothing here: processes that work in step have to take equally many.

    Its loss is multiplied by 0. That is NaN only if the row's loss is not finite, and then the process that counts it
    refuses the step anyway.
    """

    piece: Any


class Batch(NamedTuple):
    """A global batch, or what a process is dealt of it, in pieces; and what it takes to cut it up again."""

    pieces: list[Any]
    rows: Batched
    indices: list[int]


class Loader:
    """Global batches for Lightning, made in this process: all of each, or what its `rank` of a `world` is dealt.

    Its place in the epoch is part of every checkpoint: without that, Lightning repeats data after a resume.
    """

    def __init__(self, rows: Batched, batches: Shuffled | list[list[int]]) -> None:
        self.rows, self.batches = rows, batches
        if isinstance(batches, Shuffled):
            self.sampler = batches  # where Lightning looks for somebody to tell the epoch
        self._start = self._place = 0
        self.rank, self.world = 0, 1

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        for place, batch in enumerate(self.batches):
            if place >= start:
                self._place = place + 1
                yield Batch(self.rows[batch], self.rows, batch) if self.world == 1 else self._share(batch)

    def _share(self, batch: list[int]) -> Batch:
        """This process's pieces of a batch, as many as every other has."""
        hands = deal(batch, self.rows.lengths, self.world)
        hand = hands[self.rank]
        own, most = self.rows[hand], max(len(self.rows.pieces(hand)) for hand in hands)
        if len(own) < most:
            [shortest] = self.rows[by_length(batch, self.rows.lengths)[:1]]
            own = own + [Filler(shortest)] * (most - len(own))
        return Batch(own, self.rows, hand)

    def state_dict(self) -> dict[str, int]:
        return {"place": self._place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._place = state["place"]
        self._start = self._place % len(self)


def in_length_order(lengths: np.ndarray, batch: int = 256) -> list[list[int]]:
    """Batches for scoring, where only the cost depends on the order; `micro_tokens` bounds the memory."""
    order = np.argsort(lengths, kind="stable").tolist()
    return [order[start : start + batch] for start in range(0, len(order), batch)]
