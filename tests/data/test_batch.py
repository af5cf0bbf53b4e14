"""Batches: what is cut up is all there, once, and laid out as it was given."""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import answers_in

from w2sd.data.batch import AnswerRows, PairRows, cut
from w2sd.data.layout import Tokens
from w2sd.data.text import Encoded

lengths_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=40).map(np.array)


def arrays(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.int32) for row in rows]


# Three pairs of different lengths; the ids say where they come from: 1x prompts, 2x chosen, 3x rejected.
ENCODED = Encoded(
    prompts=arrays([10, 11], [12], [13]),
    chosen=arrays([20], [21, 22], [23]),
    rejected=arrays([30], [31], [32, 33, 34]),
    kept=[0, 1, 2],
    truncated_prompts=0,
    dropped_long=0,
    equal_tokens=0,
)
WHOLE = [[10, 11, 20], [12, 21, 22], [13, 23]], [[10, 11, 30], [12, 31], [13, 32, 33, 34]]


def rows_of(swapped: list[bool], targets: list[float] | None = None, micro_tokens: int = 1000) -> PairRows:
    return PairRows(ENCODED, np.array(swapped), micro_tokens, targets=None if targets is None else np.array(targets))


def contents(tokens: Tokens) -> list[list[int]]:
    """Every answer after its prompt."""
    return [prompt + answer for prompt, answer in answers_in(tokens)]


@given(lengths_of_rows, st.integers(1, 100))
def test_cutting_keeps_every_row_once_and_in_order(lengths: np.ndarray, budget: int) -> None:
    order = list(range(len(lengths)))[::-1]
    pieces = cut(order, lengths, budget)
    assert [i for piece in pieces for i in piece] == order
    assert all(pieces)


@given(lengths_of_rows, st.integers(1, 100))
def test_no_piece_of_several_rows_exceeds_the_budget(lengths: np.ndarray, budget: int) -> None:
    for piece in cut(list(range(len(lengths))), lengths, budget):
        assert len(piece) == 1 or len(piece) * lengths[piece].max() <= budget


@given(lengths_of_rows, st.integers(1, 100))
def test_a_piece_ends_only_where_the_next_row_would_not_fit(lengths: np.ndarray, budget: int) -> None:
    pieces = cut(list(range(len(lengths))), lengths, budget)
    for piece, following in pairwise(pieces):
        larger = [*piece, following[0]]
        assert len(larger) * lengths[larger].max() > budget


def test_nothing_is_cut_into_nothing() -> None:
    assert cut([], np.array([], dtype=int), 5) == []


def test_a_piece_is_exactly_this() -> None:
    """Slots, padding, mask, order and targets on a literal table: the second pair is swapped."""
    [micro] = rows_of([False, True, False], targets=[0.9, 0.25, 1.0])[[2, 0, 1]]
    assert micro.rows.tolist() == [0, 1, 2]  # by length, then by number
    assert micro.tokens.ids.tolist() == [
        [10, 11, 20, 0],
        [12, 31, 0, 0],
        [13, 23, 0, 0],
        [10, 11, 30, 0],
        [12, 21, 22, 0],
        [13, 32, 33, 34],
    ]
    assert micro.tokens.mask.tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    assert micro.targets.tolist() == pytest.approx([0.9, 0.25, 1.0])
    assert micro.tokens.n_answer_B.tolist() == [1, 1, 1, 1, 2, 3]
    assert (micro.tokens.ids.dtype, micro.targets.dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize("swapped", [[False] * 3, [True] * 3, [True, False, True]])
@pytest.mark.parametrize("micro_tokens", [1, 12, 24, 1000])
def test_the_coin_alone_decides_the_slots(swapped: list[bool], micro_tokens: int) -> None:
    seen = {}
    for micro in rows_of(swapped, micro_tokens=micro_tokens)[[0, 1, 2]]:
        content = contents(micro.tokens)
        for n, i in enumerate(micro.rows.tolist()):
            seen[i] = (content[n], content[n + len(micro.rows)])
    assert seen == {i: (WHOLE[swap][i], WHOLE[not swap][i]) for i, swap in enumerate(swapped)}


def test_targets_follow_their_pairs_into_the_pieces() -> None:
    rows = rows_of([False, True, True], targets=[0.1, 0.2, 0.3], micro_tokens=1)
    assert {int(m.rows): round(m.targets.item(), 6) for m in rows[[2, 0, 1]]} == {0: 0.1, 1: 0.2, 2: 0.3}


def test_pairs_without_targets_have_nan_and_never_a_number() -> None:
    [micro] = rows_of([False, False, True])[[0, 1, 2]]
    assert micro.targets.isnan().all()


def test_the_truth_is_in_a_batch_only_where_it_was_put() -> None:
    [micro] = rows_of([False, False, True], targets=[0.1, 0.2, 0.3])[[0, 1, 2]]
    assert micro.truth.isnan().all()
    told = PairRows(
        ENCODED, np.array([True, False, False]), 1, targets=np.array([0.1, 0.2, 0.3]), truth=np.array([0.0, 1.0, 1.0])
    )
    assert {int(m.rows): m.truth.item() for m in told[[2, 0, 1]]} == {0: 0, 1: 1, 2: 1}


@pytest.mark.parametrize("micro_tokens", [1, 1000])
def test_what_a_reference_says_follows_each_answer_into_its_row(micro_tokens: int) -> None:
    """Given for the better and the worse answer; found in the slots."""
    said = np.array([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])
    rows = PairRows(ENCODED, np.array([False, True, False]), micro_tokens, references=said)
    found = {}
    for micro in rows[[2, 0, 1]]:
        for row, (ids, value) in enumerate(zip(contents(micro.tokens), micro.reference_B.tolist(), strict=True)):
            found[tuple(ids)] = (value, row // len(micro.rows))
    better, worse = (
        dict(zip(map(tuple, side), column, strict=True)) for side, column in zip(WHOLE, said.T, strict=True)
    )
    assert {ids: value for ids, (value, _) in found.items()} == better | worse
    assert {ids: slot for ids, (_, slot) in found.items()} == {
        **{tuple(ids): int(swap) for ids, swap in zip(WHOLE[0], [0, 1, 0], strict=True)},
        **{tuple(ids): int(not swap) for ids, swap in zip(WHOLE[1], [0, 1, 0], strict=True)},
    }


def test_without_a_reference_there_is_no_number_of_one() -> None:
    [micro] = rows_of([False, False, True])[[0, 1, 2]]
    assert micro.reference_B.isnan().all()
    assert len(micro.reference_B) == len(micro.tokens.n_answer_B) == 6


# --- single answers ---------------------------------------------------------------------------------------------------


def test_a_piece_of_single_answers_is_exactly_this() -> None:
    [micro] = AnswerRows(ENCODED.prompts, ENCODED.rejected, 1000)[[2, 1, 0]]
    assert micro.ids.tolist() == [[12, 31, 0, 0], [10, 11, 30, 0], [13, 32, 33, 34]]  # by length, then by number
    assert micro.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert micro.n_answer_B.tolist() == [1, 1, 3]


@pytest.mark.parametrize("micro_tokens", [1, 4, 8, 30, 10_000])
def test_single_answers_are_all_there_within_the_budget(micro_tokens: int) -> None:
    rng = np.random.default_rng(0)
    prompts, answers = ([rng.integers(1, 99, size=rng.integers(1, 9)) for _ in range(50)] for _ in range(2))
    rows = AnswerRows(prompts, answers, micro_tokens)
    assert len(rows) == 50
    batch = rng.permutation(50)[:31].tolist()
    seen = []
    for micro in rows[batch]:
        assert len(micro.ids) == 1 or micro.ids.numel() <= micro_tokens
        assert micro.mask[:, -1].any()
        seen += answers_in(micro)
    assert sorted(seen) == sorted((prompts[i].tolist(), answers[i].tolist()) for i in batch)


def random_rows(n: int, micro_tokens: int) -> PairRows:
    rng = np.random.default_rng(0)
    parts = [[rng.integers(1, 99, size=rng.integers(1, 9)) for _ in range(n)] for _ in range(3)]
    return PairRows(Encoded(*parts, list(range(n)), 0, 0, 0), rng.random(n) < 0.5, micro_tokens, targets=rng.random(n))


@pytest.mark.parametrize("micro_tokens", [1, 30, 64, 300, 10_000])
def test_a_batch_is_in_its_pieces_whatever_the_budget(micro_tokens: int) -> None:
    whole, rows = random_rows(50, 10**9), random_rows(50, micro_tokens)
    batch = np.random.default_rng(1).permutation(50)[:31].tolist()
    expected = {
        int(i): row for [micro] in [whole[batch]] for i, row in zip(micro.rows, contents(micro.tokens), strict=False)
    }
    seen = []
    for micro in rows[batch]:
        assert len(micro.rows) == 1 or micro.tokens.ids.numel() <= micro_tokens
        seen += [(int(i), row) for i, row in zip(micro.rows, contents(micro.tokens), strict=False)]
    assert sorted(i for i, _ in seen) == sorted(batch)
    assert dict(seen) == expected


def test_pieces_are_padded_no_further_than_their_longest_row() -> None:
    for micro in random_rows(50, 64)[list(range(50))]:
        assert micro.tokens.mask[:, -1].any()


def test_packed_texts_of_one_size_follow_each_other() -> None:
    """So that they are attended to together."""
    rng = np.random.default_rng(0)
    parts = [[rng.integers(1, 99, size=rng.integers(1, 4)) for _ in range(60)] for _ in range(3)]
    rows = PairRows(Encoded(*parts, list(range(60)), 0, 0, 0), np.zeros(60, bool), 200, is_packed=True)
    pieces = rows[list(range(60))]
    assert sorted(int(i) for piece in pieces for i in piece.rows) == list(range(60))
    for piece in pieces:
        sizes = list(map(tuple, piece.tokens.sizes.tolist()))
        assert len(list(groupby(sizes))) == len(set(sizes))
