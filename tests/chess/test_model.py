"""Models of chess from scratch, and the text that they are pretrained on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from tests.builders import refused

from w2sd.chess.games import (
    CONTEXT,
    FAINT,
    FULL,
    ID,
    LENGTH,
    LISTED,
    NOTICED,
    PAD,
    WORDS,
    ChessText,
    _begin,
    corpus,
    parts,
    value,
)
from w2sd.chess.model import ChessModel
from w2sd.chess.position import MOVES, PIECES, from_words
from w2sd.chess.puzzles import ChessPuzzles
from w2sd.parts.fit import pretraining
from w2sd.world.world import World

TINY = ChessModel(width=8, layers=1, heads=2, documents=0)


@pytest.mark.parametrize(
    "knob",
    [
        {"width": 0},
        {"layers": 0},
        {"heads": 0},
        {"batch": 0},
        {"epochs": 0},
        {"documents": 5},
        {"lr": 1.0},
        {"init_seed": -1},
    ],
)
def test_impossible_values_are_refused(knob: dict[str, Any]) -> None:
    with refused(*next(iter(knob.items()))):
        ChessModel(**knob)
    with refused("width", 64, "5"):
        ChessModel(heads=5)


def test_it_reads_the_words_of_chess_and_refuses_other_data() -> None:
    assert replace(TINY, documents=64).text(ChessPuzzles()) == ChessText(64)
    assert replace(TINY, documents=64).text(ChessPuzzles(form="moves")) == ChessText(64)
    assert TINY.text(ChessPuzzles()) is None
    for foreign in (World(), ChessPuzzles(form="fen")):
        with refused("", ANY, "data=chess_puzzles board moves"):
            TINY.text(foreign)


def test_the_knobs_are_the_shape_and_the_seed_decides_the_weights() -> None:
    backbone, again, other = (model.open_backbone(None) for model in (TINY, TINY, replace(TINY, init_seed=1)))
    hidden_BTE = backbone(input_ids=torch.zeros(2, CONTEXT, dtype=torch.long)).last_hidden_state
    assert hidden_BTE.shape == (2, CONTEXT, 8)
    weights = [model.get_input_embeddings().weight for model in (backbone, again, other)]
    assert weights[0].shape == (len(WORDS), 8)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert replace(TINY, lr=0.5, batch=8, epochs=3).fit() == pretraining(0.5, 8, 3)


def test_words_with_a_piece_or_a_square_in_common_begin_alike() -> None:
    words_VD = replace(TINY, width=64).open_backbone(None).get_input_embeddings().weight.detach()
    unit_VD = words_VD / words_VD.norm(dim=1, keepdim=True)
    words = [*MOVES[::29], *(piece + square for piece in PIECES for square in ("b1", "e4"))]
    alike = {False: [], True: []}
    for one, other in itertools.combinations(words, 2):
        alike[bool({*parts(one)} & {*parts(other)})].append(float(unit_VD[ID[one]] @ unit_VD[ID[other]]))
    assert np.mean(alike[True]) > 0.35
    assert abs(np.mean(alike[False])) < 0.1
    spread = words_VD.std(dim=1)  # all begin as large as they would by themselves
    assert spread[: len(WORDS) - len(MOVES)].mean().item() == pytest.approx(0.05, rel=0.1)
    assert spread[-len(MOVES) :].mean().item() == pytest.approx(0.05, rel=0.1)


def test_marks_have_nothing_in_common_and_moves_two_squares() -> None:
    marks = WORDS[: -len(MOVES) - 64 * len(PIECES)]
    assert not any(map(parts, marks))
    assert {len(parts(move)) for move in MOVES} == {2, 3}
    assert parts("a7a8n") == ("from a7", "to a8", "as n")


def test_a_pretrained_base_replaces_the_random_weights(tmp_path: Path) -> None:
    whole = replace(TINY, init_seed=5).open_language_model(None)
    whole.save_pretrained(tmp_path / "model")
    backbone = TINY.open_backbone(tmp_path)
    assert torch.equal(backbone.get_input_embeddings().weight, whole.get_input_embeddings().weight)


def test_documents_are_positions_and_all_their_moves_are_legal() -> None:
    chess = pytest.importorskip("chess", reason="needs python-chess: make setup EXTRAS=chess")
    tokens, weights = ChessText(40).documents(TINY)
    noticed, missed = [], []
    assert (tokens.shape, weights.shape, tokens.dtype, weights.dtype) == ((40, LENGTH),) * 2 + (np.int32, np.float32)
    assert LENGTH <= CONTEXT
    assert np.array_equal(tokens[:15], corpus(15).tokens)
    for row, counts in zip(tokens, weights, strict=True):
        text = [WORDS[token] for token in row if token != PAD]
        n = text.index(next(word for word in text if word in MOVES))
        board = chess.Board(f"{from_words(text[:n])} 0 1")
        assert board.is_valid()
        assert board.turn == chess.WHITE
        listed = text[n + 1 :]
        assert len(listed) == len(set(listed)) == min(board.legal_moves.count(), LISTED)
        worth = {move.uci(): value(board, move) for move in board.legal_moves}
        noticed.append(max(worth.values()))
        missed.append(noticed[-1] - worth[listed[0]])
        assert all(chess.Move.from_uci(move) in board.legal_moves for move in listed)
        assert board.piece_at(chess.parse_square(text[n][2:4])).color == chess.BLACK  # what moved last
        assert [set(counts[: n + 1]), set(counts[n + 1 : len(text)])] == [{np.float32(FAINT)}, {np.float32(FULL)}]
        assert not counts[len(text) :].any()
        assert all(ID[word] == token for word, token in zip(text, row, strict=False))
    assert min(noticed) == NOTICED
    assert np.mean(missed) < 0.2  # pawns: what is listed first is what wins most, but for his taste


def test_games_begin_with_any_pieces_missing_but_the_kings() -> None:
    chess = pytest.importorskip("chess", reason="needs python-chess: make setup EXTRAS=chess")
    boards = [_begin(np.random.default_rng(n)) for n in range(20)]
    assert all(board.is_valid() for board in boards)
    for kind in (chess.PAWN, chess.KNIGHT, chess.BISHOP, chess.ROOK, chess.QUEEN):
        n = [len(board.pieces(kind, chess.WHITE)) for board in boards]
        assert min(n) < max(n)


@pytest.mark.parametrize(
    ("fen", "move", "worth"),
    [
        ("6k1/5ppp/8/8/8/8/5PPP/3R2K1 w - - 0 1", "d1d8", 50),  # mate
        ("6k1/5pp1/7p/8/8/8/5PPP/3R2K1 w - - 0 1", "d1d8", 2),  # a check
        ("6k1/8/8/3q4/8/8/8/3R2K1 w - - 0 1", "d1d5", 9),  # takes the queen
        ("6k1/8/4p3/3p4/8/8/8/3R2K1 w - - 0 1", "d1d5", -4),  # takes a pawn, and is taken by another
        ("6k1/8/4p3/3n4/4P3/8/8/3R2K1 w - - 0 1", "e4d5", 3),  # a knight, and at most a pawn is taken back
        ("6k1/8/4p3/3r4/8/8/8/3R2K1 w - - 0 1", "d1d5", 5),  # an even exchange counts as won
        ("7k/4P3/8/8/8/8/8/6K1 w - - 0 1", "e7e8q", 10),  # a queen for a pawn, with check
        ("4k3/8/8/3pP3/8/8/8/4K3 w - d6 0 1", "e5d6", 1),  # in passing
        ("6k1/8/8/8/8/8/8/3R2K1 w - - 0 1", "d1d2", 0),
    ],
)
def test_the_player_counts_pieces_checks_and_mates(fen: str, move: str, worth: int) -> None:
    chess = pytest.importorskip("chess", reason="needs python-chess: make setup EXTRAS=chess")
    board = chess.Board(fen)
    assert value(board, chess.Move.from_uci(move)) == worth
    assert board.fen() == chess.Board(fen).fen()
