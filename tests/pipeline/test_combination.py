"""What is refused of parts that do not go together, and that each of them is accepted beside others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.parts.adapter import LinearProbe
from w2sd.pipeline.plan import plan


def test_a_batch_too_small_for_a_threshold_is_refused_by_the_plan(asked: Callable[..., RunConfig]) -> None:
    with refused("fit.batch", 4, "8"):
        plan(asked("objective=logconf", "fit.batch=4"))
    assert plan(asked("objective=logconf", "fit.batch=4", "objective.min_rows=4"))
    assert plan(asked("objective=reward_bce", "fit.batch=4"))


@pytest.mark.parametrize("knobs", [["chain=self_training"], ["data=world_classes", "refinement=world"]])
def test_without_a_teacher_nothing_is_done_to_its_labels(asked: Callable[..., RunConfig], knobs: list[str]) -> None:
    assert plan(asked(*knobs))
    with refused(knobs[-1].partition("=")[0], accepted="teacher"):
        plan(asked("supervision=gold", *knobs))


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (["objective=dpo"], ("adapter", "linear_probe", "full head_only lora")),
        (["fit.dropout=true"], ("fit.dropout", True, "adapter=linear_probe")),
    ],
)
def test_what_a_linear_probe_cannot_do_is_refused_in_one_line(
    asked: Callable[..., RunConfig], overrides: list[str], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        plan(asked("adapter=linear_probe", *overrides))
    with refused("layer", "first", "last middle"):
        LinearProbe("first")


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (["conflict=explicit", "conflict.form=sft"], ("conflict.form", "sft", "reverse")),
        (["conflict=explicit", "conflict.trigger=policy"], ("conflict.trigger", "policy", "margin")),
        (["conflict=explicit_random_mask", "conflict.form=sft"], ("conflict.form", "sft", "reverse")),
    ],
)
def test_what_asks_a_reward_model_to_write_is_refused_by_the_plan(
    asked: Callable[..., RunConfig], overrides: list[str], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        plan(asked(*overrides))
    assert plan(asked("objective=dpo", "supervision=hard", *overrides))
