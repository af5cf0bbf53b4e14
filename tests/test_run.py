"""A run and its top-level values: what is asked for is read, what cannot be is named in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.builders import refused
from w2sd.config import GROUPS, NOT_RECORDED, RunConfig, Settings, oracles, read, recorded
from w2sd.conflicts.explicit import Explicit
from w2sd.parts.fit import Fit
from w2sd.parts.stopping import Stopping
from w2sd.supervision.oracle import Gold, Synthetic
from w2sd.supervision.teacher import TwoStage

OFF = ("head", "refinement", "hint", "stopping", "generative", "sft")  # groups that a run can do without


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", ["world", 3, []], ids=str)
def test_a_part_that_is_no_part_names_the_choice_to_make(
    compose: Callable[..., DictConfig], group: str, value: Any
) -> None:
    cfg = compose()
    cfg[group] = value
    choice = f"model@{group}=OPTION" if group in ("weak", "strong") else f"{group}=OPTION"
    with refused(group, value, choice):
        read(cfg)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", [None, {}, "missing"], ids=str)
def test_only_a_group_that_can_be_off_has_no_part(compose: Callable[..., DictConfig], group: str, value: Any) -> None:
    cfg = compose()
    OmegaConf.set_struct(cfg, False)
    cfg[group] = value
    if value == "missing":
        del cfg[group]
    if group in OFF:
        assert getattr(read(cfg), group) is None
        return
    choice = f"model@{group}=OPTION" if group in ("weak", "strong") else f"{group}=OPTION"
    with refused(group, accepted="" if value == {} else choice):
        read(cfg)


@pytest.mark.parametrize(
    ("on", "off"),
    [
        ("experiment=paper/dpo_cai", "sft=none"),
        ("method=early_stopping", "stopping=none"),
        ("method=generative", "generative=none"),
        ("method=early_stopping", "~stopping"),
    ],
)
def test_a_group_that_a_preset_turned_on_can_be_turned_off(
    asked: Callable[..., RunConfig], at_home: Path, on: str, off: str
) -> None:
    group = off.lstrip("~").partition("=")[0]
    assert getattr(asked(on), group) is not None
    assert getattr(asked(on, off), group) is None


@pytest.mark.parametrize(
    ("override", "refusal"),
    [
        ("fit.lr=${nope}", ("fit.lr", "${nope}", "nope")),
        ("fit.lr=???", ("fit.lr", "???")),
        ("model@weak=hub", ("weak.id", "???")),
        ("+sed=3", ("sed", 3, "name seed", "seed")),
    ],
)
def test_what_cannot_be_resolved_is_named(
    asked: Callable[..., RunConfig], override: str, refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        asked(override)


SETTINGS = {
    "a negative seed": ({"seed": -1}, ("seed", -1)),
    "a negative teacher": ({"teacher_seed": -2}, ("teacher_seed", -2)),
    "the test split": ({"ceiling_split": "test"}, ("ceiling_split", "test", "gt w2s")),
    "a launch": ({"launch": "proces"}, ("launch", "proces", "inline process", "process")),
    "no list of kinds": ({"force": "train"}, ("force", "train", "list[str]")),
    "no list of prefixes": ({"trusted": 3}, ("trusted", 3, "list[str]")),
    "no store": ({"store": None}, ("store", None, "str")),
    "a seed in words": ({"seed": "zero"}, ("seed", "zero", "int")),
    "half a seed": ({"seed": 0.5}, ("seed", 0.5, "int")),
    "a twin twice": ({"twin_seeds": [1, 3, 1]}, ("twin_seeds", 1, "0")),
    "a negative twin": ({"twin_seeds": [-1]}, ("twin_seeds", -1, "0")),
    "no list of twins": ({"twin_seeds": 3}, ("twin_seeds", 3, "list[int]")),
    "neither yes nor no": ({"plan_only": "maybe"}, ("plan_only", "maybe", "bool")),
}


@pytest.mark.parametrize(("values", "refusal"), SETTINGS.values(), ids=SETTINGS)
def test_top_level_values_are_checked(
    compose: Callable[..., DictConfig], values: dict[str, Any], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        read(OmegaConf.merge(compose(), values))  # type: ignore[arg-type]


def test_the_defaults_of_the_settings_are_those_of_the_root_config(asked: Callable[..., RunConfig]) -> None:
    assert asked().settings == Settings()


def test_two_runs_share_no_default(asked: Callable[..., RunConfig]) -> None:
    asked().settings.force.append("train")
    assert asked().settings.force == []


def test_the_store_is_the_one_that_the_environment_names(
    asked: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2SD_STORE", "/somewhere/else")
    assert asked().settings.store == "/somewhere/else"
    assert asked("store=here").settings.store == "here"


def test_a_name_that_cannot_be_part_of_a_file_name_is_refused() -> None:
    for name in ("a/b", "../up"):
        with refused("name", name):
            Settings(name=name)


def test_a_store_or_a_report_without_a_folder_is_refused() -> None:
    for knob in ("store", "out"):
        with refused(knob, ""):
            Settings(**{knob: ""})


@pytest.mark.parametrize("knob", ["seed", "teacher_seed"])
def test_a_seed_that_torch_cannot_take_is_refused(knob: str) -> None:
    assert getattr(Settings(**{knob: 2**32 - 1}), knob) == 2**32 - 1
    with refused(knob, 2**64):
        Settings(**{knob: 2**64})


def test_a_record_keeps_what_it_says_and_marks_the_knobs_that_its_version_did_not_have() -> None:
    mine = {"_target_": "my.own.Fit", "lr": 0.5}
    full = recorded({"seed": 3, "fit": {"_target_": "w2sd.parts.fit.Fit", "lr": 0.5}, "sft": {"fit": mine}})
    fit = {"_target_": "w2sd.parts.fit.Fit", **{knob.name: NOT_RECORDED for knob in dataclasses.fields(Fit)}, "lr": 0.5}
    settings = {knob.name: NOT_RECORDED for knob in dataclasses.fields(Settings)} | {"seed": 3}
    assert full == {**settings, "fit": fit, "sft": {"fit": mine}}


@pytest.mark.parametrize(
    ("objective", "is_read"),
    [("reward.RewardBCE", False), ("logconf.LogConf", False), ("dpo.DPO", True), ("tempered.Gone", True)],
)
def test_a_record_of_a_reward_model_has_nothing_that_only_policies_read(objective: str, is_read: bool) -> None:
    data = {"_target_": "w2sd.data.sources.Files", "append_eos": "auto"}
    record = {"objective": {"_target_": f"w2sd.objectives.{objective}"}, "data": data, "sft": {"on_conflict": False}}
    full = recorded(record)
    assert ("sft" in full, "append_eos" in full["data"]) == (is_read, is_read)


@dataclasses.dataclass(frozen=True)
class Peek:
    """Somebody's own supervision."""

    reads_truth: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class AfterPeeking:
    """One whose first student is taught by that."""

    first_stage: ClassVar[Any] = Peek()


def test_who_reads_the_truth_is_told_by_what_they_declare(asked: Callable[..., RunConfig]) -> None:
    run = asked()
    assert oracles(run) == []
    for oracle in (Peek(), AfterPeeking(), Synthetic(), Gold()):
        assert oracles(run._replace(supervision=oracle)) == ["supervision"]
    stopped = [(by, oracles(run._replace(stopping=Stopping(by)))) for by in ("labels", "truth", "nothing")]
    assert stopped == [("labels", []), ("truth", ["stopping"]), ("nothing", [])]
    assert oracles(run._replace(conflict=Explicit(), supervision=Peek())) == ["conflict", "supervision"]
    assert oracles(run._replace(conflict=Explicit(mask="weak"), supervision=TwoStage())) == []


@pytest.mark.parametrize(
    ("group", "target", "accepted"),
    [
        ("adapter", "w2sd.parts.fit.Fit", "Adapter adapter=OPTION"),
        ("generative", "w2sd.parts.fit.Sft", "Generative GenerativeByModel generative=OPTION"),
        ("stopping", "w2sd.objectives.reward.RewardBCE", "Stopping stopping=OPTION"),
        ("supervision", "w2sd.supervision.cleaning.Probed", "Supervision supervision=OPTION"),
    ],
)
def test_a_part_of_another_group_is_refused(
    compose: Callable[..., DictConfig], group: str, target: str, accepted: str
) -> None:
    cfg = compose()
    OmegaConf.set_struct(cfg, False)
    cfg[group] = {"_target_": target}
    with refused(group, target, accepted):
        read(cfg)
