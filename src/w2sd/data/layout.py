"""How texts lie in the tensors that a transformer reads, where their answers are found, and how much is read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2sd.data.tally import Tally
from w2sd.data.text import Ids

NOWHERE = -1  # what is before the first token of a text


class Text(NamedTuple):
    """A prompt, which may be empty, and its answers, which may not, as ids."""

    prompt: Ids
    answers: tuple[Ids, ...]


class Tokens(NamedTuple):
    """Texts as tensors. Answers are numbered through: the first ones of all texts, then the second ones.

    Places are counted in `ids.flatten()`. A token with nothing before it is predicted from nowhere and is in none of
    the `_N`.
    """

    ids: Tensor  # [B, T] plain, [1, all] packed
    positions: Tensor  # like ids: the place in prompt + answer
    mask: Tensor | None  # [B, T] 1 where there is a token; None: packed, no padding
    sizes: NDArray[np.int64]  # [texts, 1 + answers] packed: tokens of the prompt and of each answer
    end_B: Tensor  # the place of the last token of each answer
    n_answer_B: Tensor  # tokens of each answer
    from_N: Tensor  # the place that each token of an answer is predicted from
    token_N: Tensor  # that token
    of_N: Tensor  # the answer that it belongs to

    def tally(self) -> Tally:
        """How much there is to read; an example is an answer."""
        n = len(self.n_answer_B)
        if self.mask is not None:
            return Tally(n, self.mask.sum(), self.mask.numel())
        return Tally(n, self.ids.numel(), self.ids.numel())

    def to(self, device: str) -> Tokens:
        """The same on a device."""
        parts = self._asdict().items()
        moved: dict[str, Any] = {name: part.to(device) for name, part in parts if isinstance(part, Tensor)}
        return self._replace(**moved)


def plain(texts: list[Text]) -> Tokens:
    """One padded row for each answer."""
    answers = [(text.prompt, text.answers[slot]) for slot in range(len(texts[0].answers)) for text in texts]
    rows = [np.concatenate(both) for both in answers]
    ids_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask_BT = np.zeros_like(ids_BT)
    for n, row in enumerate(rows):
        ids_BT[n, : len(row)] = row
        mask_BT[n, : len(row)] = 1
    return masked(
        torch.from_numpy(ids_BT), torch.from_numpy(mask_BT), torch.tensor([len(answer) for _, answer in answers])
    )


def masked(ids_BT: Tensor, mask_BT: Tensor, n_answer_B: Tensor) -> Tokens:
    """Rows that end in an answer, padded on whichever side."""
    n_columns, columns_T = ids_BT.shape[1], torch.arange(ids_BT.shape[1], device=ids_BT.device)
    last_B = n_columns - 1 - mask_BT.flip(1).argmax(dim=1)
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    after_BT = columns_T - (last_B - n_answer_B)[:, None]  # 1 for the first token of the answer
    predicted_BT = (after_BT >= 1) & (after_BT <= n_answer_B[:, None]) & (positions_BT >= 1)
    of_N, column_N = predicted_BT.nonzero(as_tuple=True)
    rows_B = torch.arange(len(ids_BT), device=ids_BT.device)
    return Tokens(
        ids_BT,
        positions_BT,
        mask_BT,
        np.zeros((0, 0), dtype=np.int64),
        rows_B * n_columns + last_B,
        n_answer_B,
        of_N * n_columns + column_N - 1,
        ids_BT[of_N, column_N],
        of_N,
    )


def packed(texts: list[Text]) -> Tokens:
    """All texts in one row, each prompt once."""
    spans, start = [], 0  # of every answer: its slot, where it begins and ends, and the place before it
    for prompt, answers in texts:
        begin, before = start + len(prompt), start + len(prompt) - 1 if len(prompt) else NOWHERE
        for slot, answer in enumerate(answers):
            spans.append((slot, begin, begin + len(answer), before))  # it goes on from the prompt, wherever it stands
            begin += len(answer)
        start = begin
    spans.sort(key=lambda span: span[0])
    ids = np.concatenate([part for prompt, answers in texts for part in (prompt, *answers)]).astype(np.int64)
    end_B = np.array([end - 1 for _, _, end, _ in spans])
    n_answer_B = np.array([end - begin for _, begin, end, _ in spans])
    token_N = np.concatenate([np.arange(begin, end) for _, begin, end, _ in spans])
    from_N = np.concatenate([[before, *range(begin, end - 1)] for _, begin, end, before in spans])
    of_N = np.repeat(np.arange(len(spans)), n_answer_B)
    known = from_N != NOWHERE
    arrays = (end_B, n_answer_B, from_N[known], ids[token_N[known]], of_N[known])
    return Tokens(
        torch.from_numpy(ids)[None],
        torch.from_numpy(np.concatenate([_positions(text) for text in texts]))[None],
        None,
        np.array([(len(prompt), *map(len, answers)) for prompt, answers in texts]),
        *map(torch.from_numpy, arrays),
    )


def _positions(text: Text) -> NDArray[np.int64]:
    """The positions of the tokens of a packed text: every answer follows its prompt."""
    n = len(text.prompt)
    return np.concatenate([np.arange(n), *(np.arange(n, n + len(answer)) for answer in text.answers)])
