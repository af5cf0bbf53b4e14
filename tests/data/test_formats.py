"""Formats: a row's texts and classes follow from the row alone, and a row at fault is named."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import refused

from w2sd.data.choices import MultipleChoice
from w2sd.data.formats import TAG, Chat, Dialogue, Format, Pairs, QuestionAnswer, TextLabel, Triple
from w2sd.data.template import fill

HERE = "rows.jsonl:7"
words = st.text("abc", min_size=1, max_size=3)
questions = st.builds(lambda q, c: {"question": q, "choices": c}, words, st.lists(words, min_size=2, max_size=5))


# --- templates --------------------------------------------------------------------------------------------------------


def test_a_text_is_made_of_cells() -> None:
    row = {"a": " x ", "n": 3, "lines": ["one", "two"], "deep": {"text": "down"}, "a.b": "dotted", "odd": "{a}"}
    assert fill("{a}|{n}", row, HERE) == "x |3"
    assert fill("{lines}", row, HERE) == "one\ntwo"
    assert fill("{deep.text} {a.b}", row, HERE) == "down dotted"
    assert fill("{odd} {}", row, HERE) == "{a} {}"  # what a cell says is no template
    assert fill("{lines:wo}{n:x}", row, HERE) == "one\nt3"


@pytest.mark.parametrize(
    ("template", "refusal"),
    [
        ("{txet}", (["text", "none", "half"], "txet data.format", "text")),
        ("{zzz}", (["text", "none", "half"], "zzz data.format")),
        ("{text.deep}", (["text", "none", "half"], "text.deep", ANY)),
        ("{none}", (None, "none")),
        ("{half}", ("\ud800", "Unicode half")),
    ],
)
def test_cells_that_are_no_text_are_refused(template: str, refusal: tuple[Any, ...]) -> None:
    with refused(HERE, *refusal):
        fill(template, {"text": "t", "none": None, "half": "\ud800"}, HERE)


# --- pairs, dialogues, chats ------------------------------------------------------------------------------------------

ONE = "\n\nHuman: Why?"
TWO = ONE + "\n\nAssistant: So.\n\nHuman: And?"
PAIRS, DIALOGUE, CHAT, ASKED = Pairs(), Dialogue(), Chat(), Chat(prompt="prompt")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


Row = dict[str, Any]
GOOD: dict[str, tuple[Format, Row, Triple]] = {
    "text is taken as it is": (
        PAIRS,
        {"prompt": "2+2=", "chosen": "4", "rejected": " 5 ", "extra": 1},
        Triple("2+2=", "4", " 5 "),
    ),
    "other columns": (Pairs("q", "yes", "no"), {"q": "p", "yes": "a", "no": "b"}, Triple("p", "a", "b")),
    "a tag inside a named prompt's answer stays": (
        PAIRS,
        {"prompt": ONE + TAG, "chosen": " A", "rejected": " B" + TAG + " C"},
        Triple(ONE + TAG, " A", " B" + TAG + " C"),
    ),
    "one turn": (DIALOGUE, {"chosen": ONE + TAG + " A", "rejected": ONE + TAG + " B"}, Triple(ONE + TAG, " A", " B")),
    "the last of two tags": (
        DIALOGUE,
        {"chosen": TWO + TAG + " A", "rejected": TWO + TAG + "B"},
        Triple(TWO + TAG, " A", "B"),
    ),
    "whole conversations": (
        CHAT,
        {"prompt": "?", "chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "several turns": (
        CHAT,
        {
            "chosen": [user("Why?"), assistant("So."), user("And?"), assistant("A")],
            "rejected": [user("Why?"), assistant("So."), user("And?"), assistant("B")],
        },
        Triple(TWO + TAG, " A", " B"),
    ),
    "messages as the prompt, last turns": (
        ASKED,
        {"prompt": [user("Why?")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "text as the prompt, last turns": (
        ASKED,
        {"prompt": "Why?", "chosen": [assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "messages as the prompt, text as the answers": (
        ASKED,
        {"prompt": [user("Why?")], "chosen": "A", "rejected": "B"},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a prompt beside whole conversations": (
        ASKED,
        {"prompt": "Why?", "chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a whole conversation beside a last turn": (
        ASKED,
        {"prompt": [user("Why?")], "chosen": [user("Why?"), assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a system turn": (
        ASKED,
        {
            "prompt": [{"role": "system", "content": "Be brief."}, user("Why?")],
            "chosen": [assistant("A")],
            "rejected": [assistant("B")],
        },
        Triple("\n\nSystem: Be brief." + ONE + TAG, " A", " B"),
    ),
}

UNSPLITTABLE: dict[str, tuple[Format, Row]] = {
    "no tag": (DIALOGUE, {"chosen": "A", "rejected": "B"}),
    "a tag on one side": (DIALOGUE, {"chosen": ONE + TAG + " A", "rejected": "B"}),
    "different prompts": (DIALOGUE, {"chosen": ONE + TAG + " A", "rejected": "\n\nHuman: How?" + TAG + " B"}),
    "one side goes on": (DIALOGUE, {"chosen": ONE + TAG + " A", "rejected": TWO + TAG + " B"}),
    "an empty last answer": (DIALOGUE, {"chosen": ONE + TAG + " ", "rejected": ONE + TAG + " B"}),
    "different conversations": (
        CHAT,
        {"chosen": [user("Why?"), assistant("A")], "rejected": [user("How?"), assistant("B")]},
    ),
    "an empty last turn": (CHAT, {"chosen": [user("Why?"), assistant("")], "rejected": [user("Why?"), assistant("B")]}),
}

BAD: dict[str, tuple[Format, Row, tuple[Any, ...]]] = {
    "no rejected": (PAIRS, {"prompt": "p", "chosen": "a"}, (["prompt", "chosen"], "rejected")),
    "a misspelt column": (
        PAIRS,
        {"prompt": "p", "choosen": "a", "rejected": "b"},
        (["prompt", "choosen", "rejected"], "chosen", "choosen"),
    ),
    "a misspelt prompt": (
        PAIRS,
        {"promt": "p", "chosen": "a", "rejected": "b"},
        (["promt", "chosen", "rejected"], "prompt", "promt"),
    ),
    "dialogues that are to be pairs": (
        PAIRS,
        {"chosen": ONE + TAG + " A", "rejected": ONE + TAG + " B"},
        (["chosen", "rejected"], "prompt dialogue_files dialogue_hub"),
    ),
    "messages that are to be pairs": (
        PAIRS,
        {"prompt": "p", "chosen": [user("p"), assistant("A")], "rejected": [user("p"), assistant("B")]},
        (["prompt", "chosen", "rejected"], "chat_files chat_hub"),
    ),
    "a number": (PAIRS, {"prompt": "p", "chosen": 4, "rejected": "b"}, (4, "chosen")),
    "a null": (PAIRS, {"prompt": None, "chosen": "a", "rejected": "b"}, (None, "prompt")),
    "an empty answer": (PAIRS, {"prompt": "p", "chosen": "a", "rejected": " \n"}, (" \n", "rejected")),
    "an empty prompt": (PAIRS, {"prompt": "", "chosen": "a", "rejected": "b"}, ("", "prompt")),
    "an empty dialogue": (DIALOGUE, {"chosen": "", "rejected": ONE + TAG + " B"}, ("", "chosen")),
    "half a surrogate pair": (
        PAIRS,
        {"prompt": "p", "chosen": "\ud800", "rejected": "b"},
        ("\ud800", "Unicode chosen"),
    ),
    "half a surrogate pair as a prompt": (
        ASKED,
        {"prompt": "\ud800", "chosen": "a", "rejected": "b"},
        ("\ud800", "Unicode prompt"),
    ),
    "no prompt for a last turn": (
        CHAT,
        {"chosen": [assistant("A")], "rejected": [assistant("B")]},
        ("A", "chosen data.format.prompt"),
    ),
    "the user speaks last": (
        CHAT,
        {"chosen": [user("Why?")], "rejected": [user("Why?"), assistant("B")]},
        ("user", "chosen"),
    ),
    "an unknown role": (
        CHAT,
        {"chosen": [{"role": "asistant", "content": "A"}], "rejected": [assistant("B")]},
        ("asistant", "system user assistant", "assistant"),
    ),
    "a turn without content": (
        ASKED,
        {"prompt": "p", "chosen": [{"role": "assistant"}], "rejected": [assistant("B")]},
        ({"role": "assistant"}, "chosen"),
    ),
    "content that is no text": (
        ASKED,
        {"prompt": "p", "chosen": [{"role": "assistant", "content": 1}], "rejected": [assistant("B")]},
        (1, "chosen"),
    ),
    "no turns": (ASKED, {"prompt": "p", "chosen": [], "rejected": [assistant("B")]}, ([], "chosen")),
    "an empty last turn under a prompt": (
        ASKED,
        {"prompt": "p", "chosen": [assistant("A")], "rejected": [assistant("")]},
        ("", "rejected"),
    ),
    "another prompt than the conversation's": (
        ASKED,
        {"prompt": "How?", "chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        ([("user", "How?")], "chosen"),
    ),
    "two conversations under one prompt": (
        ASKED,
        {
            "prompt": "Why?",
            "chosen": [user("Why?"), assistant("A")],
            "rejected": [user("Why?"), user("How?"), assistant("B")],
        },
        ([("user", "Why?"), ("user", "How?")], "chosen rejected"),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_comparison_becomes_a_prompt_and_two_answers(name: str) -> None:
    form, row, triple = GOOD[name]
    assert form.cases(row, HERE) == [triple]
    assert set(form.columns) <= row.keys()


@pytest.mark.parametrize("name", UNSPLITTABLE)
def test_dialogues_that_cannot_be_split_are_left_out(name: str) -> None:
    form, row = UNSPLITTABLE[name]
    assert form.cases(row, HERE) == []


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_no_comparison_are_refused(name: str) -> None:
    form, row, refusal = BAD[name]
    with refused(HERE, *refusal):
        form.cases(row, HERE)


# --- text and label ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 1.0, "1", " 1 ", True, "good"])
def test_a_class_is_read_by_its_value_or_name_in_the_spelling_of_any_format(value: Any) -> None:
    labels = ["false", "True"] if isinstance(value, bool) else ["0", "1"]
    form = TextLabel(labels=labels, names=["bad", "good"])
    assert [case.label for case in form.cases({"text": "t", "label": value}, HERE)] == [1]


def test_values_of_one_class_and_classes_as_found() -> None:
    form = TextLabel(labels=["1|2", "0"], names=["other", "entailed"])
    assert [form.cases({"text": "t", "label": n}, HERE)[0].label for n in range(3)] == [1, 0, 0]
    rows = [(HERE, {"label": label}) for label in (10, 9, "b", "a|c", 9.0)]
    assert TextLabel().settled(rows).classes == ("9", "10", "a|c", "b")
    assert TextLabel().settled(reversed(rows)) == TextLabel().settled(rows)


@given(words, words, st.integers(0, 2))
@settings(database=None, deadline=None)
def test_what_is_read_does_not_depend_on_the_label(title: str, body: str, label: int) -> None:
    form = TextLabel(text="{title} {body}", labels=["0", "1", "2"], cluster="{title}")
    [case] = form.cases({"title": title, "body": body, "label": label}, HERE)
    [other] = form.cases({"title": title, "body": body, "label": (label + 1) % 3}, HERE)
    assert case._replace(label=0) == other._replace(label=0)
    assert (case.text, case.label, case.cluster) == (f"{title} {body}", label, title)


def test_labels_outside_the_classes_are_refused() -> None:
    form = TextLabel(labels=["0", "1"], names=["bad", "good"])
    for label, shown, nearest in (("goood", "goood", "good"), (-1, "-1", None)):
        with refused(HERE, shown, "label 0 bad 1 good", nearest):
            form.cases({"text": "t", "label": label}, HERE)
    for nothing in (None, "", float("nan"), [1]):
        with refused(HERE, nothing, "label"):
            form.cases({"text": "t", "label": nothing}, HERE)
    with refused(HERE, "", "text"):
        form.cases({"text": " ", "label": 1}, HERE)
    with refused("data.format.label", "label", "100 data.format.labels"):
        TextLabel().settled((HERE, {"label": n}) for n in range(101))
    assert len(TextLabel().settled((HERE, {"label": n}) for n in range(100)).classes) == 100
    with refused("data.format.label", "label", "3"):
        TextLabel().settled([(HERE, {"label": 3})])
    with refused("data.format.labels", ["a|b", "b"], "b"):
        TextLabel().settled([(HERE, {"label": "b"}), (HERE, {"label": "a|b"})])


# --- questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "label"), [(True, 1), ("True", 1), ("yes", 1), (1, 1), (0.0, 0), ("No", 0)])
def test_yes_and_no_in_any_spelling(value: Any, label: int) -> None:
    row = {"passage": "p", "question": "q", "answer": value}
    assert QuestionAnswer().cases(row, HERE) == [("Passage: p\nQuestion: q", label, "Passage: p\nQuestion: q", "p")]


def test_an_answer_that_is_neither_is_refused() -> None:
    for answer, nearest in (("yess", "yes"), (None, None)):
        with refused(HERE, answer, "answer true yes 1 false no 0", nearest):
            QuestionAnswer().cases({"passage": "p", "question": "q", "answer": answer}, HERE)


# --- multiple choice --------------------------------------------------------------------------------------------------


@given(questions, st.data())
@settings(database=None, deadline=None)
def test_a_pair_is_the_right_candidate_and_a_wrong_one(row: dict[str, Any], data: st.DataObject) -> None:
    choices, right = row["choices"], data.draw(st.integers(0, len(row["choices"]) - 1))
    cases = MultipleChoice().cases({**row, "answer": right}, HERE)
    if len(set(choices)) == 1:
        assert cases == []
        return
    shown = {case.label: case.text.removeprefix(f"Q: {row['question']} A: ") for case in cases}
    assert sorted(case.label for case in cases) == [0, 1]
    assert shown[1] == choices[right]
    assert shown[0] in set(choices) - {choices[right]}
    assert {case.cluster for case in cases} == {f"Q: {row['question']} A:"}
    all_of_them = MultipleChoice(show="all").cases({**row, "answer": right}, HERE)
    assert len(all_of_them) == len(set(choices))
    assert set(cases) <= set(all_of_them)
    [coin] = MultipleChoice(show="coin").cases({**row, "answer": right}, HERE)
    assert coin in cases


@given(questions, st.data(), st.randoms(use_true_random=False))
@settings(database=None, deadline=None)
def test_what_is_shown_depends_on_the_row_alone(row: dict[str, Any], data: st.DataObject, rng: random.Random) -> None:
    """Not on the order of its candidates either; the unit, which coins are drawn from, not even on the right one."""
    choices, right = row["choices"], data.draw(st.integers(0, len(row["choices"]) - 1))
    order = rng.sample(range(len(choices)), len(choices))
    shuffled = {**row, "choices": [choices[n] for n in order], "answer": order.index(right)}
    for show in ("pair", "coin", "all"):
        form = MultipleChoice(show=show)
        cases = form.cases({**row, "answer": right}, HERE)
        assert cases == form.cases(shuffled, HERE)
        other = form.cases({**row, "answer": (right + 1) % len(choices)}, HERE)
        assert len({case.unit for case in cases + other}) <= 1


def test_coins_and_wrong_candidates_are_fair() -> None:
    rows = [{"question": f"q{n}", "choices": ["a", "b", "c", "d"], "answer": n % 4} for n in range(2000)]
    coins = [MultipleChoice(show="coin").cases(row, HERE)[0] for row in rows]
    assert 900 < sum(case.label for case in coins) < 1100
    by_candidate = [[case.label for case in coins if case.text[-1] == letter] for letter in "abcd"]
    assert all(0.4 < sum(labels) / len(labels) < 0.6 for labels in by_candidate)  # a candidate tells nothing by itself
    wrong = [case.text[-1] for row in rows for case in MultipleChoice().cases(row, HERE) if not case.label]
    assert all(400 < wrong.count(letter) < 600 for letter in "abcd")


@pytest.mark.parametrize(
    ("answer_is", "told"),
    [("index", 1), ("index", "1"), ("index", 1.0), ("number", "2"), ("letter", "B"), ("text", "y")],
)
def test_ways_to_tell_the_right_candidate(answer_is: str, told: Any) -> None:
    row = {"question": "q", "choices": ["x", "y"], "answer": told}
    right = [case.text for case in MultipleChoice(answer_is=answer_is).cases(row, HERE) if case.label]
    assert right == ["Q: q A: y"]


def test_candidates_in_columns_and_in_records() -> None:
    row = {"question": "q", "best": "x", "worse": "y", "choices": {"text": ["y", "x"]}, "key": "B"}
    columns = MultipleChoice(candidates=["{best}", "{worse}"], answer="")
    records = MultipleChoice(candidates=["{choices.text}"], answer="key", answer_is="letter")
    assert columns.cases(row, HERE) == records.cases(row, HERE)


def test_none_of_the_above_is_never_shown() -> None:
    form = MultipleChoice(none="None of", show="all")
    row = {"question": "q", "choices": ["x", "None of the above", "", "y"]}
    assert {case.text for case in form.cases(row | {"answer": 0}, HERE)} == {"Q: q A: x", "Q: q A: y"}
    assert form.cases(row | {"answer": 1}, HERE) == form.cases(row | {"answer": 2}, HERE) == []


@pytest.mark.parametrize(
    ("answer_is", "answer", "accepted", "nearest"),
    [
        ("index", 2, "0 1", None),
        ("index", -1, "0 1", None),
        ("index", None, "0 1", None),
        ("number", 0, "1 2", None),
        ("letter", "", "A B", None),
        ("text", "yess", "no yes", "yes"),
    ],
)
def test_a_row_without_the_right_answer_is_refused(
    answer_is: str, answer: Any, accepted: str, nearest: str | None
) -> None:
    with refused(HERE, answer, f"{answer_is} answer {accepted}", nearest):
        MultipleChoice(answer_is=answer_is).cases({"question": "q", "choices": ["no", "yes"], "answer": answer}, HERE)


def test_a_row_without_candidates_is_refused() -> None:
    row = {"question": "q", "choices": ["no"], "answer": 0}
    with refused(HERE, ["no"], "{choices}"):
        MultipleChoice().cases(row, HERE)
    with refused(HERE, None, "choices"):
        MultipleChoice().cases(row | {"choices": ["no", None]}, HERE)
    with refused(HERE, ["question", "choice", "answer"], "choices", "choice"):
        MultipleChoice().cases({"question": "q", "choice": [], "answer": 0}, HERE)


IMPOSSIBLE: list[tuple[type, dict[str, Any], tuple[Any, ...]]] = [
    (TextLabel, {"labels": ["0"]}, ("labels", ["0"], "two")),
    (TextLabel, {"names": ["a", "b"]}, ("names", ["a", "b"], "data.format.labels")),
    (TextLabel, {"labels": ["0", "1"], "names": ["1", "0"]}, ("labels", ["0", "1"])),
    (TextLabel, {"labels": ["a", "a"]}, ("labels", ["a", "a"])),
    (TextLabel, {"text": "text"}, ("text", "text", "{COLUMN}")),
    (TextLabel, {"text": "{text}{}"}, ("text", "{text}{}", "{COLUMN} {}")),
    (TextLabel, {"text": "{text}", "cluster": "{:x}{text}"}, ("cluster", "{:x}{text}", "{COLUMN} {:x}")),
    (MultipleChoice, {"candidates": ["{a}{}"]}, ("candidates", "{a}{}", "{COLUMN} {}")),
    (TextLabel, {"cluster": "{id}"}, ("cluster", "{id}", "text")),
    (TextLabel, {"cluster": "id"}, ("cluster", "id", "{COLUMN}")),
    (MultipleChoice, {"text": "{question}"}, ("text", "{question}", "{candidate}")),
    (MultipleChoice, {"candidates": []}, ("candidates", [], "{COLUMN}")),
    (MultipleChoice, {"candidates": ["a"]}, ("candidates", "a", "{COLUMN}")),
    (MultipleChoice, {"show": "coins"}, ("show", "coins", "all coin pair", "coin")),
    (MultipleChoice, {"answer_is": "nth"}, ("answer_is", "nth", "index letter number")),
    (MultipleChoice, {"text": "{candidate}"}, ("cluster", "")),
    (MultipleChoice, {"cluster": "{candidate}"}, ("cluster", "{candidate}")),
]


@pytest.mark.parametrize(("form", "fields", "refusal"), IMPOSSIBLE)
def test_refuses_formats_that_cannot_be_meant(form: type, fields: dict[str, Any], refusal: tuple[Any, ...]) -> None:
    with refused(*refusal):
        form(**fields)
    assert hash(replace(form())) == hash(form())  # equal sources are read once
