"""A theory is one stage: what renames it, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from omegaconf import DictConfig

from tests.builders import refused
from w2sd.pipeline.plan import plan
from w2sd.run import RunConfig, read
from w2sd.theory.benign_overfitting import BenignOverfitting
from w2sd.theory.misfit import Misfit


@pytest.mark.parametrize("option", ["benign_overfitting", "misfit"])
def test_a_theory_is_one_stage_of_its_part_and_the_seed(asked: Callable[..., RunConfig], option: str) -> None:
    run = asked(f"theory={option}", "seed=3")
    [(name, stage)] = plan(run).items()
    assert (name, stage.kind, stage.inputs) == ("simulate", "simulate", {})
    assert stage.params == {"theory": run.theory, "seed": 3}
    assert run.theory in (BenignOverfitting(), Misfit())


def test_only_theory_and_seed_rename_it(asked: Callable[..., RunConfig]) -> None:
    def key(run: RunConfig) -> str:
        return plan(run)["simulate"].key

    run = asked("theory=misfit")
    assert key(run) == key(asked("theory=misfit", "objective=dpo", "model@strong=world_m", "teacher_seed=5"))
    different = (asked("theory=misfit", "seed=1"), run._replace(theory=replace(run.theory, rows=100)))
    assert len({key(run), *map(key, different), key(asked("theory=benign_overfitting"))}) == 4


def test_a_run_has_no_theory_unless_it_is_asked_for(asked: Callable[..., RunConfig]) -> None:
    assert asked().theory is None
    assert "simulate" not in plan(asked())


@pytest.mark.parametrize("value", ["misfit", 3, []], ids=str)
def test_what_is_no_part_is_refused(compose: Callable[..., DictConfig], value: Any) -> None:
    cfg = compose("theory=misfit")
    cfg.theory = value
    with refused("theory", value, accepted="theory=OPTION"):
        read(cfg)
