"""From encoded pairs to what a model reads: global batches, cut into micro-batches that fit the memory.

The global batch is what an optimiser step sees. Inside it rows are sorted by length and cut under a budget of tokens,
padding too; per-example losses are summed over the pieces and divided once, so the budget never changes the step.
Several processes know the same global batches; each is dealt its part of every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from w2sd.data.layout import Text, Tokens, n_tokens, packed, plain
from w2sd.data.tally import Tally

if TYPE_CHECKING:
    from w2sd.data.text import Encoded, Ids


class PairBatch(NamedTuple):
    """Some pairs in slot order: the answers in all first slots come before those in all second slots."""

    tokens: Tokens
    rows: Tensor  # [n] which pairs these are
    targets: Tensor  # [n] P(first slot is better); NaN where there are none
    truth: Tensor  # [n] 1 where the first slot is better; NaN unless a conflict declares that it reads the truth
    reference_B: Tensor  # log-probability of each answer under the reference of a policy; NaN where there is none

    def tally(self) -> Tally:
        return self.tokens.tally()._replace(examples=len(self.rows))


class Rows:
    """Texts, of which some at a time are laid out as tokens: packed if `is_packed`, else padded.

    `lengths` are what a text takes of the budget: its tokens, or the padded rows of its answers.
    """

    def __init__(self, texts: list[Text], micro_tokens: int, is_packed: bool) -> None:
        self.texts, self.micro_tokens, self.is_packed = texts, micro_tokens, is_packed
        self.lengths = np.array([self._length(text) for text in texts], dtype=np.int64)

    def _length(self, text: Text) -> int:
        if self.is_packed:
            return n_tokens(text)
        return len(text.answers) * (len(text.prompt) + max(map(len, text.answers)))

    def __len__(self) -> int:
        return len(self.texts)

    def pieces(self, batch: list[int]) -> list[list[int]]:
        """Which texts of a batch are in memory together; those of one size follow each other."""
        pieces = cut(by_length(batch, self.lengths), self.lengths, self.micro_tokens, padded=not self.is_packed)
        return [sorted(piece, key=self._size) for piece in pieces] if self.is_packed else pieces

    def _size(self, i: int) -> tuple[int, ...]:
        return self.lengths[i], *map(len, self.texts[i].answers), i

    def tokens(self, piece: list[int]) -> Tokens:
        """Some texts, laid out."""
        return (packed if self.is_packed else plain)([self.texts[i] for i in piece])


class PairRows(Rows):
    """Encoded pairs in their slots. Indexed by the list of a global batch, it gives that batch's pieces.

    `references` [n, 2] are the reference's log-probabilities of the better and the worse answer.
    """

    def __init__(
        self,
        encoded: Encoded,
        swapped: np.ndarray,
        targets: np.ndarray | None,
        micro_tokens: int,
        truth: np.ndarray | None = None,
        references: np.ndarray | None = None,
        is_packed: bool = False,
    ) -> None:
        sides = zip(encoded.prompts, encoded.chosen, encoded.rejected, swapped, strict=True)
        texts = [Text(prompt, (worse, better) if swap else (better, worse)) for prompt, better, worse, swap in sides]
        super().__init__(texts, micro_tokens, is_packed)
        nothing = np.full(len(texts), np.nan)
        self.targets = nothing if targets is None else targets
        self.truth = nothing if truth is None else truth
        in_order = np.column_stack([nothing, nothing]) if references is None else references
        self.references = np.where(np.asarray(swapped, dtype=bool)[:, None], in_order[:, ::-1], in_order)

    def __getitem__(self, batch: list[int]) -> list[PairBatch]:
        return [self._collate(piece) for piece in self.pieces(batch)]

    def _collate(self, piece: list[int]) -> PairBatch:
        targets, truth = (torch.from_numpy(column[piece].astype(np.float32)) for column in (self.targets, self.truth))
        reference_B = torch.from_numpy(self.references[piece].T.reshape(-1).astype(np.float32))
        return PairBatch(self.tokens(piece), torch.tensor(piece), targets, truth, reference_B)


class ItemBatch(NamedTuple):
    """Some items to be classified."""

    tokens: Tokens
    rows: Tensor  # [n] which items these are
    targets: Tensor  # [n, C] how likely each class is to be the right one; NaN where there are none

    def tally(self) -> Tally:
        return self.tokens.tally()


class ItemRows(Rows):
    """Encoded items, indexed like pairs."""

    def __init__(
        self, texts: list[Ids], targets_NC: np.ndarray | None, micro_tokens: int, is_packed: bool = False
    ) -> None:
        nothing = np.zeros(0, dtype=np.int32)
        super().__init__([Text(nothing, (ids,)) for ids in texts], micro_tokens, is_packed)
        self.targets_NC = np.full((len(texts), 1), np.nan) if targets_NC is None else targets_NC

    def __getitem__(self, batch: list[int]) -> list[ItemBatch]:
        return [self._collate(piece) for piece in self.pieces(batch)]

    def _collate(self, piece: list[int]) -> ItemBatch:
        targets_BC = torch.from_numpy(self.targets_NC[piece].astype(np.float32))
        return ItemBatch(self.tokens(piece), torch.tensor(piece), targets_BC)


class AnswerRows(Rows):
    """Prompts with one answer each, indexed like pairs."""

    def __init__(self, prompts: list[Ids], answers: list[Ids], micro_tokens: int, is_packed: bool = False) -> None:
        texts = [Text(prompt, (answer,)) for prompt, answer in zip(prompts, answers, strict=True)]
        super().__init__(texts, micro_tokens, is_packed)

    def __getitem__(self, batch: list[int]) -> list[Tokens]:
        return [self.tokens(piece) for piece in self.pieces(batch)]


def by_length(batch: list[int], lengths: np.ndarray) -> list[int]:
    """The rows of a batch in an order that does not depend on that of the batch."""
    return sorted(batch, key=lambda i: (lengths[i], i))


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


def cut(order: list[int], lengths: np.ndarray, budget: int, padded: bool = True) -> list[list[int]]:
    """Consecutive pieces of `order`, each within `budget` tokens; a row that exceeds it stands alone.

    A piece that is padded has as many tokens as if all its rows were as long as the longest.

    >>> cut([0, 1, 2, 3], np.array([2, 2, 4, 9]), 8)
    [[0, 1], [2], [3]]
    >>> cut([0, 1, 2, 3], np.array([2, 2, 4, 9]), 8, padded=False)
    [[0, 1, 2], [3]]
    """
    pieces: list[list[int]] = []
    longest = total = 0
    for i in order:
        length = int(lengths[i])
        longest, total = max(longest, length), total + length
        if pieces and ((len(pieces[-1]) + 1) * longest if padded else total) <= budget:
            pieces[-1].append(i)
        else:
            pieces.append([i])
            longest = total = length
    return pieces


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

    It is a row of the same batch, which another process reads under the same weights and counts: 0 times its loss is no
    number only where the batch has no loss either. Were it otherwise, the sum would say so, and the step is not taken.
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
