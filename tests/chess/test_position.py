"""A position as a FEN and as words: nothing is lost on the way; and the moves that are classes, in their order."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from w2sd.chess.games import CONTEXT, ID, WORDS, tokenizer
from w2sd.chess.position import (
    CASTLING,
    CLASS,
    EN_PASSANT,
    MOVES,
    PIECES,
    PROMOTIONS,
    SQUARES,
    START,
    Position,
    from_words,
    mirrored,
    mirrored_move,
    read,
    words,
)
from w2sd.identity import digest


def some(n: int) -> list[Position]:
    """Positions that need not be possible."""
    rng = random.Random(0)
    made = []
    for _ in range(n):
        board = rng.choices(PIECES.replace("K", "").replace("k", "") + 20 * ".", k=64)
        for king, square in zip("Kk", rng.sample(range(64), 2), strict=True):
            board[square] = king
        made.append(Position("".join(board), rng.choice("wb"), rng.choice(CASTLING), rng.choice(EN_PASSANT)))
    return made


@pytest.mark.parametrize("position", [read(START), *some(20)], ids=str)
def test_fen_and_words_hold_all_of_a_position(position: Position) -> None:
    assert read(str(position)) == position
    assert read(f"{position} 17 42") == position
    assert from_words(words(position)) == position
    twin = mirrored(position)
    assert twin != position
    assert mirrored(twin) == position
    assert sorted(twin.board.swapcase()) == sorted(position.board)


def test_the_mirror_swaps_colours_and_ranks() -> None:
    position = read("4k2r/8/8/8/3pP3/8/8/R3K3 b Qk e3 0 1")
    assert str(mirrored(position)) == "r3k3/8/8/3Pp3/8/8/8/4K2R w Kq e6"


@pytest.mark.parametrize(
    ("fen", "fault"),
    [
        ("", "0 fields"),
        ("8/8/8/8/8/8/8/K6k w -", "3 fields"),
        ("8/8/8/8/8/8/K6k w - -", "8 by 8"),
        ("9/8/8/8/8/8/8/K6k w - -", "8 by 8"),
        ("8/8/8/8/8/8/44/K6k w - -", "8 by 8"),
        ("8/8/8/8/8/8/7x/K6k w - -", "piece is 'x'"),
        ("8/8/8/8/8/8/8/K6k W - -", "side to move is 'W'"),
        ("8/8/8/8/8/8/8/K6k w qK -", "castling is 'qK'"),
        ("8/8/8/8/8/8/8/K6k w - e4", "en passant is 'e4'"),
        ("8/8/8/8/8/8/8/K6k w - - zero 1", "counters are 'zero 1'"),
        ("8/8/8/8/8/8/8/7k w - -", "one king"),
        ("8/8/8/8/8/8/8/K5kk w - -", "one king"),
    ],
)
def test_a_broken_fen_is_no_position(fen: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(fen)


def test_every_word_is_one_token_and_a_foreign_one_is_refused() -> None:
    assert len(WORDS) == len(set(WORDS)) == 1 + 2 + 16 + 16 + 12 * 64 + 1968
    read_by = tokenizer()
    text = [*words(read(START)), "e2e4", "e7e8q"]
    assert read_by(" ".join(text))["input_ids"] == [ID[word] for word in text]
    assert len(text) < CONTEXT
    assert all(ID[f"K{square}"] for square in SQUARES)
    with pytest.raises(Exception, match="Missing"):
        read_by("the best move")


def test_the_classes_and_their_order_are_those_that_results_were_made_with() -> None:
    assert (len(MOVES), len(set(MOVES))) == (1968, 1968)
    assert digest(*MOVES) == "2d559c0ebbd0a472"
    assert all(MOVES[number] == move for move, number in CLASS.items())


def test_pieces_go_where_chess_lets_them() -> None:
    plain = Counter(move[:2] for move in MOVES if len(move) == 4)
    assert plain["a1"] == 21 + 2  # a queen's moves and a knight's, in the corner and in the middle
    assert plain["d4"] == 27 + 8
    assert {"e1g1", "e8c8", "g1f3", "h1a8", "e2e4"} < set(MOVES)
    assert not {"a1a1", "a1b4", "e7e8k", "e6e7q", "e7g8q"} & set(MOVES)
    promotions = [move for move in MOVES if len(move) == 5]
    assert len(promotions) == 2 * 22 * len(PROMOTIONS)  # straight on from 8 files, to the side 14 times


def test_mirroring_maps_the_classes_onto_themselves_and_back() -> None:
    assert {mirrored_move(move) for move in MOVES} == set(MOVES)
    assert all(mirrored_move(mirrored_move(move)) == move for move in MOVES)
    assert all(mirrored_move(square)[0] == square[0] for square in SQUARES)
