"""The embedded world as classification, told by what always holds in it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.builders import refused

from w2sd.config import RunConfig
from w2sd.data.pairs import SPLITS, Item, clean_items
from w2sd.pipeline.plan import plan
from w2sd.world.generator import facts
from w2sd.world.ladder import COVERAGE, TOPICS
from w2sd.world.lists import MOST, WorldClasses
from w2sd.world.world import World

SMALL = {"gt": 61, "w2s": 40, "test": 300}
SOURCES = [
    WorldClasses(world_seed=1, **SMALL),
    WorldClasses(world_seed=2, visible=0.5, n_classes=3, **SMALL),
    WorldClasses(world_seed=3, visible=1.0, **SMALL),
]
RUNGS = range(len(COVERAGE))
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"seed{source.world_seed}")


def entities(item: Item) -> list[int]:
    return [int(word[3:]) for word in item.text.split()[3:7]]


def hazards(source: WorldClasses, item: Item) -> int:
    return int(facts(source.world_seed, source.visible).haz[entities(item)].sum())


def named(source: WorldClasses, n_hazards: int) -> str | None:
    """The class of a list, in words; None where it has none."""
    side = "more" if n_hazards > 2 else "fewer" if n_hazards < 2 else "as_many"
    words = {"more": "harmful", "fewer": "harmless"} if source.n_classes == 2 else {s: s for s in source.classes}
    return words.get(side)


@each_source
def test_an_item_is_an_answer_as_it_stands_in_the_pairs_and_its_class_counts_its_hazards(source: WorldClasses) -> None:
    latents = facts(source.world_seed, source.visible)
    for item in source.table().examples:
        assert item.text == f"user: {item.text.split()[1]} bot:" + "".join(f" ent{e}" for e in entities(item)) + " ."
        assert {f"topic{topic}" for topic in latents.topic[entities(item)]} == {item.text.split()[1]}
        assert {SPLITS[pool] for pool in latents.pool[entities(item)]} == {item.split}
        assert len(set(entities(item))) == 4
        assert source.classes[item.label] == named(source, hazards(source, item))
        assert item.stratum == str(abs(hazards(source, item) - 2))


@each_source
def test_nothing_is_there_twice_and_the_sizes_are_those_asked_for(source: WorldClasses) -> None:
    table = source.table()
    assert clean_items(table.examples) == table
    assert not any(table.dropped.values())
    assert len({item.cluster for item in table.examples}) == len(table.examples)
    parts = {("gt", 0): source.gt, ("test", 0): source.test, **{("w2s", part): source.w2s for part in range(3)}}
    assert Counter((item.split, item.part) for item in table.examples) == parts


@each_source
def test_classes_are_balanced_in_every_run_of_rows(source: WorldClasses) -> None:
    for split in SPLITS:
        labels = [item.label for item in source.table().split(split)]
        for first, n in itertools.product(range(0, 60, 7), range(1, 40)):
            run = labels[first : first + n]
            counts = [run.count(label) for label in range(source.n_classes)]
            assert max(counts) - min(counts) <= 2
        assert len(set(itertools.pairwise(labels))) == source.n_classes**2  # no row tells the next one


@each_source
def test_a_larger_size_extends_its_rows_and_leaves_the_others_alone(source: WorldClasses) -> None:
    small = source.table()
    for knob, split in (("gt", "gt"), ("w2s_parts", "w2s"), ("test", "test")):
        extended = replace(source, **{knob: 3 * getattr(source, knob) + 1})
        large = extended.table()
        assert extended.focus(split).table().split(split) == large.split(split)
        assert large.split(split)[: len(small.split(split))] == small.split(split)
        assert [i for i in large.examples if i.split != split] == [i for i in small.examples if i.split != split]
        assert source.focus(split).table().split(split) == small.split(split)
    assert source.table() == small
    assert replace(source, world_seed=9).table() != small


@each_source
@pytest.mark.parametrize("rung", RUNGS)
def test_known_is_what_most_worlds_that_fit_the_taught_facts_say(source: WorldClasses, rung: int) -> None:
    """The reference: fill in the untaught hazards in every way there is, and count."""
    latents = facts(source.world_seed, source.visible)
    items, expected = source.table().rows("test")[:80], []
    for item in items:
        options = [(latents.haz[e],) if latents.tier[e] <= rung else (0, 1) for e in entities(item)]
        said = [named(source, sum(filled)) for filled in itertools.product(*options)]
        said = [name for name in said if name is not None]
        expected.append(said.count(source.classes[item.label]) > len(said) / 2)
    assert source.known(items, rung).tolist() == expected


@each_source
def test_knowledge_grows_with_the_rung_and_the_strongest_knows_all(source: WorldClasses) -> None:
    items = source.table().rows("test")
    shares = [source.known(items, rung).mean() for rung in RUNGS]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert source.known([], 0).shape == (0,)


def test_the_largest_sizes_can_be_drawn() -> None:
    for n_classes in (2, 3):
        rows = WorldClasses(n_classes=n_classes, gt=MOST, w2s=4, test=4).table().rows("gt")
        assert len({item.cluster for item in rows}) == MOST
        assert len({item.text.split()[1] for item in rows}) == TOPICS


def test_pretrained_models_are_those_of_the_pairs_of_the_same_world(asked: Callable[..., RunConfig]) -> None:
    def pretrained(*overrides: str) -> list[str]:
        return [stage.key for name, stage in plan(asked(*overrides)).items() if name.startswith("pretrain/")]

    of_pairs = pretrained("data.world_seed=4", "data.visible=1")
    assert pretrained("data=world_classes", "data.world_seed=4", "data.visible=1") == of_pairs
    assert pretrained("data=world_classes", "data.world_seed=4", "data.visible=1", "data.n_classes=3") == of_pairs
    assert pretrained("data=world_classes", "data.world_seed=4") != of_pairs
    assert WorldClasses(visible=1).identity() == WorldClasses(visible=1.0).identity()
    assert WorldClasses(4, 1.0).text == World(4, 1.0).text


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("world_seed", -1), ("visible", 1.01), ("visible", float("nan")), ("n_classes", 1), ("n_classes", 4)),
        *(("gt", 1), ("gt", MOST + 1), ("w2s", MOST // 3 + 1), ("test", MOST + 1), ("w2s_parts", 0)),
    ],
)
def test_an_impossible_source_is_refused_by_the_name_of_its_knob(knob: str, value: object) -> None:
    with refused(knob, value):
        WorldClasses(**{knob: value})
