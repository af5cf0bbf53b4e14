"""Words of classes: each one token of the model, and no two the same; and what a head of words adds to a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from w2sd.chess import vocabulary as chess
from w2sd.chess.moves import MOVES
from w2sd.errors import Refused
from w2sd.head import WordHead
from w2sd.pipeline.plan import plan
from w2sd.run import RunConfig
from w2sd.world import vocabulary

Asked = Callable[..., RunConfig]
TOKENIZER = vocabulary.tokenizer(("<pad>", "yes", "no", "maybe"))
CLASSES = ("no", "yes")
WORDED = ["data=world_classes", "head=words", "head.words=[safe0,haz0]"]


def test_a_class_is_the_token_of_its_word() -> None:
    assert WordHead().tokens(TOKENIZER, CLASSES) == [2, 1]
    assert WordHead(["maybe", "no"]).tokens(TOKENIZER, CLASSES) == [3, 2]
    assert WordHead().tokens(chess.tokenizer(), MOVES) == [chess.ID[move] for move in MOVES]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["yes"], "expected 2 words, one for each of no, yes, or none"),
        (["yes", "perhaps"], "'perhaps' is not accepted; expected a word that is one token of the model"),
        (["yes", "no maybe"], "its tokenizer makes 2 of it"),
        (["yes", " yes"], "expected a word of other tokens than yes"),
    ],
)
def test_other_words_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        WordHead(words).tokens(TOKENIZER, CLASSES)


def test_a_word_that_is_given_twice_is_refused() -> None:
    with refused("words"):
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
    ("knobs", "said"),
    [
        (["head=words"], "^head: .* head=new: these data are pairs"),
        (["adapter=linear_probe", *WORDED], "^head: .* head=new with adapter=linear_probe"),
        ([*WORDED, "head.words=[safe0]"], r"^head\.words: .* 2 words"),
    ],
)
def test_it_is_refused_where_there_is_no_head_of_words(asked: Asked, knobs: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        plan(asked(*knobs))
