"""Words of classes: each one token of the model, and no two the same; and what a head of words adds to a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest

from tests.builders import refused
from w2sd.chess import games as chess
from w2sd.chess.position import MOVES
from w2sd.config import RunConfig
from w2sd.parts.words import WordHead
from w2sd.pipeline.plan import plan
from w2sd.world import ladder

Asked = Callable[..., RunConfig]
TOKENIZER = ladder.tokenizer(("<pad>", "yes", "no", "maybe"))
CLASSES = ("no", "yes")
WORDED = ["data=world_classes", "head=words", "head.words=[safe0,haz0]"]


def test_a_class_is_the_token_of_its_word() -> None:
    assert WordHead().tokens(TOKENIZER, CLASSES) == [2, 1]
    assert WordHead(["maybe", "no"]).tokens(TOKENIZER, CLASSES) == [3, 2]
    assert WordHead().tokens(chess.tokenizer(), MOVES) == [chess.ID[move] for move in MOVES]


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["yes"], (["yes"], "2 no yes")),
        (["yes", "perhaps"], ("perhaps",)),
        (["yes", "no maybe"], ("no maybe", "2")),
        (["yes", " yes"], (" yes", "yes")),
    ],
)
def test_other_words_are_refused(words: list[str], refusal: tuple[Any, ...]) -> None:
    with refused("words", *refusal):
        WordHead(words).tokens(TOKENIZER, CLASSES)


def test_a_word_that_is_given_twice_is_refused() -> None:
    with refused("words", ["yes", "yes"]):
        WordHead(["yes", "yes"])


def test_it_renames_what_is_trained_and_asks_the_strong_model_before(asked: Asked) -> None:
    usual, worded = plan(asked("data=world_classes")), plan(asked(*WORDED))
    assert not any("head" in stage.params for stage in usual.values())
    same = {name for name in usual if usual[name].key == worded[name].key}
    assert same == {name for name in usual if usual[name].kind == "pretrain"}
    assert {*worded} - {*usual} == {"zero_shot/strong", "evaluate/zero_shot"}
    assert worded["zero_shot/strong"].inputs["base"] is worded["train/ceiling"].inputs["base"]
    assert worded["evaluate/zero_shot"].inputs == {"model": worded["zero_shot/strong"]}
    assert worded["compare"].inputs["zero_shot"] is worded["evaluate/zero_shot"]
    assert plan(asked(*WORDED, "seed=1"))["zero_shot/strong"].key == worded["zero_shot/strong"].key


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        (["head=words"], ("head", ANY, "head=new")),
        (["adapter=linear_probe", *WORDED], ("head", ANY, "head=new adapter=linear_probe")),
        ([*WORDED, "head.words=[safe0]"], ("head.words", ["safe0"], "2")),
    ],
)
def test_it_is_refused_where_there_is_no_head_of_words(
    asked: Asked, knobs: list[str], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        plan(asked(*knobs))
