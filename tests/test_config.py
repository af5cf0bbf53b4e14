"""From YAML to parts: what is right comes back equal, what is wrong is named in one line."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from omegaconf import DictConfig

from tests.builders import refused
from w2sd.config import GROUPS, RunConfig, build, describe, read
from w2sd.errors import Refused
from w2sd.identity import target
from w2sd.models.scratch import Scratch
from w2sd.parts.chain import Bootstrap
from w2sd.parts.fit import Fit
from w2sd.pipeline.plan import plan
from w2sd.world.ladder import Rung

FIT = {"_target_": "w2sd.parts.fit.Fit"}
RUNG = {"_target_": "w2sd.world.ladder.Rung", "rung": 1, "width": 8, "layers": 1, "heads": 1, "lr": 0.01}


def refused_by(make: Callable[[], Any]) -> Refused | None:
    """The refusal, if there is one; any other exception is a fault."""
    try:
        make()
    except Refused as refusal:
        return refusal
    return None


KITCHEN = """
from dataclasses import dataclass, field
from typing import Any, ClassVar

from w2sd.supervision.base import Supervision


@dataclass(frozen=True)
class Spice:
    heat: int = 1
    VERSION: ClassVar[int] = 1


@dataclass(frozen=True)
class Dish:
    name: str
    first: Any = None
    rest: dict[str, Any] = field(default_factory=dict)
    notes: list[Any] = field(default_factory=list)
    VERSION: ClassVar[int] = 1


@dataclass(frozen=True)
class Cook(Supervision):
    mood: int = 1
    VERSION: ClassVar[int] = 1

    def targets(self, lesson):
        return lesson.p_NK
"""


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's own module, with a part and a part that holds parts."""
    (tmp_path / "kitchen.py").write_text(KITCHEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kitchen", raising=False)
    yield importlib.import_module("kitchen")
    del sys.modules["kitchen"]


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_a_part_comes_back_from_its_description_as_json(asked: Callable[..., RunConfig], group: str) -> None:
    on = {"head": "words", "stopping": "labels", "generative": "by_model", "hint": "world", "refinement": "world"}
    part = getattr(asked(*([f"{group}={on[group]}"] if group in on else [])), group)
    words = describe(part)
    assert next(iter(words)) == "_target_"
    assert words["_target_"] == target(part)
    assert build(json.loads(json.dumps(words)), group) == part


def test_every_parameter_of_every_stage_comes_back_from_its_description(asked: Callable[..., RunConfig]) -> None:
    for stage in plan(asked()).values():
        spec = json.loads(json.dumps(stage.spec()))
        for name, value in stage.params.items():
            assert build(spec["params"][name], name) == value


def test_a_part_is_a_frozen_dataclass_of_the_declared_types(asked: Callable[..., RunConfig]) -> None:
    fit = asked("fit.lr=1", "fit.betas=[0,0]", "fit.epochs=3").fit
    assert fit == Fit(**{**dataclasses.asdict(asked().fit), "lr": 1.0, "betas": [0.0, 0.0], "epochs": 3})
    assert [type(value) for value in (fit.lr, *fit.betas, fit.epochs)] == [float, float, float, int]
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.lr = 2


def test_fields_that_are_not_named_have_their_defaults() -> None:
    assert build({**FIT, "lr": 0.5}, "fit") == Fit(lr=0.5)


numbers = st.floats(min_value=1e-300, max_value=1e300)
shares = st.floats(0, 1)


@settings(database=None, deadline=None, max_examples=30)
@given(st.builds(Fit, lr=numbers, epochs=st.integers(1, 2**31), warmup=shares, floor=shares, dropout=st.booleans()))
def test_the_round_trip_is_exact_for_every_number(fit: Fit) -> None:
    assert build(json.loads(json.dumps(describe(fit))), "fit") == fit


@settings(database=None, deadline=None, max_examples=30)
@given(st.text().filter(lambda text: "${" not in text and text != "???"))  # what OmegaConf takes for its own
@example("~/a b/ünï/漢字.jsonl")
def test_the_round_trip_is_exact_for_every_text(text: str) -> None:
    node = {"_target_": "w2sd.data.sources.Files", "path": text}
    assert build(describe(build(node, "data")), "data").path == text


def test_parts_under_names_are_built_one_by_one_in_their_order() -> None:
    rungs = {name: Rung(rung=n, width=8, layers=1, heads=1, lr=0.01) for n, name in enumerate(["two", "one", "three"])}
    node = {"_target_": "w2sd.parts.chain.Bootstrap", "between": describe(rungs)}
    chain = build(json.loads(json.dumps(node)), "chain")
    assert chain == Bootstrap(rungs)
    assert list(chain.between) == ["two", "one", "three"]
    assert build(json.loads(json.dumps(describe(chain))), "chain") == chain
    node["between"]["one"]["width"] = 1
    with refused("chain.between.one.width", 1):
        build(node, "chain")


NO_MODELS = {
    "none": ({}, ("chain.between", {}, "model@chain.between.one")),
    "a number": (3, ("chain.between", 3, "dict[str")),
    "nothing": (None, ("chain.between", None, "dict[str")),
    "a list": ([FIT], ("chain.between", [{"_target_": "w2sd.parts.fit.Fit"}], "dict")),
    "a word": ({"one": "world_m"}, ("chain.between.one", "world_m", "model@chain.between.one")),
    "a model and a number": ({"one": RUNG, "two": 3}, ("chain.between.two", 3)),
    "no model": ({"one": FIT}, ("chain.between.one", Fit())),
    "fields without a target": ({"one": {"rung": 1}}, ("chain.between.one", {"rung": 1})),
    "a rung too many": ({"one": {**RUNG, "rung": 4}}, ("chain.between.one.rung", 4)),
    "a typo": ({"one": RUNG, "two": {**RUNG, "rng": 1}}, ("chain.between.two.rng", 1, "", "rung")),
}


@pytest.mark.parametrize(("between", "refusal"), NO_MODELS.values(), ids=NO_MODELS)
def test_what_cannot_stand_between_weak_and_strong_is_named(between: Any, refusal: tuple[Any, ...]) -> None:
    with refused(*refusal):
        build({"_target_": "w2sd.parts.chain.Bootstrap", "between": between}, "chain")


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text"])
def test_a_plain_value_stays_what_it_is(value: Any) -> None:
    assert build(describe(value), "seed") is value


# --- your own parts ---------------------------------------------------------------------------------------------------


def test_your_own_dataclass_is_built_where_its_module_is_trusted(kitchen: Any) -> None:
    dish = build({"_target_": "kitchen.Dish", "name": "soup"}, "data", ["kitchen."])
    assert dish == kitchen.Dish("soup")
    assert build(describe(dish), "data", ["kitchen."]) == dish


def test_parts_inside_parts_are_built_and_described(kitchen: Any) -> None:
    spices = [{"_target_": "kitchen.Spice", "heat": heat} for heat in (1, 2, 3)]
    rest = {"second": spices[1], "third": spices[2]}
    node = {"_target_": "kitchen.Dish", "name": "soup", "first": spices[0], "rest": rest}
    dish = build(node, "data", ["kitchen."])
    assert dish == kitchen.Dish("soup", kitchen.Spice(1), {"second": kitchen.Spice(2), "third": kitchen.Spice(3)})
    assert build(json.loads(json.dumps(describe(dish))), "data", ["kitchen."]) == dish
    with refused("data.first.haet", 1, "heat", "heat"):
        build({**node, "first": {**spices[0], "haet": 1}}, "data", ["kitchen."])
    with refused("data.rest.third.heat", "hot", "int"):
        build({**node, "rest": {**rest, "third": {**spices[2], "heat": "hot"}}}, "data", ["kitchen."])


def test_a_list_holds_values_and_no_parts(kitchen: Any) -> None:
    """Parts have names, so that the command line can reach them."""
    node = {"_target_": "kitchen.Dish", "name": "soup", "notes": [1, "two"], "rest": {"salt": 1, "pepper": "two"}}
    dish = build(node, "data", ["kitchen."])
    assert (dish.notes, dish.rest) == ([1, "two"], {"salt": 1, "pepper": "two"})
    notes = [{"_target_": "kitchen.Spice"}]
    with refused("data.notes", notes, "list"):
        build({**node, "notes": notes}, "data", ["kitchen."])


def test_a_run_with_your_own_part_is_read(kitchen: Any, compose: Callable[..., DictConfig]) -> None:
    cfg = compose()
    cfg.supervision = {"_target_": "kitchen.Cook", "mood": 7}
    with refused("supervision._target_", "kitchen.Cook", "w2sd trusted"):
        read(cfg)
    cfg.trusted = ["kitchen."]
    assert read(cfg).supervision == kitchen.Cook(7)
    cfg.supervision = {"_target_": "kitchen.Spice", "heat": 7}
    with refused("supervision", "kitchen.Spice", "Supervision supervision=OPTION"):
        read(cfg)


# --- what is wrong ----------------------------------------------------------------------------------------------------

WRONG = {
    "an unknown key": (
        {"schedul": "cosine"},
        (
            "fit.schedul",
            "cosine",
            "lr epochs batch betas weight_decay schedule warmup floor clip dropout precision",
            "schedule",
        ),
    ),
    "a key like none": ({"qqq": 1}, ("fit.qqq", 1, "lr epochs")),
    "text for a number": ({"lr": "high"}, ("fit.lr", "high", "float")),
    "a number with a fraction": ({"epochs": 1.5}, ("fit.epochs", 1.5, "int")),
    "a switch for a number": ({"batch": True}, ("fit.batch", True, "int")),
    "a word for a switch": ({"dropout": "so"}, ("fit.dropout", "so", "bool")),
    "nothing": ({"batch": None}, ("fit.batch", None, "int")),
    "nothing for text": ({"schedule": None}, ("fit.schedule", None, "str")),
    "a list for a number": ({"lr": [1.0]}, ("fit.lr", [1.0], "float")),
    "a dict for a number": ({"lr": {"a": 1}}, ("fit.lr", {"a": 1}, "float")),
    "a number for a list": ({"betas": 0.9}, ("fit.betas", 0.9, "list[float]")),
    "an element": ({"betas": [0.9, "x"]}, ("fit.betas[1]", [0.9, "x"], "list")),
    "an empty element": ({"betas": [None, 0.9]}, ("fit.betas[0]", [None, 0.9])),
    "nothing for a list": ({"betas": None}, ("fit.betas", None, "list[float]")),
    "an impossible number": ({"lr": 0}, ("fit.lr", 0.0, "0")),
    "no number": ({"lr": math.nan}, ("fit.lr", math.nan, "0")),
    "an impossible list": ({"betas": [0.9]}, ("fit.betas", [0.9], "[0 1")),
    "an impossible word": ({"schedule": "cosin"}, ("fit.schedule", "cosin", "constant cosine linear", "cosine")),
}


@pytest.mark.parametrize(("values", "refusal"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_from_the_root_with_what_is_accepted(
    values: dict[str, Any], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        build({**FIT, **values}, "fit")


def test_a_value_that_has_no_default_must_be_given() -> None:
    with refused("weak.width"):
        build({"_target_": "w2sd.world.ladder.Rung", "rung": 1}, "weak")


def test_a_long_value_is_shown_in_part() -> None:
    with refused("fit.lr", "x" * 10_000) as refusal:
        build({**FIT, "lr": "x" * 10_000}, "fit")
    assert len(str(refusal.value)) < 250


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(database=None, deadline=None, max_examples=30)
@given(st.sampled_from(dataclasses.fields(Fit)), anything)
@example(Fit.__dataclass_fields__["betas"], {})
@example(Fit.__dataclass_fields__["betas"], [[], []])
@example(Fit.__dataclass_fields__["lr"], {})
def test_any_value_of_any_field_is_taken_as_its_type_or_refused_in_one_line_that_names_it(
    knob: dataclasses.Field[Any], value: Any
) -> None:
    node = {**FIT, knob.name: value}
    refusal = refused_by(lambda: build(node, "fit"))
    if refusal:
        assert refusal.knob.startswith(f"fit.{knob.name}")
        assert "\n" not in str(refusal)
    else:
        assert type(getattr(build(node, "fit"), knob.name)).__name__ == str(knob.type).partition("[")[0]


keys = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda key: key not in Fit.__dataclass_fields__)


@settings(database=None, deadline=None, max_examples=30)
@given(keys)
def test_any_unknown_key_is_refused_by_name(key: str) -> None:
    if key != "_target_":
        with refused(f"fit.{key}", 1, "lr", ANY):
            build({**FIT, key: 1}, "fit")


TARGETS = {
    "outside": ("os.system", "w2sd trusted"),
    "a prefix without its dot": ("w2sd_evil.Fit", "w2sd trusted"),
    "no text": (3, "w2sd trusted"),
    "nothing": (None, "w2sd trusted"),
    "the command": ("w2sd.__main__.X", "w2sd trusted"),
    "no place of parts": ("w2sd.config.Settings", "w2sd trusted"),
    "a walk out of one": ("w2sd.parts.fit.math.inf", "w2sd.parts.fit.math"),
    "no such module": ("w2sd.parts.nowhere.Fit", "w2sd.parts.nowhere"),
    "no such class": ("w2sd.parts.fit.Fitt", "w2sd.parts.fit Fitt"),
    "not a dataclass": ("w2sd.parts.chain.Refused", "dataclass"),
    "a function": ("w2sd.parts.chain.require", "dataclass"),
    "an instance": ("w2sd.parts.trainer.AUTO", "dataclass"),
}


@pytest.mark.parametrize(("name", "accepted"), TARGETS.values(), ids=TARGETS)
def test_a_target_that_is_no_trusted_dataclass_is_refused(name: Any, accepted: str) -> None:
    with refused("fit._target_", name, accepted):
        build({"_target_": name}, "fit")


def test_a_class_is_named_by_the_module_that_defines_it() -> None:
    with refused("weak._target_", "w2sd.world.game.Rung", "module", "w2sd.world.ladder.Rung"):
        build({"_target_": "w2sd.world.game.Rung"}, "weak")


def test_a_class_that_is_only_a_base_is_refused() -> None:
    with refused("objective._target_", "w2sd.objectives.logconf.Warmup", "derived"):
        build({"_target_": "w2sd.objectives.logconf.Warmup"}, "objective")


def test_a_target_outside_what_is_trusted_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "burglar.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with refused("fit._target_", "burglar.Fit"):
        build({"_target_": "burglar.Fit"}, "fit")
    assert "burglar" not in sys.modules


def test_fields_without_a_target_are_no_part() -> None:
    with refused("fit", {"lr": 1.0}, "_target_"):
        build({"lr": 1.0}, "fit")


def test_no_part_accepts_a_number_without_an_end(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    """It has no JSON, hence no key, and it means "never" to none of these knobs."""
    accepted = []
    watched = asked("stopping=labels", "generative=world", "refinement=world", "hint=world", "head=words")
    for part in (*watched[:-1], Scratch(tokenizer=str(tmp_path))):
        for knob in dataclasses.fields(part):
            for value in (math.inf, -math.inf, math.nan):
                changed = partial(dataclasses.replace, part, **{knob.name: value})
                if knob.type == "float" and not refused_by(changed):
                    accepted.append(f"{type(part).__name__}.{knob.name}={value}")
    assert not accepted
