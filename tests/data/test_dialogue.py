"""Every spelling of a comparison ends as the same three strings; every fault is named."""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders import refused

from w2sd.data.dialogue import Triple, split

ONE = "\n\nHuman: Why?"
TWO = ONE + "\n\nAssistant: So.\n\nHuman: And?"
TAG = "\n\nAssistant:"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


GOOD: dict[str, tuple[dict[str, Any], Triple]] = {
    "text is taken as it is": (
        {"prompt": "2+2=", "chosen": "4", "rejected": " 5 ", "extra": 1},
        Triple("2+2=", "4", " 5 "),
    ),
    "a tag inside a named prompt's answer stays": (
        {"prompt": ONE + TAG, "chosen": " A", "rejected": " B" + TAG + " C"},
        Triple(ONE + TAG, " A", " B" + TAG + " C"),
    ),
    "one turn": ({"chosen": ONE + TAG + " A", "rejected": ONE + TAG + " B"}, Triple(ONE + TAG, " A", " B")),
    "the last of two tags": ({"chosen": TWO + TAG + " A", "rejected": TWO + TAG + "B"}, Triple(TWO + TAG, " A", "B")),
    "whole conversations": (
        {"chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "several turns": (
        {
            "chosen": [user("Why?"), assistant("So."), user("And?"), assistant("A")],
            "rejected": [user("Why?"), assistant("So."), user("And?"), assistant("B")],
        },
        Triple(TWO + TAG, " A", " B"),
    ),
    "messages as the prompt, last turns": (
        {"prompt": [user("Why?")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "text as the prompt, last turns": (
        {"prompt": "Why?", "chosen": [assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "messages as the prompt, text as the answers": (
        {"prompt": [user("Why?")], "chosen": "A", "rejected": "B"},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a prompt beside whole conversations": (
        {"prompt": "Why?", "chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a whole conversation beside a last turn": (
        {"prompt": [user("Why?")], "chosen": [user("Why?"), assistant("A")], "rejected": [assistant("B")]},
        Triple(ONE + TAG, " A", " B"),
    ),
    "a system turn": (
        {
            "prompt": [{"role": "system", "content": "Be brief."}, user("Why?")],
            "chosen": [assistant("A")],
            "rejected": [assistant("B")],
        },
        Triple("\n\nSystem: Be brief." + ONE + TAG, " A", " B"),
    ),
}

UNSPLITTABLE: dict[str, dict[str, Any]] = {
    "no tag": {"chosen": "A", "rejected": "B"},
    "a tag on one side": {"chosen": ONE + TAG + " A", "rejected": "B"},
    "different prompts": {"chosen": ONE + TAG + " A", "rejected": "\n\nHuman: How?" + TAG + " B"},
    "one side goes on": {"chosen": ONE + TAG + " A", "rejected": TWO + TAG + " B"},
    "an empty last answer": {"chosen": ONE + TAG + " ", "rejected": ONE + TAG + " B"},
    "different conversations": {"chosen": [user("Why?"), assistant("A")], "rejected": [user("How?"), assistant("B")]},
    "an empty last turn": {"chosen": [user("Why?"), assistant("")], "rejected": [user("Why?"), assistant("B")]},
}

BAD: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "no rejected": ({"prompt": "p", "chosen": "a"}, (["prompt", "chosen"], "rejected")),
    "a misspelt column": ({"prompt": "p", "choosen": "a", "rejected": "b"}, ("choosen", "chosen", "chosen")),
    "a misspelt prompt": ({"promt": "p", "chosen": "a", "rejected": "b"}, ("promt", "prompt", "prompt")),
    "a number": ({"prompt": "p", "chosen": 4, "rejected": "b"}, (4, "chosen")),
    "a null": ({"prompt": None, "chosen": "a", "rejected": "b"}, (None, "prompt")),
    "an empty answer": ({"prompt": "p", "chosen": "a", "rejected": " \n"}, (" \n", "rejected")),
    "an empty prompt": ({"prompt": "", "chosen": "a", "rejected": "b"}, ("", "prompt")),
    "an empty dialogue": ({"chosen": "", "rejected": ONE + TAG + " B"}, ("", "chosen")),
    "half a surrogate pair": ({"prompt": "p", "chosen": "\ud800", "rejected": "b"}, ("\ud800", "Unicode chosen")),
    "no prompt for a last turn": ({"chosen": [assistant("A")], "rejected": [assistant("B")]}, ("A", "chosen")),
    "the user speaks last": (
        {"chosen": [user("Why?")], "rejected": [user("Why?"), assistant("B")]},
        ("user", "chosen"),
    ),
    "an unknown role": (
        {"chosen": [{"role": "asistant", "content": "A"}], "rejected": [assistant("B")]},
        ("asistant", "system user assistant", "assistant"),
    ),
    "a turn without content": (
        {"prompt": "p", "chosen": [{"role": "assistant"}], "rejected": [assistant("B")]},
        ({"role": "assistant"}, "chosen"),
    ),
    "content that is no text": (
        {"prompt": "p", "chosen": [{"role": "assistant", "content": 1}], "rejected": [assistant("B")]},
        (1, "chosen"),
    ),
    "no turns": ({"prompt": "p", "chosen": [], "rejected": [assistant("B")]}, ([], "chosen")),
    "an empty last turn under a prompt": (
        {"prompt": "p", "chosen": [assistant("A")], "rejected": [assistant("")]},
        ("", "rejected"),
    ),
    "another prompt than the conversation's": (
        {"prompt": "How?", "chosen": [user("Why?"), assistant("A")], "rejected": [user("Why?"), assistant("B")]},
        ([("user", "How?")], "chosen"),
    ),
    "two conversations under one prompt": (
        {
            "prompt": "Why?",
            "chosen": [user("Why?"), assistant("A")],
            "rejected": [user("Why?"), user("How?"), assistant("B")],
        },
        ([("user", "Why?"), ("user", "How?")], "chosen rejected"),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_splits(name: str) -> None:
    row, triple = GOOD[name]
    assert split(row, "f:7") == triple


@pytest.mark.parametrize("name", UNSPLITTABLE)
def test_leaves_out_whole_dialogues_that_cannot_be_split(name: str) -> None:
    assert split(UNSPLITTABLE[name], "f:7") is None


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    row, refusal = BAD[name]
    with refused("f:7", *refusal):
        split(row, "f:7")
