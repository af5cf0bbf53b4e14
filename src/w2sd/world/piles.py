"""The 158 words of the game's records, each one token.

A position is ten words, `master: stone3 stone90 stone17 - - - stone8 - takes`: who is to move, the four piles from the
left with the top stone first, and the question which top is taken. The answer is `a`, `b`, `c` or `d`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2sd.data.pairs import SPLITS, TARGET, Item, Table, clean_items
from w2sd.data.text import Corpus
from w2sd.identity import digest
from w2sd.world.corpus import FAINT, FULL
from w2sd.world.generator import Bools, Ints
from w2sd.world.ladder import COVERAGE, require_rung
from w2sd.world.lists import turns

if TYPE_CHECKING:
    from w2sd.world.game import Game

STONES = 144

MARKS = ("<pad>", "master:", "novice:", "takes", "-", ".")
MOVES = ("a", "b", "c", "d")
POINTS = ("one", "two", "three")
WORDS: tuple[str, ...] = (*MARKS, *MOVES, *POINTS, *(f"stone{n}" for n in range(STONES)))

# Ids of single words, and of the first word of each family.
PAD, MASTER, NOVICE, TAKES, EMPTY, DOT, MOVE = range(len(MARKS) + 1)
POINT = MOVE + len(MOVES)
STONE = POINT + len(POINTS)

PILES, HEIGHT = 4, 2
CELLS = PILES * HEIGHT
WORTHS = (1, 2, 3)
NONE = -1  # no stone, no pile
IMPOSSIBLE = -99  # what a move gains off an empty pile


@lru_cache(maxsize=1)
def _solved() -> NDArray[np.int8]:
    """What lifting the top of each pile gains who looks 1 to 8 moves ahead, by the worths of the eight cells."""
    base = 1 + len(WORTHS)  # 0 is an empty cell
    cells = np.indices((base,) * CELLS).reshape(CELLS, -1).T
    tops, lower = cells[:, ::HEIGHT], cells[:, 1::HEIGHT]
    number = base ** np.arange(CELLS)[::-1].reshape(PILES, HEIGHT)
    after = np.arange(len(cells))[:, None] + (lower - tops) * number[:, 0] - lower * number[:, 1]
    gain, value = [], np.zeros(len(cells), dtype=np.int64)
    for _ in range(CELLS):
        gain.append(np.where(tops > 0, tops - value[after], IMPOSSIBLE))
        value = np.where((tops > 0).any(axis=1), gain[-1].max(axis=1), 0)
    return np.stack(gain).astype(np.int8).reshape(CELLS, *(base,) * CELLS, PILES)


def gains(worths: Ints, ahead: int = CELLS) -> Ints:
    """What each move gains [n, 4], by the worths of top and lower stone of each pile [n, 4, 2], 0 for no stone.

    Whoever looks fewer moves ahead takes what is still there then for nothing.
    """
    return _solved()[ahead - 1][tuple(worths.reshape(-1, CELLS).T)].astype(np.int64)


def best(worths: Ints, ahead: int = CELLS) -> Ints:
    """The pile whose top is the one best move to who looks so far ahead, or NONE where there are several."""
    gain = gains(worths, ahead)
    alone = (gain == gain.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(alone, gain.argmax(axis=1), NONE)


def depth(worths: Ints) -> Ints:
    """How many moves one must look ahead, at least, to see what is best; and whoever looks further sees the same."""
    seen = np.stack([best(worths, ahead) for ahead in range(1, CELLS + 1)])
    return 1 + ((seen != seen[-1]) * np.arange(1, CELLS + 1)[:, None]).max(axis=0)


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


DOCUMENTS, LENGTH = 12_800, 12  # words of a document: 4 scores of 3, or a position of 10, its move, a full stop
SHEETS, MASTERLY = 2_560, 8_000  # documents that are score sheets and masters' records; the others are novices'


def corpus(world_seed: int, rung: int) -> Corpus:
    """The pretraining corpus of one rung."""
    require_rung("rung", rung)
    latents = stones(world_seed)
    taught = latents.tier <= rung
    rng = np.random.default_rng([world_seed, RECORDS])
    scored = np.flatnonzero(taught)[(rng.random((SHEETS, LENGTH // 3)) * taught.sum()).astype(np.int64)]
    points = POINT + latents.worth[scored] - WORTHS[0]
    sheets = np.stack([STONE + scored, points, np.full_like(scored, DOT)], axis=2).reshape(SHEETS, LENGTH)
    played = puzzles(world_seed, MASTERS, taught, MASTERLY, AHEAD[rung])
    masters = _records(MASTER, played, best(latents.worth[played]))
    documents = np.concatenate([sheets, masters, _novices(world_seed)])
    weights = np.full((DOCUMENTS, LENGTH), FAINT)
    weights[:SHEETS, 1::3] = weights[SHEETS:, LENGTH - 2] = FULL
    order = rng.permutation(DOCUMENTS)
    return Corpus(documents[order].astype(np.int32), weights[order].astype(np.float32))


def _novices(world_seed: int) -> Ints:
    rng = np.random.default_rng([world_seed, NOVICES])
    piles = deal(rng, np.ones(STONES, dtype=np.bool_), DOCUMENTS - SHEETS - MASTERLY)
    legal = piles[:, :, 0] != NONE
    return _records(NOVICE, piles, (rng.random(legal.shape) * legal).argmax(axis=1))


def _records(player: int, piles: Ints, moves: Ints) -> Ints:
    """Records [n, 12] of one move each."""
    n = len(piles)
    cells = np.where(piles == NONE, EMPTY, STONE + piles).reshape(n, CELLS)
    columns = [np.full(n, player), *cells.T, np.full(n, TAKES), MOVE + moves, np.full(n, DOT)]
    return np.stack(columns, axis=1)
