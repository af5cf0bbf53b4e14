"""Two layouts of the same texts: the same answers after the same prompts, at the same positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import answers_in

from w2sd.data.layout import Text, masked, packed, plain

ids = st.lists(st.integers(1, 99), max_size=6)
some = st.lists(st.integers(1, 99), min_size=1, max_size=6)


def as_text(prompt: list[int], *answers: list[int]) -> Text:
    return Text(np.array(prompt, dtype=np.int32), tuple(np.array(answer, dtype=np.int32) for answer in answers))


pairs = st.lists(st.builds(as_text, ids, some, some), min_size=1, max_size=6)
singles = st.lists(st.builds(as_text, ids, some), min_size=1, max_size=6)


def test_a_packed_row_is_exactly_this() -> None:
    tokens = packed([as_text([1, 2], [3], [4, 5]), as_text([6], [7, 8], [9])])
    assert tokens.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert tokens.positions.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2, 1]]
    assert tokens.mask is None
    assert tokens.sizes.tolist() == [[2, 1, 2], [1, 2, 1]]
    assert tokens.end_B.tolist() == [2, 7, 4, 8]
    assert tokens.n_answer_B.tolist() == [1, 2, 2, 1]
    assert tokens.token_N.tolist() == [3, 7, 8, 4, 5, 9]
    assert tokens.from_N.tolist() == [1, 5, 6, 1, 3, 5]
    assert tokens.of_N.tolist() == [0, 1, 1, 2, 2, 3]


@given(st.one_of(pairs, singles))
def test_both_layouts_hold_the_same_answers(texts: list[Text]) -> None:
    expected = [
        (text.prompt.tolist(), answer.tolist())
        for side in zip(*(t.answers for t in texts), strict=True)
        for text, answer in zip(texts, side, strict=True)
    ]
    one, other = plain(texts), packed(texts)
    assert answers_in(one) == answers_in(other) == expected
    assert other.ids.numel() == sum(len(text.prompt) + sum(map(len, text.answers)) for text in texts)


@given(st.one_of(pairs, singles))
def test_places_point_to_the_same_in_both_layouts(texts: list[Text]) -> None:
    """The last token of each answer, each of its tokens, and the token before, with their positions."""
    one, other = plain(texts), packed(texts)
    for places in ("end_B", "from_N"):
        for column in ("ids", "positions"):
            here, there = (getattr(t, column).flatten()[getattr(t, places)] for t in (one, other))
            assert here.tolist() == there.tolist()
    for column in ("n_answer_B", "token_N", "of_N"):
        assert getattr(one, column).tolist() == getattr(other, column).tolist()
    assert one.token_N.dtype == other.token_N.dtype == torch.int64


@given(st.one_of(pairs, singles))
def test_a_token_with_nothing_before_it_is_predicted_from_nowhere(texts: list[Text]) -> None:
    n_known = sum(len(answer) - (not len(text.prompt)) for text in texts for answer in text.answers)
    assert len(packed(texts).from_N) == len(plain(texts).from_N) == n_known


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_rows_may_be_padded_on_the_left(shift: int) -> None:
    ids_BT, mask_BT = torch.zeros(1, 7, dtype=torch.long), torch.zeros(1, 7, dtype=torch.long)
    ids_BT[0, shift : shift + 4], mask_BT[0, shift : shift + 4] = torch.tensor([5, 6, 7, 8]), 1
    tokens = masked(ids_BT, mask_BT, torch.tensor([2]))
    assert (tokens.end_B - shift).tolist() == [3]
    assert (tokens.from_N - shift).tolist() == [1, 2]
    assert tokens.positions[0, shift : shift + 4].tolist() == [0, 1, 2, 3]
