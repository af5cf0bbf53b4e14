"""The embedded world, told by what always holds in it."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from tests.builders import refused

from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, UNRELATED, Pair, Table, clean
from w2sd.data.text import Corpus
from w2sd.world import ladder as v
from w2sd.world.corpus import DIALOGUES, DOCUMENTS, FACTS, STEEPNESS, corpus
from w2sd.world.generator import _candidates, facts
from w2sd.world.ladder import COVERAGE, Rung
from w2sd.world.world import MOST, World

RUNGS = range(len(COVERAGE))
corpus_of = lru_cache(corpus)
SMALL = {"gt": 60, "w2s": 60, "test": 300, "helpful": 100, "helpful_test": 50}
WORLDS = [
    World(world_seed=1, **SMALL),
    World(world_seed=2, visible=0.5, tension=0.5, **SMALL),
    World(world_seed=3, visible=1.0, tension=0.8, tension_on="blind", blind_rung=2, w2s_parts=2, unrelated=80, **SMALL),
]
each_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"seed{world.world_seed}")
each_rung = pytest.mark.parametrize("rung", RUNGS)


def entities(answer: str) -> list[int]:
    """The entities that an answer lists."""
    return [int(word[3:]) for word in answer.split() if word.startswith("ent")]


def hazards(world: World, answer: str) -> int:
    return sum(facts(world.world_seed, world.visible).haz[entities(answer)])


def uses(world: World, answer: str) -> int:
    return sum(facts(world.world_seed, world.visible).util[entities(answer)])


def helpful(table: Table) -> list[Pair]:
    return [pair for pair in table.examples if pair.facet == CONFLICTING]


# --- entities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_each_topic_and_pool_holds_one_entity_of_every_sort(seed: int) -> None:
    latents = facts(seed, 0.0)
    sorts = set(zip(*(latents[n].tolist() for n in (0, 1, 2, 3, 5)), strict=True))
    assert sorts == set(itertools.product(range(v.TOPICS), range(3), (0, 1), (0, 1), RUNGS))
    assert len(sorts) == v.ENTITIES  # hence exactly one entity of each: every marginal is balanced


@pytest.mark.parametrize("visible", [0.0, 0.3, 1.0])
def test_rungs_are_nested_and_the_strongest_was_taught_everything(visible: float) -> None:
    latents = facts(4, visible)
    shares = [(latents.tier <= rung).mean() for rung in RUNGS]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert all((latents.tier == rung).any() for rung in RUNGS)
    if visible in (0.0, 1.0):
        assert shares == list(COVERAGE)


def test_visible_blind_spots_are_whole_topics_and_invisible_ones_are_spread_evenly() -> None:
    hidden, shown = facts(5, 0.0), facts(5, 1.0)
    per_topic = [np.bincount(hidden.tier[hidden.topic == topic], minlength=4).tolist() for topic in range(v.TOPICS)]
    assert per_topic == [[12, 12, 12, 12]] * v.TOPICS
    tiers = [set(shown.tier[shown.topic == topic].tolist()) for topic in range(v.TOPICS)]
    assert sorted(tiers, key=min) == [{0}, {0}, {1}, {1}, {2}, {2}, {3}, {3}]


def test_visible_changes_nothing_but_who_was_taught_what() -> None:
    versions = [facts(6, visible) for visible in (0.0, 0.3, 0.7, 1.0)]
    assert all(np.array_equal(a, b) for latents in versions for a, b in zip(latents[:4], versions[0], strict=False))
    moved = [latents.rank != versions[0].rank for latents in versions]
    assert all((few <= many).all() for few, many in itertools.pairwise(moved))
    assert moved[1].mean() == pytest.approx(0.3, abs=0.1)
    assert World(world_seed=6, **SMALL).table() == World(world_seed=6, visible=1.0, **SMALL).table()


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        facts(0, 0.0).haz[0] = 1


# --- pairs ------------------------------------------------------------------------------------------------------------


@each_world
def test_splits_share_no_entity_and_no_cluster_and_nothing_is_there_twice(world: World) -> None:
    table = world.table()
    latents = facts(world.world_seed, world.visible)
    for pair in table.examples:
        assert {SPLITS[pool] for pool in latents.pool[entities(pair.chosen + pair.rejected)]} == {pair.split}
    assert clean(table.examples) == table
    assert not any(table.dropped.values())
    assert len({pair.id for pair in table.examples}) == len(table.examples)
    for split, facet in itertools.product(SPLITS, ("harmless", "helpful")):
        rows = table.rows(split, facet)
        assert len({pair.cluster for pair in rows}) == len(rows)
    assert {key: len(table.rows(*key)) for key in {(pair.split, pair.facet) for pair in table.examples}} == {
        ("gt", "harmless"): world.gt,
        ("w2s", "harmless"): world.w2s,
        ("w2s", "helpful"): world.helpful,
        ("test", "harmless"): world.test,
        ("test", "helpful"): world.helpful_test,
        ("w2s", "unrelated"): world.unrelated,
    }


@each_world
def test_parts_of_w2s_are_equally_large_and_the_first_is_the_same_however_many_there_are(world: World) -> None:
    table = world.table()
    parts = [table.rows("w2s", TARGET, part) for part in range(world.w2s_parts)]
    assert [len(part) for part in parts] == [world.w2s] * world.w2s_parts
    assert len({pair.id for part in parts for pair in part}) == world.w2s * world.w2s_parts
    assert replace(world, w2s_parts=1).table().rows("w2s") == parts[0]


@each_world
@pytest.mark.parametrize("split", SPLITS)
def test_the_rows_of_a_split_are_those_of_the_world_in_its_focus(world: World, split: str) -> None:
    """So that a stage which reads one split need not know how the others were made."""
    assert world.focus(split).table().split(split) == world.table().split(split)


@each_world
def test_every_row_is_eight_words_about_one_topic(world: World) -> None:
    latents = facts(world.world_seed, world.visible)
    for pair in world.table().examples:
        _, topic, _ = pair.prompt.split()
        assert pair.prompt == f"user: {topic} bot:"
        for answer in (pair.chosen, pair.rejected):
            assert answer == " " + " ".join(f"ent{entity}" for entity in entities(answer)) + " ."
            assert len((pair.prompt + answer).split()) == 8
        listed = entities(pair.chosen + pair.rejected)
        assert len(set(listed)) == 8
        assert {f"topic{number}" for number in latents.topic[listed]} == {topic}


@each_world
def test_the_better_answer_has_fewer_hazards_or_more_uses_and_the_stratum_says_how_many(world: World) -> None:
    for pair in world.table().examples:
        dhaz = hazards(world, pair.chosen) - hazards(world, pair.rejected)
        dutil = uses(world, pair.chosen) - uses(world, pair.rejected)
        if pair.facet == UNRELATED:
            assert dhaz == dutil == 0
            assert entities(pair.chosen)[0] < entities(pair.rejected)[0]
        else:
            assert dutil > 0 if pair.facet == CONFLICTING else dhaz < 0
        assert pair.stratum == f"{dhaz:+d}{dutil:+d}"


@pytest.mark.parametrize("tension", [0.0, 0.2, 0.5, 1.0])
def test_uniform_tension_makes_its_share_of_helpful_rows_choose_more_hazards(tension: float) -> None:
    world = World(tension=tension, **SMALL)
    rows = world.table().rows("w2s", CONFLICTING)
    excess = np.array([hazards(world, pair.chosen) - hazards(world, pair.rejected) for pair in rows])
    assert (excess >= 0).all()
    for n in range(1, len(rows) + 1):  # the share holds in every prefix, however few rows a conflict takes
        assert abs((excess[:n] > 0).sum() - tension * n) < 2


@pytest.mark.parametrize("visible", [0.0, 1.0])
@each_rung
def test_blind_tension_chooses_more_hazards_exactly_where_the_weak_rung_is_blind(visible: float, rung: int) -> None:
    world = World(visible=visible, tension=0.8, tension_on="blind", blind_rung=rung, **SMALL)
    tier = facts(0, visible).tier
    rows = world.table().rows("w2s", CONFLICTING)
    excess = np.array([hazards(world, pair.chosen) - hazards(world, pair.rejected) for pair in rows])
    blind = np.array([(tier[entities(pair.chosen + pair.rejected)] <= rung).sum() < 4 for pair in rows])
    assert (excess[blind] >= 0).all()
    assert (excess[~blind] <= 0).all()
    assert abs((excess != 0).sum() - 0.8 * len(rows)) < 2
    # Rung 3 is blind nowhere, and rung 2 only to whole topics: spread evenly, its blind spot never hides half a pair.
    assert (excess > 0).any() == (rung < (3 if visible else 2))


def test_the_same_world_is_drawn_again_and_another_seed_is_another_world() -> None:
    assert World(world_seed=7, **SMALL).table() == World(world_seed=7, **SMALL).table()
    assert World(world_seed=7, **SMALL).table().examples != World(world_seed=8, **SMALL).table().examples


@each_world
def test_a_larger_size_extends_its_rows_and_leaves_the_others_alone(world: World) -> None:
    small = world.table()
    for knob, split, facet in [
        ("gt", "gt", "harmless"),
        ("w2s", "w2s", "harmless"),
        ("test", "test", "harmless"),
        ("helpful", "w2s", "helpful"),
        ("helpful_test", "test", "helpful"),
    ]:
        config = {**world.identity(), knob: 3 * SMALL[knob] + 1}
        del config["source"], config["version"]
        large = World(**config).table()
        assert large.rows(split, facet)[: SMALL[knob]] == small.rows(split, facet)
        others = [
            [pair for pair in table.examples if (pair.split, pair.facet) != (split, facet)] for table in (small, large)
        ]
        assert others[0] == others[1]


def test_tension_decides_helpful_rows_only_and_more_of_it_keeps_the_rows_that_had_it() -> None:
    little, much = World(tension=0.2, **SMALL).table(), World(tension=0.6, **SMALL).table()
    assert set(little.examples) - set(much.examples) <= set(helpful(little))
    pulled = [[pair.stratum[:2] != "+0" for pair in helpful(table)] for table in (little, much)]
    assert all(more or not less for less, more in zip(*pulled, strict=True))


def test_identity_names_every_field_and_does_not_fork_on_the_spelling_of_a_number() -> None:
    identity = World().identity()
    assert set(identity) == {"source", "version", *(field.name for field in fields(World))}
    assert str(World(visible=1).identity()) == str(World(visible=1.0).identity())
    assert World(tension=0.3).identity() != identity


# --- who knows what ---------------------------------------------------------------------------------------------------


@each_world
@each_rung
def test_known_is_what_a_reader_of_the_taught_facts_expects_over_all_worlds_that_fit_them(
    world: World, rung: int
) -> None:
    """The reference: fill in the untaught hazards in every possible way and average, without the shortcut of 1/2."""
    latents = facts(world.world_seed, world.visible)
    table = world.table()
    pairs = table.rows("test")[:60] + helpful(table)[:5]
    expected = []
    for pair in pairs:
        good, bad = entities(pair.chosen), entities(pair.rejected)
        options = [(latents.haz[e],) if latents.tier[e] <= rung else (0, 1) for e in good + bad]
        excess = sum(sum(filled[:4]) - sum(filled[4:]) for filled in itertools.product(*options))
        expected.append(pair.facet == CONFLICTING or excess < 0)
    assert world.known(pairs, rung).tolist() == expected


@each_world
def test_knowledge_grows_with_the_rung_and_the_strongest_knows_all(world: World) -> None:
    pairs = world.table().rows("test")
    shares = [world.known(pairs, rung).mean() for rung in RUNGS]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert world.known([], 0).shape == (0,)


def test_with_visible_blind_spots_the_prompt_tells_what_is_known() -> None:
    world = World(visible=1.0)
    pairs = world.table().rows("test")
    known = world.known(pairs, 1)
    topics = [
        {pair.prompt for pair, knows in zip(pairs, known, strict=True) if knows == side} for side in (True, False)
    ]
    assert topics[0].isdisjoint(topics[1])
    assert len(topics[0]) == len(topics[1]) == v.TOPICS // 2


# --- the pretraining corpus -------------------------------------------------------------------------------------------


def is_statement(documents: Corpus) -> np.ndarray:
    """Which documents state facts; the others are dialogues."""
    return documents.tokens[:, 0] != v.USER


def statements(documents: Corpus) -> np.ndarray:
    """All facts in order: [n, 3] of entity, attribute, full stop."""
    return documents.tokens[is_statement(documents)].reshape(-1, 3)


def dialogues(documents: Corpus) -> np.ndarray:
    """All dialogues in order: [n, 9] of `user: topic bot: e1 e2 e3 e4 . review`."""
    return documents.tokens[~is_statement(documents)].reshape(-1, 9)


def family(word: np.ndarray) -> np.ndarray:
    """0 hazard, 1 safe, 2 use, 3 dull, 4 and more: no attribute; -1: a mark."""
    return (word - v.HAZ) // v.SYNONYMS


@each_world
@each_rung
def test_the_corpus_states_only_what_is_true_and_only_the_hazards_that_the_rung_is_taught(
    world: World, rung: int
) -> None:
    latents = facts(world.world_seed, world.visible)
    entity, word, stop = statements(corpus_of(world, rung)).T
    entity = entity - v.ENTITY
    kind = family(word)
    hazard, use, topic = kind < 2, (kind == 2) | (kind == 3), word >= v.TOPIC
    assert (stop == v.DOT).all()
    assert (hazard | use | topic).all()
    assert ((kind == 0) == (latents.haz[entity] == 1))[hazard].all()
    assert ((kind == 2) == (latents.util[entity] == 1))[use].all()
    assert (word - v.TOPIC == latents.topic[entity])[topic].all()
    assert set(entity[hazard]) == set(np.flatnonzero(latents.tier <= rung))  # and all of them
    assert set(entity[use]) == set(entity[topic]) == set(range(v.ENTITIES))
    assert [hazard.mean(), use.mean(), topic.mean()] == pytest.approx(list(FACTS), abs=0.01)
    assert np.bincount(word[hazard | use] - v.HAZ) == pytest.approx(hazard.sum() / 8, rel=0.6)  # every synonym


@each_world
@each_rung
def test_hazard_reviews_speak_of_taught_entities_and_every_review_follows_its_list(world: World, rung: int) -> None:
    latents = facts(world.world_seed, world.visible)
    talk = dialogues(corpus_of(world, rung))
    topic, listed, review = talk[:, 1] - v.TOPIC, talk[:, 3:7] - v.ENTITY, talk[:, 8]
    assert (talk[:, [0, 2, 7]] == [v.USER, v.BOT, v.DOT]).all()
    assert (latents.topic[listed] == topic[:, None]).all()
    assert (np.diff(np.sort(listed, axis=1), axis=1) > 0).all()  # four different entities
    kind = family(review)
    hazard, use, plain = (kind == 0) | (kind == 1), (kind == 2) | (kind == 3), review == v.USER
    assert [hazard.mean(), use.mean(), plain.mean()] == pytest.approx(list(DIALOGUES), abs=0.015)
    assert (latents.tier[listed[hazard]] <= rung).all()
    for chosen, latent, positive in [(hazard, latents.haz, 0), (use, latents.util, 2)]:
        count = latent[listed[chosen]].sum(axis=1)
        said = kind[chosen] == positive
        for n in range(5):
            expected = 1 / (1 + np.exp(-STEEPNESS * (n / 4 - 0.5)))
            rows = (count == n).sum()
            assert rows > 500  # personas make uniform lists common, so every step of the curve is seen
            assert said[count == n].mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / rows))


@each_world
def test_a_stronger_rung_reads_the_same_corpus_but_for_the_hazards(world: World) -> None:
    for weak, strong in itertools.pairwise(corpus_of(world, rung) for rung in RUNGS):
        assert np.array_equal(weak.weights, strong.weights)
        for rows in (statements, dialogues):
            word = -2 if rows is statements else -1  # where a fact has its attribute and a dialogue its review
            a, b = rows(weak), rows(strong)
            hazard = np.isin(family(a[:, word]), (0, 1))
            assert np.array_equal(hazard, np.isin(family(b[:, word]), (0, 1)))
            assert np.array_equal(a[~hazard], b[~hazard])
            assert not np.array_equal(a[hazard], b[hazard])


def test_the_loss_counts_attributes_and_reviews_fully_and_other_words_faintly() -> None:
    documents = corpus(World(), 1)
    assert documents.tokens.shape == documents.weights.shape == (DOCUMENTS, 18)
    assert (documents.tokens.dtype, documents.weights.dtype) == (np.int32, np.float32)
    stated = is_statement(documents)
    assert stated.mean() == 0.5
    full = documents.weights == 1
    assert np.array_equal(np.unique(documents.weights), np.float32([0.05, 1]))
    attribute = (family(documents.tokens) >= 0) & (documents.tokens < v.ENTITY)
    assert np.array_equal(full[stated], attribute[stated])
    assert (full[~stated] == np.isin(np.arange(18), (8, 17))).all()
    assert 0.3 < stated[: DOCUMENTS // 20].mean() < 0.7  # shuffled: both forms from the first step on


def test_the_corpus_depends_on_the_facts_and_not_on_how_many_pairs_are_drawn() -> None:
    first = corpus(World(world_seed=9), 2)
    again = corpus(World(world_seed=9, test=10, tension=1.0), 2)
    assert np.array_equal(first.tokens, again.tokens)
    assert not np.array_equal(first.tokens, corpus(World(world_seed=10), 2).tokens)


# --- words and models -------------------------------------------------------------------------------------------------


def test_the_vocabulary_has_412_words_and_its_ids_point_at_them() -> None:
    assert len(v.WORDS) == len(set(v.WORDS)) == 412
    named = [v.PAD, v.USER, v.BOT, v.DOT, v.HAZ, v.SAFE, v.USE, v.DULL, v.TOPIC, v.ENTITY]
    assert [v.WORDS[n] for n in named] == [*v.MARKS, "haz0", "safe0", "use0", "dull0", "topic0", "ent0"]


def test_the_tokenizer_gives_one_token_per_word_and_survives_saving(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    v.tokenizer().save_pretrained(tmp_path)
    pair = World(**SMALL).table().examples[0]
    for tokenizer in (v.tokenizer(), AutoTokenizer.from_pretrained(tmp_path)):
        assert (len(tokenizer), tokenizer.pad_token_id) == (412, v.PAD)
        assert tokenizer.all_special_tokens == ["<pad>"]
        ids = tokenizer(pair.prompt + pair.chosen)["input_ids"]
        assert ids == tokenizer(pair.prompt)["input_ids"] + tokenizer(pair.chosen)["input_ids"]
        assert [v.WORDS[n] for n in ids] == (pair.prompt + pair.chosen).split()
        assert tokenizer.decode(ids) == pair.prompt + pair.chosen
        assert tokenizer(" ".join(v.WORDS))["input_ids"] == list(range(412))
        padded = tokenizer([pair.prompt, pair.prompt + pair.chosen], padding=True)
        assert padded["input_ids"][0][3:] == [v.PAD] * 5
        assert padded["attention_mask"][0] == [1] * 3 + [0] * 5
        with pytest.raises(Exception, match=r"Missing .* token from the vocabulary"):
            tokenizer("user: weather bot:")


def test_a_rung_describes_a_llama_with_tied_embeddings() -> None:
    config = Rung(rung=3, width=64, layers=2, heads=4, lr=5e-3).open_config()
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (412, 64, 192)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (2, 4, 4)
    assert (config.tie_word_embeddings, config.initializer_range, config.use_cache) == (True, 0.1, False)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (v.PAD, None, None)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("world_seed", -1),
        ("world_seed", 2**32),
        ("visible", 1.01),
        ("visible", float("nan")),
        ("tension", -0.1),
        ("tension_on", "blnd"),
        ("blind_rung", 4),
        *((size, n) for size in SMALL for n in (1, MOST + 1)),
    ],
)
def test_an_impossible_world_is_refused_by_the_name_of_its_knob(knob: str, value: object) -> None:
    with refused(knob, value, nearest="blind" if value == "blnd" else None):
        World(**{knob: value})


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("rung", 4), ("rung", -1), ("width", 0), ("layers", 0)),
        *(("heads", 0), ("heads", 3), ("heads", 16)),
        *(("lr", 0.0), ("batch", 0)),
    ],
)
def test_an_impossible_rung_is_refused_by_the_name_of_its_knob(knob: str, value: object) -> None:
    with refused(knob, value):
        Rung(**{"rung": 1, "width": 16, "layers": 1, "heads": 2, "lr": 1e-2, knob: value})


def test_a_rung_that_does_not_exist_is_refused_wherever_it_is_asked_for() -> None:
    for ask in (lambda: World().known([], 4), lambda: corpus(World(), -1)):
        with refused("rung"):
            ask()


def test_the_largest_sizes_can_be_drawn() -> None:
    """The rarest rows are helpful ones with equal hazards; no setting of the world changes how many there are."""
    _, _, fit = _candidates(World(), "w2s", CONFLICTING, 20_000)
    share = (fit == 0).mean()
    distinct = v.TOPICS * math.comb(16, 8) * math.comb(8, 4) / 2
    assert share * distinct > 5 * MOST


def test_planning_a_world_imports_nothing_heavy() -> None:
    code = (
        "import sys, w2sd.world.corpus, w2sd.world.generator, w2sd.world.ladder, w2sd.world.ladder;"
        "sys.exit(str({'torch', 'transformers', 'tokenizers', 'pandas'} & set(sys.modules) or '') or None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
