"""The folders of options, found by listing them: a new option is tested by being there."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from tests.builders import refused
from w2sd.cli import CONF
from w2sd.config import GROUPS, RunConfig, Settings
from w2sd.identity import target
from w2sd.pipeline.plan import plan

FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF)
NAMES = [path.relative_to(CONF).with_suffix("").as_posix() for path in FILES]
OVERLAYS = [name for name in NAMES if name.startswith(("experiment/", "method/", "debug/"))]
LAUNCHERS = [name for name in NAMES if name.startswith("hydra/")]
PARTS = [name for name in NAMES if name not in OVERLAYS + LAUNCHERS]
CONTENT: dict[str, dict[str, Any]] = {
    name: OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))  # type: ignore[misc]
    for name in PARTS
}
OFF = [name for name, content in CONTENT.items() if not content]  # options without a part: the group is off
# Fields that hold options of other folders, which a defaults list puts there: /model@between.one fills `between`.
FILLED = {
    name: [mount.partition("@")[2].partition(".")[0] for entry in content.pop("defaults", []) for mount in entry]
    for name, content in CONTENT.items()
}
BY_CLASS: dict[str, list[str]] = defaultdict(list)
for part, content in CONTENT.items():
    if content:
        BY_CLASS[content["_target_"]].append(part)

each_option = pytest.mark.parametrize("name", PARTS)
each_part = pytest.mark.parametrize("name", [name for name in PARTS if name not in OFF])
each_overlay = pytest.mark.parametrize("name", OVERLAYS)


def places() -> dict[str, list[str]]:
    """Where the root config mounts the options of each folder: `model` has two places."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        for key in entry if isinstance(entry, DictConfig) else ():
            folder, _, place = key.partition("@")
            if not folder.startswith("override "):
                found[folder].append(place or folder)
    return found


READERS = ["model@weak=gpt2", "model@strong=gpt2"]  # of what is not the embedded world
ASKS = {  # what an option needs that nobody can know beforehand
    "data/chat_files": ["data.path=pairs.jsonl"],
    "data/chat_hub": ["data.id=pairs.jsonl"],
    "data/choice_files": ["data.path=items.jsonl"],
    "data/class_files": ["data.path=items.jsonl"],
    "data/class_hub": ["data.id=items.jsonl"],
    "data/dialogue_files": ["data.path=pairs.jsonl"],
    "data/dialogue_hub": ["data.id=pairs.jsonl"],
    "data/files": ["data.path=pairs.jsonl"],
    "data/hub": ["data.id=pairs.jsonl"],
    "data/question_files": ["data.path=items.jsonl"],
    **{
        f"refinement/{name}": ["data=class_files", "data.path=items.jsonl", *READERS]
        for name in ("in_context", "world")
    },
    "model/hub": ["weak.id=gpt2", "strong.id=gpt2"],
    "model/scratch": ["weak.tokenizer=tokenizer", "strong.tokenizer=tokenizer"],
    "head/words": ["data=world_classes"],
    "data/game": ["model@weak=game_xs", "model@strong=game_l"],
    **{name: ["data=world_classes"] for name in PARTS if name.startswith("refinement/")},
    **{name: ["data=game"] for name in PARTS if name.startswith("model/game_")},
    **{name: ["data=chess_puzzles"] for name in PARTS if name.startswith("model/chess_")},  # all that these read
}


def choice(name: str) -> list[str]:
    """The overrides that choose an option wherever it can stand; the embedded ladders read their own texts alone."""
    folder, option = name.split("/")
    spots = [f"{folder}@{place}={option}" if place != folder else name.replace("/", "=") for place in places()[folder]]
    elsewhere = folder == "data" and not CONTENT[name]["_target_"].startswith("w2sd.world.")
    return [*spots, *(READERS if elsewhere else []), *ASKS.get(name, [])]


# To a plan and a conflict one loss of distributions is as another; logconf, which sees most, stands for those not here.
ALIKE = {
    name for name in PARTS if name.startswith("objective/") and get_class(CONTENT[name]["_target_"]).reads_classes
} - {"objective/reward_bce", "objective/logconf"}

# Of several options of one class, one: to a plan they are alike.
OF_EACH_CLASS = {CONTENT[name].get("_target_", name): name for name in PARTS}

# --- everything that can be chosen works ------------------------------------------------------------------------------


@each_option
def test_every_option_composes_builds_and_plans(name: str, at_home: Path, asked: Callable[..., RunConfig]) -> None:
    run = asked(*choice(name))
    for place in places()[name.split("/")[0]]:
        part = getattr(run, place)
        assert (None if part is None else target(part)) == CONTENT[name].get("_target_")
    if OF_EACH_CLASS.get(CONTENT[name].get("_target_"), name) == name:
        assert len({stage.key for stage in plan(run).values()}) >= 6
    assert not list(at_home.glob("*store*"))


@pytest.mark.parametrize("conflict", [name for name in OF_EACH_CLASS.values() if name.startswith("conflict/")])
@pytest.mark.parametrize("objective", [name for name in PARTS if name.startswith("objective/") and name not in ALIKE])
def test_every_conflict_goes_with_every_objective(
    objective: str, conflict: str, at_home: Path, asked: Callable[..., RunConfig]
) -> None:
    """A policy is fine-tuned before it is trained, a reward model is not, and a reference is where one is needed.

    The folders are composed apart, as the test above does: no option of one of them names the other.
    """
    run = asked(*choice(objective))
    settings = dataclasses.replace(run.settings, controls=True)
    run = run._replace(conflict=asked(*choice(conflict)).conflict, settings=settings)
    if run.conflict.hint is not None and run.objective.student == "policy":  # which writes, and reads no hint
        with refused("conflict", target(run.conflict), "rewards classes"):
            plan(run)
        return
    kinds = {stage.kind for stage in plan(run).values()}
    assert ("sft" in kinds) == (run.objective.student == "policy")
    assert ("reference" in kinds) == run.objective.needs_reference


@pytest.mark.parametrize("knob", ["form=sft", "trigger=policy"])
def test_what_only_a_policy_can_do_is_refused_for_a_reward_model(knob: str, asked: Callable[..., RunConfig]) -> None:
    name, value = knob.split("=")
    assert plan(asked("objective=dpo", "conflict=explicit", f"conflict.{knob}"))
    with refused(f"conflict.{name}", value, "margin" if name == "trigger" else "reverse"):
        plan(asked("objective=reward_bce", "conflict=explicit", f"conflict.{knob}"))


@each_overlay
def test_every_experiment_and_every_mood_composes_and_plans(
    name: str, at_home: Path, asked: Callable[..., RunConfig]
) -> None:
    run = asked(name.replace("/", "=", 1))
    assert list(plan(run))[-1] == "compare"
    if name.startswith("experiment/"):
        assert run.settings.name == called(name)


def called(experiment: str) -> str:
    """The name of an experiment's jobs: that of its file, and of the folder that it lies in."""
    return experiment.removeprefix("experiment/").replace("/", "_")


def test_moods_go_on_top_of_experiments_on_the_embedded_world(asked: Callable[..., RunConfig]) -> None:
    for name in OVERLAYS:
        if name.startswith("experiment/") and not name.startswith("experiment/paper/"):
            run = asked(name.replace("/", "=", 1), "debug=fast")
            assert run.settings.name == "fast"
            assert run.data.gt < 100


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_composes(name: str, compose: Callable[..., DictConfig]) -> None:
    folder, _, option = name.rpartition("/")
    assert compose(f"{folder}={option}")


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("experiment/")])
def test_an_experiment_begins_with_its_command_and_its_sweep_composes(
    name: str, asked: Callable[..., RunConfig]
) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    [command] = [line.removeprefix("# ") for line in text.splitlines()[:2] if line.startswith("# w2sd ")]
    words = shlex.split(command)[1:]
    sweep = OmegaConf.select(OmegaConf.load(CONF / f"{name}.yaml"), "hydra.sweeper.params")
    assert ("-m" in words) == (sweep is not None)
    last = [f"{knob}={str(values).split(',')[-1]}" for knob, values in (sweep or {}).items()]
    assert asked(*[word for word in words if word != "-m"], *last).settings.name == called(name)


def test_every_folder_is_mounted_by_the_root_config_and_every_place_is_a_part() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}
    assert folders == set(places())
    spots = [
        place
        for folder, mounts in places().items()
        if folder not in ("experiment", "method", "debug")
        for place in mounts
    ]
    assert tuple(spots) == GROUPS


# --- the class is the schema ------------------------------------------------------------------------------------------


@each_part
def test_a_yaml_lists_each_field_of_its_class_once(name: str) -> None:
    """Those that its defaults list fills are not listed again."""
    cls, filled = get_class(CONTENT[name]["_target_"]), list(dict.fromkeys(FILLED[name]))
    assert sorted([*filled, *CONTENT[name]]) == sorted(["_target_", *(knob.name for knob in dataclasses.fields(cls))])
    for part in inner(name):
        knobs = [knob.name for knob in dataclasses.fields(get_class(part["_target_"]))]
        assert sorted(part) == sorted(["_target_", *knobs])


def inner(name: str) -> list[dict[str, Any]]:
    """The parts that fields of an option hold, written into its file."""
    return [value for value in CONTENT[name].values() if isinstance(value, dict) and "_target_" in value]


@pytest.mark.parametrize("name", [names[0] for names in BY_CLASS.values() if len(names) == 1])
def test_the_one_yaml_of_a_class_has_its_defaults(name: str) -> None:
    cls = get_class(CONTENT[name]["_target_"])
    values = {key: value for key, value in CONTENT[name].items() if key != "_target_"}
    given = {
        knob.name: knob.default if knob.default_factory is dataclasses.MISSING else knob.default_factory()
        for knob in dataclasses.fields(cls)
        if knob.name not in FILLED[name]
    }
    assert values == given
    assert [type(value) for value in values.values()] == [type(value) for value in given.values()]


def test_the_root_config_has_every_setting_in_its_order_and_its_default() -> None:
    cfg = OmegaConf.load(CONF / "config.yaml")
    knobs = [knob.name for knob in dataclasses.fields(Settings)]
    assert [key for key in cfg if key not in ("defaults", "hydra")] == knobs
    assert {knob: cfg[knob] for knob in knobs} == dataclasses.asdict(Settings())


# --- what a reader sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_what_the_option_is(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    first, *_ = [line for line in lines if not line.startswith("# @package ")]
    assert re.match(r"# \S", first)
    assert lines[0].startswith("# ")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("names", [names for names in BY_CLASS.values() if len(names) > 1], ids=lambda names: names[0])
def test_what_one_yaml_of_a_class_explains_the_others_explain_too(names: list[str]) -> None:
    """What is further in, of the same parts only: their keys depend on which parts these are."""
    explained = {
        name: {
            line.partition(":")[0]
            for line in (CONF / f"{name}.yaml").read_text().splitlines()[1:]
            if re.search(r"\s# \S", line)
        }
        for name in names
    }
    of_its_own = {name: {key for key in keys if not key.startswith(" ")} for name, keys in explained.items()}
    assert all(keys == of_its_own[names[0]] for keys in of_its_own.values()), of_its_own
    alike: dict[str, str] = {}
    for name, keys in explained.items():
        like = alike.setdefault(str([part["_target_"] for part in inner(name)]), name)
        assert keys == explained[like], (name, like)


def test_every_line_of_the_root_config_is_explained() -> None:
    lines = (CONF / "config.yaml").read_text().partition("defaults:\n")[2].partition("hydra:\n")[0].splitlines()
    bare = [line for line in lines if line.strip() and not re.search(r"\s# \S", line)]
    assert [line.strip() for line in bare] == ["- _self_", "- override hydra/job_logging: none"]
