"""A hint renames the student and what is made of it, and nothing else; where it makes no sense it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.pipeline.plan import plan

Asked = Callable[..., RunConfig]
PAIRS, ITEMS = ["hint=world"], ["data=world_classes", "hint=world_classes"]


@pytest.mark.parametrize("knobs", [PAIRS, ITEMS, [*ITEMS, "data.n_classes=3", "hint.words=[safe0,dull0,haz0]"]])
def test_a_hint_renames_the_student_alone_and_changes_no_input(asked: Asked, knobs: list[str]) -> None:
    hinted = plan(run := asked(*knobs))
    usual = plan(run._replace(hint=None))
    assert {name for name in usual if usual[name].key != hinted[name].key} == {
        "train/student",
        "evaluate/student",
        "compare",
    }
    assert {name: [*stage.inputs] for name, stage in hinted.items()} == {
        name: [*stage.inputs] for name, stage in usual.items()
    }
    assert hinted["train/student"].params["hint"] == run.hint
    assert [name for name, stage in hinted.items() if "hint" in stage.params] == ["train/student"]
    assert hinted["evaluate/student"].inputs["weak"].key == hinted["evaluate/weak"].key


def test_words_and_phrase_are_the_student_s_identity(asked: Asked) -> None:
    keys = [
        plan(asked("hint=world", *knobs))["train/student"].key
        for knobs in ([], ["hint.words=[safe0,haz0]"], ['hint.said=" . {}"'])
    ]
    assert len(set(keys)) == 3


def test_without_a_hint_no_stage_knows_of_one(asked: Asked) -> None:
    for knobs in ([], ["data=world_classes"], ["conflict=implicit", "controls=true"], ["objective=dpo"]):
        assert not any("hint" in stage.params for stage in plan(asked(*knobs)).values())


@pytest.mark.parametrize(
    "knobs",
    [
        ["objective=simpo"],
        ["adapter=linear_probe"],
        ["conflict=implicit"],
        ["conflict=explicit", "controls=true"],
        ["supervision=gold"],
        ["supervision=two_stage"],
        ["chain=self_training"],
        ["chain=ladder", "model@weak=world_xs"],
        [*ITEMS, "refinement=world"],
    ],
)
def test_a_hint_is_for_a_student_that_the_weak_model_teaches_at_once(asked: Asked, knobs: list[str]) -> None:
    knob = next(word.partition("=")[0] for word in knobs if word not in ITEMS)
    assert plan(asked(*knobs)._replace(hint=None))
    with refused("hint", "w2sd.parts.words.Shown", knob):
        plan(asked("hint=world", *knobs))


def test_a_chain_without_a_rung_between_has_no_hop_that_a_hint_could_be_of(asked: Asked) -> None:
    assert plan(asked("hint=world", "chain=ladder", "model@weak=world_m"))


@pytest.mark.parametrize(
    ("knobs", "classes"), [(PAIRS, "worse, better"), (ITEMS, "harmless, harmful")], ids=["pairs", "items"]
)
def test_words_that_do_not_fit_are_refused(asked: Asked, knobs: list[str], classes: str) -> None:
    with refused("hint.words", ["a"], f"2 {classes}"):
        plan(asked(*knobs, "hint.words=[a]"))
