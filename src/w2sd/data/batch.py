"""From encoded pairs to what a model reads: global batches, cut into micro-batches that fit the memory.

The global batch is what an optimiser step sees. Inside it rows are sorted by length and cut under a budget of tokens,
padding too; per-example losses are summed over the pieces and divided once, so the budget never changes the step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from w2sd.data.layout import Text, Tokens, packed, plain
from w2sd.data.tally import Tally
from w2sd.data.text import Encoded, Ids


class PairBatch(NamedTuple):
    """Some pairs in slot order: the answers in all first slots come before those in all second slots."""

    tokens: Tokens
    rows: Tensor  # [n] which pairs these are
    targets: Tensor  # [n] P(first slot is better); NaN where there are none
    truth: Tensor  # [n] 1 where the first slot is better; NaN unless a conflict declares that it reads the truth
    draws: Tensor  # [n] a number in [0, 1) from the pair's id and the seed; NaN unless a conflict reads it
    reference_B: Tensor  # log-probability of each answer under the reference of a policy; NaN where there is none

    def tally(self) -> Tally:
        return self.tokens.tally()._replace(examples=len(self.rows))


class Rows:
    """Texts that are laid out as tokens a piece at a time: packed if `is_packed`, else padded.

    Indexed by the list of a global batch, they give that batch's pieces.
    `lengths` are what a text takes of the budget: its tokens, or the padded rows of its answers.
    """

    def __init__(self, texts: list[Text], micro_tokens: int, *, is_packed: bool) -> None:
        self.texts, self.micro_tokens, self.is_packed = texts, micro_tokens, is_packed
        self.lengths = np.array([self._length(text) for text in texts], dtype=np.int64)

    def _length(self, text: Text) -> int:
        if self.is_packed:
            return len(text.prompt) + sum(map(len, text.answers))
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

    def __getitem__(self, batch: list[int]) -> list[Any]:
        return [self.collate(piece) for piece in self.pieces(batch)]

    def collate(self, piece: list[int]) -> Any:
        """Some texts, with what else belongs to them."""
        return self.tokens(piece)


class PairRows(Rows):
    """Encoded pairs in their slots.

    `references` [n, 2] are the reference's log-probabilities of the better and the worse answer.
    """

    def __init__(
        self,
        encoded: Encoded,
        swapped: np.ndarray,
        micro_tokens: int,
        *,
        targets: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        draws: np.ndarray | None = None,
        references: np.ndarray | None = None,
        is_packed: bool = False,
    ) -> None:
        sides = zip(encoded.prompts, encoded.chosen, encoded.rejected, swapped, strict=True)
        texts = [Text(prompt, (worse, better) if swap else (better, worse)) for prompt, better, worse, swap in sides]
        super().__init__(texts, micro_tokens, is_packed=is_packed)
        nothing = np.full(len(texts), np.nan)
        self.targets = nothing if targets is None else targets
        self.truth = nothing if truth is None else truth
        self.draws = nothing if draws is None else draws
        in_order = np.column_stack([nothing, nothing]) if references is None else references
        self.references = np.where(np.asarray(swapped, dtype=bool)[:, None], in_order[:, ::-1], in_order)

    def collate(self, piece: list[int]) -> PairBatch:
        columns = (self.targets, self.truth, self.draws)
        targets, truth, draws = (torch.from_numpy(column[piece].astype(np.float32)) for column in columns)
        reference_B = torch.from_numpy(self.references[piece].T.reshape(-1).astype(np.float32))
        return PairBatch(self.tokens(piece), torch.tensor(piece), targets, truth, draws, reference_B)


class ItemBatch(NamedTuple):
    """Some items to be classified."""

    tokens: Tokens
    rows: Tensor  # [n] which items these are
    targets: Tensor  # [n, C] how likely each class is to be the right one; NaN where there are none

    def tally(self) -> Tally:
        return self.tokens.tally()


class ItemRows(Rows):
    """Encoded items."""

    def __init__(
        self, texts: list[Ids], micro_tokens: int, *, targets_NC: np.ndarray | None = None, is_packed: bool = False
    ) -> None:
        nothing = np.zeros(0, dtype=np.int32)
        super().__init__([Text(nothing, (ids,)) for ids in texts], micro_tokens, is_packed=is_packed)
        self.targets_NC = np.full((len(texts), 1), np.nan) if targets_NC is None else targets_NC

    def collate(self, piece: list[int]) -> ItemBatch:
        targets_BC = torch.from_numpy(self.targets_NC[piece].astype(np.float32))
        return ItemBatch(self.tokens(piece), torch.tensor(piece), targets_BC)


class AnswerRows(Rows):
    """Prompts with one answer each."""

    def __init__(self, prompts: list[Ids], answers: list[Ids], micro_tokens: int, *, is_packed: bool = False) -> None:
        texts = [Text(prompt, (answer,)) for prompt, answer in zip(prompts, answers, strict=True)]
        super().__init__(texts, micro_tokens, is_packed=is_packed)


def by_length(batch: list[int], lengths: np.ndarray) -> list[int]:
    """The rows of a batch in an order that does not depend on that of the batch."""
    return sorted(batch, key=lambda i: (lengths[i], i))


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
