"""Which recipe of language modelling a model gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from w2sd.parts.fit import Fit, Generative, GenerativeByModel
from w2sd.world.ladder import Rung


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("recipe", [False, True])
@pytest.mark.parametrize(("model", "knob"), [(Rung(1, 8, 1, 1, 0.1), "made_here"), (object(), "pretrained")])
def test_a_teacher_reads_if_its_recipe_or_what_holds_it_says_so(own: bool, recipe: bool, model: Any, knob: str) -> None:
    suited = Generative(Fit(lr=0.5), teacher=recipe)
    assert GenerativeByModel(**{knob: suited}, teacher=own).suited(model) == replace(suited, teacher=own or recipe)
