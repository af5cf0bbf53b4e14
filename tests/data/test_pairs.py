"""Ids, splits, coins and the cleaning rules, on made and on real pairs."""

from __future__ import annotations

import os
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.data.reading import anywhere

from w2sd.data.formats import TAG, Dialogue, Pairs, QuestionAnswer
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, Item, Pair, Table, clean, clean_items, coin, drops_long
from w2sd.data.sources import Files, split_of
from w2sd.identity import digest


def make(prompt: str, split: str, chosen: str = "a", rejected: str = "b", facet: str = "harmless") -> Pair:
    return Pair(digest(prompt, chosen, rejected, facet), digest(prompt), split, facet, prompt, chosen, rejected)


def test_ids_never_change() -> None:
    assert digest("p", "a", "b", "harmless") == "b3e5348208f89da7"
    assert digest("ab", "c") != digest("a", "bc")


def test_the_split_of_a_prompt_never_changes() -> None:
    assert [split_of(digest(str(i)), 0) for i in range(6)] == ["w2s", "w2s", "test", "gt", "gt", "gt"]


def test_only_pairs_are_left_out_for_their_length() -> None:
    assert drops_long(Files(path="x"))
    assert not drops_long(Files(path="x", long="refuse"))
    assert not drops_long(Files(path="x", format=QuestionAnswer()))


def test_the_coin_is_fair_and_its_own() -> None:
    ids = [digest(str(number)) for number in range(4000)]
    heads = sum(map(coin, ids))
    assert abs(heads - 2000) < 4 * 4000**0.5 / 2  # four standard deviations of a fair coin
    assert [coin(pair_id) for pair_id in reversed(ids)] == [coin(pair_id) for pair_id in ids][::-1]


def test_rows_are_asked_for_by_split_facet_and_part() -> None:
    """Part 0 unless another is asked for; `split` gives whatever is there, in the source's order."""
    here, there = make("p", "w2s")._replace(part=1), make("q", "w2s")
    helpful, other = make("r", "w2s", facet="helpful"), make("s", "gt")
    table = Table([here, helpful, there, other], {})
    assert table.rows("w2s") == table.rows("w2s", TARGET, 0) == [there]
    assert table.rows("w2s", part=1) == [here]
    assert table.rows("w2s", part=None) == [here, there]
    assert table.rows("w2s", part=2) == table.rows("test") == []
    assert table.rows("w2s", CONFLICTING) == [helpful]
    assert table.split("w2s") == [here, helpful, there]


def test_drops_equal_sides_and_duplicates() -> None:
    twice = make("p", "gt")
    table = clean([twice, make("q", "gt", "same", "same"), twice, make("p", "gt", facet="helpful")])
    assert [(pair.prompt, pair.facet) for pair in table.examples] == [("p", "harmless"), ("p", "helpful")]
    assert table.dropped == {"equal_sides": 1, "duplicates": 1, "leaks": 0}


def test_a_leaking_prompt_stays_in_test_then_in_w2s() -> None:
    rows = [make("p", "gt"), make("p", "w2s", "c"), make("p", "test", "d"), make("q", "gt"), make("q", "w2s")]
    table = clean([*rows, make("p", "w2s", facet="helpful"), make("r", "gt")])
    assert [(pair.prompt, pair.split) for pair in table.examples] == [("p", "test"), ("q", "w2s"), ("r", "gt")]
    assert table.dropped["leaks"] == 4


letters = st.sampled_from("abc")
pairs = st.builds(make, letters, st.sampled_from(SPLITS), letters, letters, st.sampled_from(["harmless", "helpful"]))


@settings(database=None, deadline=None)
@given(st.lists(pairs, max_size=30), st.randoms(use_true_random=False))
def test_cleaning_counts_every_row_and_leaks_none_in_any_order(rows: list[Pair], random: object) -> None:
    table = clean(rows)
    assert len(rows) == len(table.examples) + sum(table.dropped.values())
    home: dict[str, str] = {}
    assert all(home.setdefault(pair.cluster, pair.split) == pair.split for pair in table.examples)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(clean(shuffled).examples) == set(table.examples)
    assert clean(shuffled).dropped == table.dropped


def item(text: str, split: str, label: int) -> Item:
    return Item(digest(text), digest(text[:1]), split, text, label)


items = st.builds(item, st.text("ab", min_size=1, max_size=2), st.sampled_from(SPLITS), st.sampled_from([0, 1, 2]))


@settings(database=None, deadline=None)
@given(st.lists(items, max_size=30))
def test_cleaned_items_have_one_label_and_one_split_and_all_are_counted(rows: list[Item]) -> None:
    table = clean_items(rows)
    assert len(rows) == len(table.examples) + sum(table.dropped.values())
    for key in {(row.split, row.id) for row in rows}:
        labels = {row.label for row in rows if (row.split, row.id) == key}
        there = [row for row in table.examples if (row.split, row.id) == key]
        assert len(there) <= (len(labels) == 1)
    home: dict[str, str] = {}
    assert all(home.setdefault(row.cluster, row.split) == row.split for row in table.examples)
    assert clean_items(table.examples).examples == table.examples


def test_an_item_of_two_classes_is_dropped_whole() -> None:
    table = clean_items([item("a", "gt", 0), item("a", "gt", 1), item("b", "w2s", 1), item("b", "w2s", 1)])
    assert table.examples == [item("b", "w2s", 1)]
    assert table.dropped == {"contradictions": 2, "duplicates": 1, "leaks": 0}


@pytest.mark.slow
def test_both_spellings_of_the_real_files_give_the_same_ids() -> None:
    folder = os.environ.get("W2SD_DATA")
    if not folder:
        pytest.skip("set W2SD_DATA=FOLDER to read the real pairs")

    def source(kind: str) -> Files:
        start = f"{folder}/hh_harmless_w2s/harmless_"
        names = {"gt": "train_gt", "w2s": "train_w2s", "test": "test"}
        helpful = f"{folder}/hh_helpful_single_turn/helpful_single_turn.{kind}.jsonl.gz"
        files = {role: f"{start}{name}.{kind}.jsonl.gz" for role, name in names.items()}
        return Files(**files, helpful=helpful, format={"pairs": Pairs(), "peer": Dialogue()}[kind])

    (pairs, dropped), (peer, peer_dropped) = (anywhere(source(kind).table()) for kind in ("pairs", "peer"))
    assert dropped == {"unsplittable": 0, "equal_sides": 0, "duplicates": 0, "leaks": 226, "over_limit": 0}
    assert peer_dropped == {**dropped, "unsplittable": 33}
    # a row whose rejected dialogue goes on for more turns has no common prompt up to its last answer; the file that
    # names its prompts keeps such a row, with the further turns inside the answer
    goes_on = {pair for pair in pairs if TAG in pair.chosen + pair.rejected}
    assert set(peer) == set(pairs) - goes_on
    assert Counter((pair.split, pair.facet) for pair in peer) == {
        ("gt", "harmless"): 2863,
        ("w2s", "harmless"): 2894,
        ("test", "harmless"): 3013,
        ("w2s", "helpful"): 1444,
    }
