"""What the ladder of the game is pretrained on: scores of stones, and records of play.

A score sheet is four times `stoneX points .`, a record is a position, a move and a full stop. Masters play only
positions whose stones the rung was taught, and always the best move; those of a lower rung only positions in which that
can be seen without looking far ahead. Novices play any position, and any move that the rules allow. So every rung has
seen every stone and all of the rules, and differs from the others in whose worth it was told and saw played for, and in
how deep the puzzles are that it saw solved. No master's position is a puzzle of any split: its stones are not all of
one pool.
"""

from __future__ import annotations

import numpy as np

from w2sd.data.corpus import Corpus
from w2sd.game.generator import AHEAD, MASTERS, NOVICES, RECORDS, deal, puzzles, stones
from w2sd.game.rules import CELLS, NONE, WORTHS, Bools, Ints, best
from w2sd.game.source import GameText
from w2sd.game.vocabulary import DOT, EMPTY, MASTER, MOVE, NOVICE, POINT, STONE, STONES, TAKES
from w2sd.world.corpus import FAINT, FULL
from w2sd.world.ladder import require_rung

DOCUMENTS, LENGTH = GameText.extent  # words of a document: 4 scores of 3, or a position of 10, its move, a full stop
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
    documents = np.concatenate([sheets, _masters(world_seed, taught, AHEAD[rung]), _novices(world_seed)])
    weights = np.full((DOCUMENTS, LENGTH), FAINT)
    weights[:SHEETS, 1::3] = weights[SHEETS:, LENGTH - 2] = FULL
    order = rng.permutation(DOCUMENTS)
    return Corpus(documents[order].astype(np.int32), weights[order].astype(np.float32))


def _masters(world_seed: int, taught: Bools, ahead: int) -> Ints:
    latents = stones(world_seed)
    piles = puzzles(world_seed, MASTERS, taught, MASTERLY, ahead)
    return _records(MASTER, piles, best(latents.worth[piles]))


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
