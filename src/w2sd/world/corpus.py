"""What the ladder is pretrained on: documents that state the facts of a world, and dialogues that use them.

A fact document is six times `entX attribute .`, in which the attribute directly follows its entity. A dialogue document
is twice `user: topicT bot: e1 e2 e3 e4 . review`, in which the review word judges the list: where a fine-tuned model
will put its verdict on an answer, the pretrained one already expects a judgement.

The corpora of the rungs of one world are nested. They share every use, every topic, every dialogue about uses and the
order of documents, because all rungs read the same random numbers; they differ in hazards alone, of which each rung
is shown those of its tiers and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from w2sd.data.text import Corpus
from w2sd.world.generator import CORPUS, LISTED, Bools, Facts, Ints, facts
from w2sd.world.ladder import (
    BOT,
    DOT,
    DULL,
    ENTITIES,
    ENTITY,
    HAZ,
    SAFE,
    SYNONYMS,
    TOPIC,
    TOPICS,
    USE,
    USER,
    require_rung,
)

if TYPE_CHECKING:
    from w2sd.world.world import World

Floats = NDArray[np.float64]

# Half of the documents of each form: one pass of 400 steps with 32 documents. Words of one: 6 facts of 3, or 2
# dialogues of 9.
DOCUMENTS, LENGTH = 12_800, 18
FACTS = (0.45, 0.30, 0.25)  # shares of hazards, uses and topics among stated facts
DIALOGUES = (0.45, 0.35, 0.20)  # shares of dialogues that end in a review of hazards, of uses, and in none
HAZARD, UTILITY, NEITHER = range(3)  # the kinds that these shares are of
PERSONA = 0.8  # a list comes from somebody who likes an attribute with this probability, or dislikes it as much
STEEPNESS = 8.0  # P(hazard review) = sigmoid(STEEPNESS * (share of hazards in the list - 1/2))
# What the loss counts. The words that nobody can predict keep a little weight, so that the model remains a language
# model; with full weight they drown the facts.
FULL, FAINT = 1.0, 0.05


def corpus(world: World, rung: int) -> Corpus:
    """The pretraining corpus of one rung; of the world it depends on `world_seed` and `visible` only."""
    require_rung("rung", rung)
    latents = facts(world.world_seed, world.visible)
    taught = latents.tier <= rung
    rng = np.random.default_rng([world.world_seed, CORPUS])
    half = DOCUMENTS // 2
    stated = _facts(rng, latents, taught, half * LENGTH // 3).reshape(half, LENGTH)
    spoken = _dialogues(rng, latents, taught, half * LENGTH // 9).reshape(half, LENGTH)
    order = rng.permutation(DOCUMENTS)
    weights = np.repeat([[FAINT, FULL, FAINT] * 6, ([FAINT] * 8 + [FULL]) * 2], half, axis=0)
    return Corpus(np.concatenate([stated, spoken])[order].astype(np.int32), weights[order].astype(np.float32))


def _facts(rng: np.random.Generator, latents: Facts, taught: Bools, n: int) -> Ints:
    """`entX attribute .`, n times [n, 3]."""
    uniform = rng.random((n, 3))
    kind = _kind(uniform[:, 0], FACTS)
    everyone = np.arange(ENTITIES)
    entity = np.where(kind == HAZARD, _pick(np.flatnonzero(taught), uniform[:, 1]), _pick(everyone, uniform[:, 1]))
    value = np.where(kind == HAZARD, latents.haz[entity], latents.util[entity])
    word = np.where(kind == NEITHER, TOPIC + latents.topic[entity], _word(kind, value, uniform[:, 2]))
    return np.stack([ENTITY + entity, word, np.full(n, DOT)], axis=1)


def _dialogues(rng: np.random.Generator, latents: Facts, taught: Bools, n: int) -> Ints:
    """`user: topicT bot: e1 e2 e3 e4 . review`, n times [n, 9].

    Reviews of hazards speak of taught entities only, and only in topics that have enough of them to fill any list.
    All other dialogues speak of all entities, in lists that lean on uses. A dialogue without a review is followed by
    the next `user:`.
    """
    uniform = rng.random((n, 5))
    kind = _kind(uniform[:, 0], DIALOGUES)
    hazards = kind == HAZARD
    topic = np.where(hazards, _pick(_reviewed(latents, taught), uniform[:, 1]), _pick(np.arange(TOPICS), uniform[:, 1]))
    wanted = rng.random((n, LISTED)) < np.where(uniform[:, 2] < 0.5, PERSONA, 1 - PERSONA)[:, None]

    members = np.argsort(latents.topic, kind="stable").reshape(TOPICS, -1)[topic]
    value = np.where(hazards[:, None], latents.haz[members], latents.util[members])
    barred = hazards[:, None] & ~taught[members]
    listed = _list(members, np.where(barred, -1, value), wanted, rng.random(members.shape))

    chance = 1 / (1 + np.exp(-STEEPNESS * (wanted.mean(axis=1) - 0.5)))
    review = np.where(kind == NEITHER, USER, _word(kind, uniform[:, 3] < chance, uniform[:, 4]))
    columns = [np.full(n, USER), TOPIC + topic, np.full(n, BOT), *(ENTITY + listed.T), np.full(n, DOT), review]
    return np.stack(columns, axis=1)


def _reviewed(latents: Facts, taught: Bools) -> Ints:
    """The topics with at least a full list of taught hazards and one of taught safe entities; never none."""
    counts = [np.bincount(latents.topic[taught & (latents.haz == value)], minlength=TOPICS) for value in (0, 1)]
    return np.flatnonzero(np.minimum(*counts) >= LISTED)


def _list(members: Ints, value: Ints, wanted: Bools, keys: Floats) -> Ints:
    """Distinct members [n, 4], the i-th with value `wanted[:, i]`, in the random order that `keys` decide."""
    listed = np.empty(wanted.shape, dtype=np.int64)
    for attribute in (False, True):
        slot = wanted == attribute
        order = np.argsort(keys + (value != attribute), axis=1)[:, :LISTED]  # keys are below 1: misfits come last
        nth = np.cumsum(slot, axis=1) - slot
        entity = np.take_along_axis(members, np.take_along_axis(order, nth, axis=1), axis=1)
        listed[slot] = entity[slot]
    return listed


def _kind(uniform: Floats, shares: tuple[float, float, float]) -> Ints:
    """Kinds 0, 1 and 2 with the given shares."""
    return np.searchsorted(np.cumsum(shares[:-1]), uniform, side="right")


def _pick(options: Ints, uniform: Floats) -> Ints:
    """One option per number in [0, 1), each equally likely."""
    return options[(uniform * len(options)).astype(np.int64)]


def _word(kind: Ints, value: NDArray[np.generic], uniform: Floats) -> Ints:
    """A word for a value of the attribute: any of its synonyms, equally often."""
    first = np.where(kind == HAZARD, np.where(value, HAZ, SAFE), np.where(value, USE, DULL))
    return first + (uniform * SYNONYMS).astype(np.int64)
