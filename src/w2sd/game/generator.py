"""Piles, drawn: puzzles of which it is known exactly which model was taught what the stones in them are worth.

A puzzle is a position in which exactly one move is best. What a stone is worth is not written on it: models know it
from what they were pretrained on, and each rung of the ladder was taught the worths of a quarter more of the stones
than the one below, and to look further ahead. Stones are dealt into three pools, one per split: no stone of a training
puzzle is in a test puzzle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from w2sd.data.pairs import SPLITS, TARGET, Item, Table, clean_items, digest
from w2sd.game.rules import CELLS, HEIGHT, NONE, PILES, WORTHS, Bools, Ints, best, depth
from w2sd.game.source import Game
from w2sd.game.vocabulary import STONES
from w2sd.world.ladder import COVERAGE
from w2sd.world.lists import turns

FEWEST, MANIEST = 3, 7  # stones in a position
DEEP = 4  # of so many rows the last one is a deep puzzle, in which it is not best to take the most points now
AHEAD = (1, 3, 5, CELLS)  # how many moves the masters look ahead whose records each rung reads
AVERAGE = WORTHS[len(WORTHS) // 2]  # what somebody expects of a stone who was not taught its worth

# Every purpose has its own random stream default_rng([world_seed, tag]).
LATENTS, RECORDS, MASTERS, NOVICES = 1, 2, 3, 4
PUZZLES = {"gt": 5, "w2s": 6, "test": 7}
TURNS = {"gt": 8, "w2s": 9, "test": 10}


class Stones(NamedTuple):
    """What is true of each stone; read-only arrays with one element per stone."""

    pool: Ints  # 0 gt, 1 w2s, 2 test
    worth: Ints  # 1 to 3 points; one element more, the worth 0 of NONE
    tier: Ints  # the first rung that was taught it


@lru_cache(maxsize=64)
def stones(world_seed: int) -> Stones:
    """The stones of a game: four of every pool, worth and tier."""
    place = np.random.default_rng([world_seed, LATENTS]).permutation(STONES)  # a stone's number says nothing about it
    sorts = (len(SPLITS), len(WORTHS), len(COVERAGE))
    pool, worth, tier, _ = np.unravel_index(place, (*sorts, STONES // int(np.prod(sorts))))
    latents = Stones(pool, np.append(worth + WORTHS[0], 0), tier)
    for latent in latents:
        latent.setflags(write=False)
    return latents


def draw(game: Game) -> Table[Item]:
    """All rows of a game."""
    latents = stones(game.world_seed)
    sizes = {"gt": game.gt, "w2s": game.w2s * game.w2s_parts, "test": game.test}
    items = []
    for pool, (split, size) in enumerate(sizes.items()):
        piles = puzzles(game.world_seed, PUZZLES[split], latents.pool == pool, size)
        wanted = turns(np.random.default_rng([game.world_seed, TURNS[split]]), size, PILES)
        piles = _exchanged(piles, best(latents.worth[piles]), wanted)
        strata = map(str, depth(latents.worth[piles]).tolist())
        for n, (position, label, stratum) in enumerate(zip(piles.tolist(), wanted.tolist(), strata, strict=True)):
            text = write(position)
            part = n // game.w2s if split == "w2s" else 0
            items.append(Item(digest(text), digest(str(sorted(position))), split, text, label, TARGET, stratum, part))
    return clean_items(items)


def puzzles(world_seed: int, stream: int, allowed: Bools, size: int, ahead: int | None = None) -> Ints:
    """The first positions [size, 4, 2] of a stream that have one best move and only allowed stones, none there twice.

    Piles in another order are the same position. Of those in splits every fourth is deep. Those of masters have stones
    of more than one pool, and nobody has to look further `ahead` in them than so many moves.
    """
    latents, rows = stones(world_seed), 3 * size
    while True:  # the stream is read from its start each time, so what was found so far stays in place
        piles = deal(np.random.default_rng([world_seed, stream]), allowed, rows)
        usable = best(latents.worth[piles]) != NONE
        if ahead is not None:
            pool = np.where(piles == NONE, latents.pool[piles.max(axis=(1, 2), keepdims=True)], latents.pool[piles])
            usable &= np.ptp(pool, axis=(1, 2)) > 0
        code = np.sort((1 + piles) @ [1 + STONES, 1], axis=1) @ (1 + STONES) ** (HEIGHT * np.arange(PILES))
        first = np.unique(code, return_index=True)[1]
        found = np.sort(first[usable[first]])
        depths = depth(latents.worth[piles[found]])
        chosen = _in_turn(depths, size) if ahead is None else np.flatnonzero(depths <= ahead)[:size]
        if len(chosen) == size:
            return piles[found[chosen]]
        rows *= 2


def _in_turn(depths: Ints, size: int) -> Ints:
    """The places of the first puzzles of these depths, a deep one whenever it is its turn; none if they are too few."""
    wanted, is_deep = np.arange(size) % DEEP == DEEP - 1, depths > 1
    chosen = np.empty(size, dtype=np.int64)
    for kind in (False, True):
        turn, places = np.flatnonzero(wanted == kind), np.flatnonzero(is_deep == kind)
        if len(places) < len(turn):
            return places[:0]
        chosen[turn] = places[: len(turn)]
    return chosen


def deal(rng: np.random.Generator, allowed: Bools, rows: int) -> Ints:
    """Positions [rows, 4, 2] of three to seven different stones, the top one first; NONE where there is none."""
    shapes, names = rng.spawn(2)  # apart, so that more rows begin with the same ones
    uniform = shapes.random((rows, 1 + CELLS))
    n_stones = FEWEST + (uniform[:, :1] * (MANIEST - FEWEST + 1)).astype(np.int64)
    filled = uniform[:, 1:].argsort(axis=1).argsort(axis=1) < n_stones
    height = filled.reshape(rows, PILES, HEIGHT).sum(axis=2, keepdims=True)
    shuffled = names.permuted(np.tile(np.flatnonzero(allowed), (rows, 1)), axis=1)
    return np.where(np.arange(HEIGHT) < height, shuffled[:, :CELLS].reshape(rows, PILES, HEIGHT), NONE)


def decided(game: Game, items: list[Item], rung: int) -> Bools:
    """Whether the worths that a rung was taught, so far ahead, make the right move of each item the one best move."""
    latents = stones(game.world_seed)
    believed = np.append(np.where(latents.tier <= rung, latents.worth[:-1], AVERAGE), 0)
    seen = best(believed[_positions(items)], AHEAD[rung])
    known: Bools = seen == np.array([item.label for item in items], dtype=np.int64)
    return known


def judge(items: list[Item], predicted: list[int]) -> dict[str, float]:
    """The share of moves that the rules allow: there is a stone to lift."""
    tops = _positions(items)[np.arange(len(items)), predicted, 0]
    return {"legal": float((tops != NONE).mean())}


def write(position: list[list[int]]) -> str:
    """A position as text, up to the move that is asked for."""
    cells = [f"stone{stone}" if stone != NONE else "-" for pile in position for stone in pile]
    return " ".join(["master:", *cells, "takes"])


def _positions(items: list[Item]) -> Ints:
    """The stones [n, 4, 2] of some items."""
    words = [item.text.split()[1 : 1 + CELLS] for item in items]
    cells = [[NONE if word == "-" else int(word.removeprefix("stone")) for word in row] for row in words]
    return np.array(cells, dtype=np.int64).reshape(-1, PILES, HEIGHT)


def _exchanged(piles: Ints, best_pile: Ints, wanted: Ints) -> Ints:
    """The same puzzles with two piles exchanged, so that the best move is where it is wanted."""
    rows = np.arange(len(piles))
    order = np.tile(np.arange(PILES), (len(piles), 1))
    order[rows, wanted], order[rows, best_pile] = best_pile, wanted
    return piles[rows[:, None], order]
