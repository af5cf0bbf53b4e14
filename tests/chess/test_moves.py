"""The classes of chess: which there are, in which order, and what mirroring does to them."""

from __future__ import annotations

from collections import Counter

from w2sd.chess.moves import CLASS, MOVES, PROMOTIONS, SQUARES, mirrored
from w2sd.identity import digest


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
    assert {mirrored(move) for move in MOVES} == set(MOVES)
    assert all(mirrored(mirrored(move)) == move for move in MOVES)
    assert all(mirrored(square)[0] == square[0] for square in SQUARES)
