"""The embedded game, told by what always holds in it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import pytest
from tests.builders import refused

from w2sd.config import RunConfig
from w2sd.data.pairs import SPLITS, Item, clean_items
from w2sd.pipeline.plan import plan
from w2sd.world import piles as v
from w2sd.world.corpus import FAINT, FULL
from w2sd.world.game import LIMIT, Game, GameRung, GameText
from w2sd.world.ladder import COVERAGE, Rung
from w2sd.world.piles import (
    AHEAD,
    AVERAGE,
    DOCUMENTS,
    IMPOSSIBLE,
    LENGTH,
    NONE,
    best,
    corpus,
    depth,
    gains,
    puzzles,
    stones,
)
from w2sd.world.world import World

Position = tuple[tuple[int, ...], ...]  # of each pile the worths of its stones, the top one first
GAME = Game(world_seed=1, gt=61, w2s=40, test=300)
RUNGS = range(len(COVERAGE))
corpus_of = lru_cache(corpus)
each_rung = pytest.mark.parametrize("rung", RUNGS)


def piles(item: Item) -> list[list[int]]:
    """The stones of each pile, the top one first."""
    cells = [NONE if word == "-" else int(word[5:]) for word in item.text.split()[1:9]]
    return [[stone for stone in cells[pile : pile + 2] if stone != NONE] for pile in range(0, 8, 2)]


def worths(item: Item, known: np.ndarray) -> Position:
    return tuple(tuple(int(known[stone]) for stone in pile) for pile in piles(item))


@cache
def gain(position: Position, pile: int, ahead: int = 8) -> int:
    """The reference: what a move gains, by playing out everything that can follow within so many moves."""
    after = (*position[:pile], position[pile][1:], *position[pile + 1 :])
    replies = [gain(after, reply, ahead - 1) for reply in range(4) if after[reply]] if ahead > 1 else []
    return position[pile][0] - max(replies, default=0)


def only_best(position: Position, ahead: int = 8) -> int:
    """The reference: the one best move, or NONE."""
    gained = {pile: gain(position, pile, ahead) for pile in range(4) if position[pile]}
    moves = [pile for pile in gained if gained[pile] == max(gained.values())]
    return moves[0] if len(moves) == 1 else NONE


# --- the rules --------------------------------------------------------------------------------------------------------


def test_the_table_of_solved_positions_agrees_with_playing_them_out() -> None:
    rng = np.random.default_rng(0)
    heights = rng.integers(0, 3, (300, 4))
    heights[heights.sum(axis=1) == 0, 0] = 1
    cells = np.where(np.arange(2) < heights[:, :, None], rng.integers(1, 4, (300, 4, 2)), 0)
    for n, row in enumerate(cells):
        position = tuple(tuple(int(worth) for worth in pile if worth) for pile in row)
        for ahead in (1, 2, 5, 8):
            expected = [gain(position, pile, ahead) if position[pile] else IMPOSSIBLE for pile in range(4)]
            assert gains(cells, ahead)[n].tolist() == expected
        seen = [only_best(position, ahead) for ahead in range(1, 9)]
        assert [best(cells)[n], depth(cells)[n]] == [
            seen[-1],
            min(d for d in range(1, 9) if len({*seen[d - 1 :]}) == 1),
        ]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ([[3, 0], [2, 0], [0, 0], [0, 0]], [1, -1, IMPOSSIBLE, IMPOSSIBLE]),
        ([[2, 3], [1, 0], [0, 0], [0, 0]], [0, 2, IMPOSSIBLE, IMPOSSIBLE]),  # the larger stone lies on a larger one
    ],
)
def test_gains_of_positions_that_can_be_played_in_the_head(position: list[list[int]], expected: list[int]) -> None:
    assert gains(np.array([position]))[0].tolist() == expected


# --- stones and puzzles -----------------------------------------------------------------------------------------------


def test_each_pool_holds_as_many_stones_of_every_worth_and_tier() -> None:
    latents = stones(5)
    sorts = Counter(zip(latents.pool.tolist(), latents.worth[:-1].tolist(), latents.tier.tolist(), strict=True))
    assert sorts == {(pool, worth, tier): 4 for pool in range(3) for worth in (1, 2, 3) for tier in RUNGS}
    with pytest.raises(ValueError, match="read-only"):
        latents.worth[0] = 1


def test_every_puzzle_has_one_best_move_and_its_stratum_says_how_deep_it_is() -> None:
    latents = stones(GAME.world_seed)
    for item in GAME.table().examples:
        position = worths(item, latents.worth)
        assert item.label == only_best(position)
        deep = int(item.stratum)
        assert {only_best(position, ahead) for ahead in range(deep, 9)} == {item.label}
        assert deep == 1 or only_best(position, deep - 1) != item.label
        listed = [stone for pile in piles(item) for stone in pile]
        assert 3 <= len(listed) == len(set(listed)) <= 7
        assert {SPLITS[pool] for pool in latents.pool[listed]} == {item.split}
        assert len(item.text.split()) == 10


def test_every_fourth_row_of_a_split_is_deep() -> None:
    for split in SPLITS:
        deep = [int(item.stratum) > 1 for item in GAME.table().split(split)]
        assert deep == [n % 4 == 3 for n in range(len(deep))]
    assert len({item.stratum for item in GAME.table().rows("test")}) == 5


def test_nothing_is_there_twice_not_even_with_its_piles_in_another_order() -> None:
    table = GAME.table()
    assert clean_items(table.examples) == table
    assert not any(table.dropped.values())
    assert len({str(sorted(piles(item))) for item in table.examples}) == len(table.examples)
    assert len({item.cluster for item in table.examples}) == len(table.examples)
    parts = {("gt", 0): GAME.gt, ("test", 0): GAME.test, **{("w2s", part): GAME.w2s for part in range(3)}}
    assert Counter((item.split, item.part) for item in table.examples) == parts
    few = puzzles(GAME.world_seed, 0, np.arange(v.STONES) < 10, 800)  # stones, of which there are not many positions
    assert len({str(sorted(position)) for position in few.tolist()}) == 800


def test_every_move_is_best_equally_often_in_any_run_of_rows() -> None:
    for split in SPLITS:
        labels = [item.label for item in GAME.table().split(split)]
        for n in range(1, len(labels) + 1):
            counts = [labels[:n].count(move) for move in range(4)]
            assert max(counts) - min(counts) <= 1


def test_a_larger_size_extends_its_rows_and_leaves_the_others_alone() -> None:
    small = GAME.table()
    for knob, split in (("gt", "gt"), ("w2s_parts", "w2s"), ("test", "test")):
        game = replace(GAME, **{knob: 3 * getattr(GAME, knob) + 1})
        large = game.table()
        assert game.focus(split).table().split(split) == large.split(split)
        assert large.split(split)[: len(small.split(split))] == small.split(split)
        assert [i for i in large.examples if i.split != split] == [i for i in small.examples if i.split != split]
        assert GAME.focus(split).table().split(split) == small.split(split)
    assert GAME.table() == small
    assert replace(GAME, world_seed=2).table() != small


@each_rung
def test_known_is_what_a_player_finds_who_looks_so_far_ahead_and_takes_untaught_stones_for_average_ones(
    rung: int,
) -> None:
    latents = stones(GAME.world_seed)
    believed = np.where(latents.tier <= rung, latents.worth[:-1], AVERAGE)
    items = GAME.table().rows("test")[:100]
    expected = [only_best(worths(item, believed), AHEAD[rung]) == item.label for item in items]
    assert GAME.known(items, rung).tolist() == expected


def test_knowledge_grows_with_the_rung_and_the_strongest_knows_all() -> None:
    items = GAME.table().rows("test")
    shares = [GAME.known(items, rung).mean() for rung in RUNGS]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert GAME.known([], 0).shape == (0,)


def test_a_move_is_legal_where_there_is_a_stone_to_lift() -> None:
    items = GAME.table().rows("test")
    assert GAME.judge(items, [item.label for item in items]) == {"legal": 1.0}
    empty = [pile for item in items for pile in range(4) if not piles(item)[pile]]
    lacking = [item for item in items for pile in range(4) if not piles(item)[pile]]
    assert GAME.judge(lacking, empty) == {"legal": 0.0}
    filled = np.mean([bool(piles(item)[0]) for item in items])
    assert GAME.judge(items, [0] * len(items)) == {"legal": filled}


# --- the pretraining corpus -------------------------------------------------------------------------------------------


def records(rung: int, player: int) -> np.ndarray:
    """The records [n, 12] of masters or of novices."""
    tokens = corpus_of(GAME.world_seed, rung).tokens
    return tokens[tokens[:, 0] == player]


@each_rung
def test_sheets_and_masters_tell_of_all_taught_stones_and_of_no_others(rung: int) -> None:
    latents = stones(GAME.world_seed)
    taught = set(np.flatnonzero(latents.tier <= rung))
    tokens = corpus_of(GAME.world_seed, rung).tokens
    scores = tokens[tokens[:, 0] >= v.STONE].reshape(-1, 3)
    assert set(scores[:, 0] - v.STONE) == taught
    assert np.array_equal(scores[:, 1] - v.POINT + 1, latents.worth[scores[:, 0] - v.STONE])
    assert (scores[:, 2] == v.DOT).all()
    cells = records(rung, v.MASTER)[:, 1:9]
    assert set(cells[cells != v.EMPTY] - v.STONE) == taught


@each_rung
def test_masters_play_the_best_move_as_far_as_they_look_and_never_a_puzzle_of_a_split(rung: int) -> None:
    latents = stones(GAME.world_seed)
    played = records(rung, v.MASTER)
    position = np.where(played[:, 1:9] == v.EMPTY, NONE, played[:, 1:9] - v.STONE).reshape(-1, 4, 2)
    assert depth(latents.worth[position]).max() == (1, 3, 5, 7)[rung]
    assert np.array_equal(best(latents.worth[position]), played[:, 10] - v.MOVE)
    pools = np.where(position == NONE, NONE, latents.pool[position]).reshape(-1, 8)
    assert min(len(set(row) - {NONE}) for row in pools.tolist()) == 2
    assert (played[:, [9, 11]] == [v.TAKES, v.DOT]).all()


def test_novices_play_the_same_on_every_rung_with_every_stone_and_any_legal_move() -> None:
    played = records(0, v.NOVICE)
    assert all(np.array_equal(played, records(rung, v.NOVICE)) for rung in RUNGS)
    cells, move = played[:, 1:9], played[:, 10] - v.MOVE
    assert set(cells[cells != v.EMPTY] - v.STONE) == set(range(v.STONES))
    assert (cells[np.arange(len(cells)), 2 * move] != v.EMPTY).all()
    n_legal = (cells[:, ::2] != v.EMPTY).sum(axis=1)
    assert np.bincount(move) == pytest.approx(len(move) / 4, rel=0.1)
    assert all((move[n_legal == n] == 3).mean() < 0.5 for n in (2, 3, 4))


def test_the_loss_counts_points_and_moves_fully_and_other_words_faintly() -> None:
    documents = corpus_of(GAME.world_seed, 1)
    assert documents.tokens.shape == documents.weights.shape == (DOCUMENTS, LENGTH)
    told = (documents.tokens >= v.MOVE) & (documents.tokens < v.STONE)
    assert np.array_equal(documents.weights, np.where(told, np.float32(FULL), np.float32(FAINT)))


# --- words and models -------------------------------------------------------------------------------------------------


def test_the_ladder_reads_the_words_of_the_game_one_token_each() -> None:
    rung = GameRung(rung=3, width=16, layers=1, heads=2, lr=5e-3)
    assert len(v.WORDS) == len(set(v.WORDS)) == rung.open_config().vocab_size
    named = [v.PAD, v.MASTER, v.NOVICE, v.TAKES, v.EMPTY, v.DOT, v.MOVE, v.POINT, v.STONE]
    assert [v.WORDS[n] for n in named] == [*v.MARKS, "a", "one", "stone0"]
    tokenizer = rung.open_tokenizer()
    text = GAME.table().examples[0].text
    assert [v.WORDS[n] for n in tokenizer(text)["input_ids"]] == text.split()
    assert tokenizer(" ".join(v.WORDS))["input_ids"] == list(range(len(v.WORDS)))
    assert GAME.classes == v.MOVES


def test_a_ladder_reads_its_own_texts_only() -> None:
    shape = {"rung": 1, "width": 16, "layers": 1, "heads": 2, "lr": 0.01}
    assert GameRung(**shape).text(GAME) == GameText(GAME.world_seed)
    for rung, data in ((GameRung(**shape), World()), (Rung(**shape), GAME), (Rung(**shape), object())):
        with refused("", f"{rung.ladder} rung 1", f"data={rung.ladder}"):
            rung.text(data)


def test_sizes_do_not_rename_what_is_pretrained_and_the_seed_does(asked: Callable[..., RunConfig]) -> None:
    def pretrained(*overrides: str) -> list[str]:
        stages = plan(asked("data=game", "model@weak=game_s", "model@strong=game_l", *overrides))
        return [stage.key for name, stage in stages.items() if name.startswith("pretrain/")]

    assert pretrained() == pretrained("data.gt=64", "data.test=64")
    assert not {*pretrained()} & {*pretrained("data.world_seed=1")}


@pytest.mark.parametrize(
    ("knob", "value"),
    [("world_seed", -1), ("gt", 3), ("gt", LIMIT + 1), ("w2s", LIMIT // 3 + 1), ("test", 0), ("w2s_parts", 17)],
)
def test_an_impossible_game_is_refused_by_the_name_of_its_knob(knob: str, value: object) -> None:
    with refused(knob, value):
        Game(**{knob: value})


def test_a_rung_that_does_not_exist_is_refused_wherever_it_is_asked_for() -> None:
    for ask in (lambda: GAME.known([], 4), lambda: corpus(0, -1)):
        with refused("rung"):
            ask()


def test_planning_a_game_imports_nothing_heavy() -> None:
    code = (
        "import sys, w2sd.world.piles, w2sd.world.game, w2sd.world.lists;"
        "sys.exit(str({'torch', 'transformers', 'tokenizers', 'pandas'} & set(sys.modules) or '') or None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
