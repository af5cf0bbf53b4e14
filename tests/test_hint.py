"""What is written beside a text: the word of the option that is shown, whichever is right."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.builders import refused
from w2sd.data.pairs import Item, Pair, coin
from w2sd.parts.words import ANSWERS, Shown

PAIRS = [Pair(f"{n:016x}", f"c{n}", "test", "harmless", "p", f"good{n}", f"bad{n}", "+1", 2) for n in range(8)]
ITEM = Item("0" * 16, "c", "w2s", "a text", 1)
CLASSES = ("no", "yes", "maybe")


def in_slots(pair: Pair, at: Pair) -> list[str]:
    """The answers of a pair in the slots that another one's id gives them."""
    return [pair.rejected, pair.chosen] if coin(at.id) else [pair.chosen, pair.rejected]


def test_there_are_pairs_of_both_orders() -> None:
    assert {coin(pair.id) for pair in PAIRS} == {False, True}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("slot", [0, 1])
def test_the_preferred_slot_is_called_better_whichever_answer_is_right(pair: Pair, slot: int) -> None:
    hint = Shown(said=" ({})")
    written = hint.write(pair, slot, hint.words_for(None))
    words = [ANSWERS[slot == n] for n in (0, 1)]
    assert in_slots(written, pair) == [
        f"{text} ({word})" for text, word in zip(in_slots(pair, pair), words, strict=True)
    ]
    assert written._replace(chosen=pair.chosen, rejected=pair.rejected) == pair


@pytest.mark.parametrize("option", range(3))
def test_an_item_is_followed_by_the_word_of_the_class_and_not_by_its_own(option: int) -> None:
    hint = Shown()
    written = hint.write(ITEM, option, hint.words_for(CLASSES))
    assert written.text == f"a text I think this is {CLASSES[option]}. What do you think?"
    assert written._replace(text=ITEM.text) == ITEM


@settings(database=None, deadline=None, max_examples=30)
@given(st.text(), st.text(), st.text())
def test_any_word_goes_into_any_phrase_as_it_is(before: str, word: str, after: str) -> None:
    said = before.replace("{}", "") + "{}" + after.replace("{}", "")
    if said.count("{}") == 1:
        assert Shown(said=said).phrase(word) == said[: said.index("{}")] + word + said[said.index("{}") + 2 :]


def test_words_are_those_given_or_the_names_of_the_classes() -> None:
    assert Shown().words_for(CLASSES) == list(CLASSES)
    assert Shown(words=["a", "b", "c"]).words_for(CLASSES) == ["a", "b", "c"]
    assert Shown().words_for(None) == ["worse", "better"]
    for words, classes in ((["a", "b"], CLASSES), (["a", "b", "c"], None), (["a"], None)):
        with refused("words", words, " ".join(classes or ("worse", "better"))):
            Shown(words=words).words_for(classes)
    with refused("words", ["a", "a"]):
        Shown(words=["a", "a"])


@pytest.mark.parametrize("said", ["", "nothing", "{} or {}", "{word}"])
def test_a_phrase_has_one_place_for_the_word(said: str) -> None:
    with refused("said", said, accepted="{}"):
        Shown(said=said)
