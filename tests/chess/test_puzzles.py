"""Chess puzzles as items: what a model reads, where rows go, and what becomes of those that are no puzzles."""

from __future__ import annotations

import csv
import gzip
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from tests.builders import refused

from w2sd.chess.position import CLASS, MOVES
from w2sd.chess.puzzles import FORMS, ChessPuzzles
from w2sd.data.pairs import SPLITS, Item
from w2sd.errors import Refused

HEADER = ("FEN", "Moves", "Rating")
RANK = {"b": "1R4K1", "c": "2R3K1", "d": "3R2K1", "e": "4R1K1"}  # White's first, with the rook on some file
ROWS = [  # Black's rook goes up the board and lets White's rook onto the last rank
    (f"6k1/5ppp/8/8/8/8/r4{pawns}/{RANK[rook]} b - - 3 20", f"a2a{rank} {rook}1{rook}8", f"{300 * n + 400}")
    for n, pawns in enumerate(("PPP", "PP1", "P1P"))
    for rook in RANK
    for rank in "34567"
]
GAME = "f2f3 e7e5 g2g4 d8h4"  # the last move is the answer


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., ChessPuzzles]:
    """A source that reads a file of some rows."""

    def written(puzzles: list[tuple[str, ...]], **knobs: Any) -> ChessPuzzles:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv.gz"
        with gzip.open(path, "wt", newline="") as out:
            csv.writer(out).writerows([HEADER, *puzzles])
        return ChessPuzzles(str(path), **knobs)

    return written


def needs_chess() -> None:
    pytest.importorskip("chess", reason="needs python-chess: make setup EXTRAS=chess")


# --- what python-chess is not needed for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ("fen,moves,rating", (["fen", "moves", "rating"], "FEN", "fen")),
        ("FEN,moves,Rating", (ANY, "Moves", "moves")),
        ("FEN,Moves,rating", (ANY, "Rating", "rating")),
        ("FEN,Solution,Rating", (ANY, "Moves")),
    ],
)
def test_columns_of_other_names_are_refused(tmp_path: Path, header: str, refusal: tuple[Any, ...]) -> None:
    path = tmp_path / "puzzles.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in ROWS)]) + "\n")
    with refused("puzzles.csv:2", *refusal):
        ChessPuzzles(str(path)).table()


def test_without_python_chess_it_is_said_how_to_get_it(
    file: Callable[..., ChessPuzzles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chess", None)
    puzzles = file(ROWS)
    assert puzzles.classes == MOVES
    assert puzzles.identity()
    with refused("data", accepted="EXTRAS=chess"):
        puzzles.table()


def test_the_content_is_the_identity_and_the_place_is_not(file: Callable[..., ChessPuzzles]) -> None:
    one = file(ROWS)
    moved = Path(one.path).with_name("moved.csv.gz")
    moved.write_bytes(Path(one.path).read_bytes())
    assert replace(one, path=str(moved)).identity() == one.identity()
    assert file(ROWS[1:]).identity() != one.identity()
    changed = ({"form": "fen"}, {"orient": False}, {"limit": 5}, {"split_seed": 1}, {"w2s_parts": 2}, {"max_tokens": 9})
    assert all(replace(one, **knob).identity() != one.identity() for knob in changed)


@pytest.mark.parametrize("knob", [{"form": "image"}, {"limit": 1}, {"w2s_parts": 0}, {"max_tokens": 1}])
def test_impossible_values_are_refused(knob: dict[str, Any]) -> None:
    with refused(*next(iter(knob.items()))):
        ChessPuzzles(**knob)


def test_a_file_that_is_not_there_is_refused_by_its_knob(tmp_path: Path) -> None:
    with refused("data.path"):
        ChessPuzzles(str(tmp_path / "puzzles.csv")).identity()


# --- what it is needed for --------------------------------------------------------------------------------------------


def by_answer(items: list[Item]) -> list[str]:
    return [MOVES[item.label] for item in items]


def test_the_opponent_moves_first_and_the_answer_is_the_class(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    examples, dropped = file(ROWS).table()
    assert (len(examples), sum(dropped.values())) == (len(ROWS), 0)
    assert by_answer(examples) == [moves.split()[1] for _, moves, _ in ROWS]
    placed = "kg8 pf7 pg7 ph7 ra3 Pf2 Pg2 Ph2 Rb1 Kg1"
    assert examples[0].text == f"{placed} w - - a2a3"
    assert [item.stratum for item in examples[::20]] == ["0-499", "500-999", "1000-1499"]
    assert {item.split for item in examples} == set(SPLITS)
    assert len({item.id for item in examples}) == len(ROWS)


def test_the_side_to_move_is_white_where_the_board_is_oriented(file: Callable[..., ChessPuzzles]) -> None:
    """The puzzle of Black is that of White upside down, and both are one position: they are split alike."""
    needs_chess()
    black = [(white_to_black(fen), " ".join(map(turned, moves.split())), rating) for fen, moves, rating in ROWS]
    white, mirror = file(ROWS).table().examples, file(black).table().examples
    assert [item._replace(where="") for item in mirror] == [item._replace(where="") for item in white]
    raw = file(black, orient=False).table().examples
    assert [item.cluster for item in raw] == [item.cluster for item in white]
    assert [item.split for item in raw] == [item.split for item in white]
    assert {item.id for item in raw}.isdisjoint(item.id for item in white)
    assert by_answer(raw) == [turned(move) for move in by_answer(white)]
    assert raw[0].text.endswith(" b - - a7a6")


def white_to_black(fen: str) -> str:
    board, _, *rest = fen.split()
    return " ".join(["/".join(reversed(board.swapcase().split("/"))), "w", *rest])


def turned(move: str) -> str:
    return move.translate(str.maketrans("12345678", "87654321"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orient", [True, False])
def test_every_form_tells_the_whole_position(form: str, orient: bool, file: Callable[..., ChessPuzzles]) -> None:
    """Judged from the text alone, all true answers are legal, and a king that leaps is not."""
    needs_chess()
    games = [("", GAME, "800"), ("", "e2e4 e7e5 g1f3", "")]  # from the beginning, one of each side
    castling = ("r3k2r/8/8/8/8/8/p7/R3K2R w KQkq - 0 1", "a1b1 a2b1q", "")
    passing = ("4k3/8/8/8/3p4/8/4P3/4K3 w - - 0 1", "e2e4 d4e3", "")
    puzzles = file([*ROWS, *games, castling, passing], form=form, orient=orient)
    items = puzzles.table().examples
    assert len(items) == len(ROWS) + 4
    truth = [item.label for item in items]
    assert puzzles.judge(items, truth) == {"legal": 1.0}
    assert puzzles.judge(items[:4], [*truth[:3], CLASS["a4h4"]]) == {"legal": 0.75}
    assert puzzles.judge([], []) == {}


def test_games_are_read_as_moves(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    items = file([*ROWS, ("", GAME, "")], form="moves", orient=False).table().examples
    assert items[-1].text == "f2f3 e7e5 g2g4"
    assert by_answer(items[-1:]) == ["d8h4"]
    assert items[-1].stratum == ""
    assert items[0].text.startswith("kg8 pf7 pg7 ph7 ra2 ")
    assert items[0].text.endswith(" b - - a2a3")
    mirror = file([*ROWS, ("", GAME, "")], form="moves").table().examples[-1]
    assert (mirror.text, MOVES[mirror.label]) == ("f7f6 e2e4 g7g5", "d1h5")


def test_en_passant_is_told_where_a_pawn_can_take_and_nowhere_else(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    alone, beside = (f"6k1/7p/8/{pawn}/8/8/6PP/3R2K1 b - - 0 1" for pawn in ("8", "6P1"))
    items = file([*ROWS, (alone, "h7h5 d1d8", ""), (beside, "h7h5 g5h6", "")]).table().examples
    assert [item.text.split()[-2] for item in items[-2:]] == ["-", "h6"]


def test_castling_is_a_move_of_the_king_however_it_is_spelt(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    rows = [("4k3/7p/8/8/8/8/8/4K2R b K - 0 1", "h7h6 e1h1", ""), ("4k3/6p1/8/8/8/8/8/4K2R b K - 0 1", "g7g6 e1g1", "")]
    assert by_answer(file([*ROWS, *rows]).table().examples[-2:]) == ["e1g1", "e1g1"]


def test_the_split_of_a_position_depends_on_nothing_else(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    whole = {item.id: item.split for item in file(ROWS).table().examples}
    fewer = file(ROWS[:39:-1], form="fen", w2s_parts=3).table().examples
    assert {item.id: item.split for item in fewer} == {item.id: whole[item.id] for item in fewer}
    assert {item.part for item in fewer if item.split != "w2s"} == {0}
    assert len({item.part for item in file(ROWS, w2s_parts=3).table().split("w2s")}) == 3
    other = {item.id: item.split for item in file(ROWS, split_seed=1).table().examples}
    assert other != whole
    limited = file(ROWS, limit=3).table()
    assert [len(limited.split(split)) for split in SPLITS] == [3, 3, 3]
    assert limited.dropped["over_limit"] == len(ROWS) - 9
    parts = file(ROWS, limit=3, w2s_parts=2).table().split("w2s")
    assert sorted(item.part for item in parts) == [0, 0, 0, 1, 1, 1]


BAD = [
    ("broken_fen", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K b - - 0 1", "a2a3 d1d8", "900")),
    ("broken_fen", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - zero 1", "a2a3 d1d8", "900")),
    ("broken_fen", ("k2R4/8/8/8/8/8/8/3R2K1 w - - 0 1", "g1g2 a8a7", "900")),  # Black is in check, and White to move
    ("illegal_move", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "a2b3 d1d8", "900")),
    ("illegal_move", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "a2a3 d1e8", "900")),
    ("illegal_move", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "a2a3 Rd8", "900")),
    ("illegal_move", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "a2a3 0000", "900")),
    ("missing_answer", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "a2a3", "900")),
    ("missing_answer", ("6k1/5ppp/8/8/8/8/r4PPP/3R2K1 b - - 0 1", "", "900")),
]


@pytest.mark.parametrize(("reason", "row"), BAD)
def test_a_bad_row_is_counted_named_and_left_out(
    reason: str, row: tuple[str, ...], file: Callable[..., ChessPuzzles], caplog: pytest.LogCaptureFixture
) -> None:
    needs_chess()
    puzzles = file([*ROWS[:9], row, *ROWS[9:]])
    examples, dropped = puzzles.table()
    assert [item._replace(where="") for item in examples] == [
        item._replace(where="") for item in file(ROWS).table().examples
    ]
    assert {why: n for why, n in dropped.items() if n} == {reason: 1}
    [said] = caplog.messages
    assert said.startswith(f"data.path: 1 of {len(ROWS) + 1} rows are no puzzles and are left out; 1 {reason}, first ")
    assert f"{Path(puzzles.path).name}:11: " in said
    assert "\n" not in said


def test_few_bad_rows_are_no_warning(file: Callable[..., ChessPuzzles], caplog: pytest.LogCaptureFixture) -> None:
    needs_chess()
    caplog.set_level(logging.INFO)
    many = [*ROWS, *([ROWS[0]] * 39)]
    assert file([*many, BAD[0][1]]).table().dropped["broken_fen"] == 1
    assert file([*many[1:], BAD[0][1]]).table().dropped["broken_fen"] == 1
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]  # 1 of 100, 1 of 99


def test_what_leaves_nothing_is_refused_with_its_reasons(file: Callable[..., ChessPuzzles]) -> None:
    needs_chess()
    puzzles = file([row for _, row in BAD])
    with pytest.raises(Refused) as caught:
        puzzles.table()
    said = str(caught.value)
    assert said.startswith("data.path: ")
    assert "found 0 (dropped in all: 3 broken_fen, 4 illegal_move, 2 missing_answer); 3 broken_fen, first " in said
