"""Keys: what renames a stage, what does not, and what has no key at all."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.builders import refused
from w2sd.config import build
from w2sd.data.sources import Files
from w2sd.identity import canonical, identity
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.fit import Fit
from w2sd.pipeline.graph import Compare, Evaluate, Label, Pretrain, Train
from w2sd.pipeline.stage import Stage

properties = settings(database=None, deadline=None, max_examples=60)


@dataclass(frozen=True)
class Part:
    """A part with a value of its own."""

    size: int = 1
    VERSION: ClassVar[int] = 1


@dataclass(frozen=True)
class Unversioned:
    size: int = 1


def chain(**changes: Any) -> dict[str, Stage]:
    """Two branches that meet: a → b → d ← c, each with one parameter."""
    values = {"a": 1, "b": 1, "c": 1, "d": 1, **changes}
    a = Pretrain({"x": values["a"]})
    b = Train({"x": values["b"]}, {"base": a})
    c = Label({"x": values["c"]})
    return {"a": a, "b": b, "c": c, "d": Evaluate({"x": values["d"]}, {"model": b, "labels": c})}


def renamed(one: dict[str, Stage], other: dict[str, Stage]) -> set[str]:
    return {name for name in one if one[name].key != other[name].key}


# --- what a key follows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "below"), [("a", "abd"), ("b", "bd"), ("c", "cd"), ("d", "d")])
def test_one_changed_parameter_renames_everything_below_it_and_nothing_beside_it(changed: str, below: str) -> None:
    assert renamed(chain(), chain(**{changed: 2})) == set(below)


KINDS = {cls.kind: cls for cls in Stage.__subclasses__()}
graphs = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.sets(st.integers(0, 7))), min_size=1, max_size=8)


def draw(graph: list[tuple[str, set[int]]], changed: int | None = None) -> list[Stage]:
    """Stages in order; each takes the earlier ones that its numbers name. One of them has another parameter."""
    stages: list[Stage] = []
    for n, (kind, wanted) in enumerate(graph):
        inputs = {f"i{m}": stages[m] for m in sorted(wanted) if m < n}
        stages.append(KINDS[kind]({"n": n, "changed": n == changed}, inputs))
    return stages


@properties
@given(graphs, st.data())
def test_in_any_graph_a_change_renames_exactly_what_is_made_from_it(
    graph: list[tuple[str, set[int]]], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(graph) - 1))
    below = {changed}
    for n, (_, wanted) in enumerate(graph):
        if any(m in below and m < n for m in wanted):
            below.add(n)
    pairs = zip(draw(graph), draw(graph, changed), strict=True)
    assert {n for n, (one, other) in enumerate(pairs) if one.key != other.key} == below


@pytest.mark.parametrize(
    "other",
    [
        Label({"x": 1}),
        Train({"x": 2}),
        Train({"y": 1}),
        Train({"x": True}),
        Train({"x": "1"}),
        Train({"x": None}),
        Train({"x": [1]}),
        Train({}),
        Train({"x": 1, "y": None}),
        Train({"x": 1}, {"base": Train({"x": 1})}),
        Train({"x": Part()}),
    ],
    ids=lambda stage: f"{stage.kind} {dict(stage.params)}",
)
def test_stages_that_compute_something_else_have_another_key(other: Stage) -> None:
    assert Train({"x": 1}).key != other.key


def test_the_role_of_an_input_bears_identity() -> None:
    one, other = Train({"x": 1}), Train({"x": 2})
    keys = {
        Compare({}, {"weak": one, "ceiling": other}).key,
        Compare({}, {"weak": other, "ceiling": one}).key,
        Compare({}, {"weak": one}).key,
    }
    assert len(keys) == 3


def test_the_version_of_a_component_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"fit": Fit(), "objective": RewardBCE(), "data": Part()}
    before = Train(params).key
    seen = {before}
    for part in params.values():
        with monkeypatch.context() as patch:
            patch.setattr(type(part), "VERSION", 2)
            seen.add(Train(params).key)
    assert len(seen) == 4
    assert Train(params).key == before


def test_the_version_of_a_source_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    source = Files(path=str(tmp_path / "a.jsonl"))
    before = Train({"data": source}).key
    monkeypatch.setattr(Files, "VERSION", 99)
    assert Train({"data": source}).key != before


@pytest.mark.parametrize(("kind", "below"), [("pretrain", "abd"), ("train", "bd"), ("label", "cd"), ("evaluate", "d")])
def test_the_version_of_a_kind_renames_it_and_what_is_below(
    monkeypatch: pytest.MonkeyPatch, kind: str, below: str
) -> None:
    before = chain()
    assert len({stage.key for stage in before.values()}) == 4
    monkeypatch.setattr(KINDS[kind], "version", KINDS[kind].version + 1)
    assert renamed(before, chain()) == set(below)


def test_every_kind_has_a_stage_to_run_and_a_version() -> None:
    import w2sd.stages

    [folder] = w2sd.stages.__path__
    with_run = {path.stem for path in Path(folder).glob("*.py") if re.search(r"^def run\(", path.read_text(), re.M)}
    assert with_run == set(KINDS)


# --- what a key does not follow ---------------------------------------------------------------------------------------


def test_a_key_is_twelve_hex_digits() -> None:
    assert all(re.fullmatch("[0-9a-f]{12}", stage.key) for stage in chain().values())


def test_whole_numbers_and_floats_do_not_fork_once_they_are_built() -> None:
    nodes = [
        {"_target_": "w2sd.parts.fit.Fit", "lr": lr, "betas": betas} for lr, betas in [(1, [0, 0]), (1.0, [0.0, 0])]
    ]
    assert len({Train({"fit": build(node, "fit")}).key for node in nodes}) == 1
    shares = [{"_target_": "w2sd.world.world.World", "visible": visible} for visible in (1, 1.0)]
    assert len({Train({"data": build(node, "data")}).key for node in shares}) == 1


def test_the_order_of_a_dict_is_nothing() -> None:
    one, other = Pretrain({"x": 1}), Pretrain({"x": 2})
    forward = Train({"a": {"p": 1, "q": [1, 2]}, "b": 2}, {"one": one, "other": other})
    backward = Train({"b": 2, "a": {"q": [1, 2], "p": 1}}, {"other": other, "one": one})
    assert forward.key == backward.key
    assert Train({"a": [1, 2]}).key != Train({"a": [2, 1]}).key


def test_equal_parts_have_one_key_however_they_were_made() -> None:
    assert Train({"fit": Fit(lr=1e-3)}).key == Train({"fit": replace(Fit(), lr=0.001)}).key
    assert Train({"x": (1, 2)}).key == Train({"x": [1, 2]}).key


SCRIPT = """
from w2sd.parts.fit import Fit
from w2sd.pipeline.graph import Pretrain, Train
a = Pretrain({"x": "ünïcødé", "y": {"b": 1, "a": [0.1, None]}, "fit": Fit(lr=1e-3)})
print(a.key, Train({"x": 1}, {"base": a, "other": a}).key)
"""


def test_a_key_is_the_same_in_every_process() -> None:
    a = Pretrain({"x": "ünïcødé", "y": {"b": 1, "a": [0.1, None]}, "fit": Fit(lr=1e-3)})
    keys = f"{a.key} {Train({'x': 1}, {'base': a, 'other': a}).key}"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == keys, done.stderr


# --- what has no key --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, len, lambda: 1, Path("a"), b"bytes", Part, 1j, np.arange(2), np.int64(1), re.compile("a"), ...],
    ids=lambda value: type(value).__name__,
)
def test_a_value_whose_text_could_change_between_runs_has_no_key(value: Any) -> None:
    for hidden in (value, [value], {"a": {"b": value}}, (1, value)):
        with pytest.raises(TypeError, match="has no stable identity; parameters are plain values and frozen dataclass"):
            _ = Train({"x": hidden}).key


def test_a_part_without_a_version_has_no_key() -> None:
    with refused(f"{Unversioned.__module__}.{Unversioned.__qualname__}.VERSION", None):
        _ = Train({"x": Unversioned()}).key


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_without_json_has_no_key(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = Train({"x": [value]}).key


# --- canonical JSON ---------------------------------------------------------------------------------------------------

content = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def turned(value: Any) -> Any:
    """The same with every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [0.1, None]}, '{"a":[0.1,null],"b":1}'),
        ({}, "{}"),
        ({"é": "漢字"}, '{"é":"漢字"}'),
        ([True, False, 1e-5, 1e22, -0.5], "[true,false,1e-05,1e+22,-0.5]"),
        ({"a": {"z": 1, "y": 2}}, '{"a":{"y":2,"z":1}}'),
        ("a\nb", r'"a\nb"'),
    ],
    ids=str,
)
def test_content_has_one_json_text(value: Any, text: str) -> None:
    assert canonical(value) == text


@properties
@given(content)
def test_the_one_text_says_everything_in_any_order_on_one_line(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(turned(value)) == text
    assert "\n" not in text


@properties
@given(content)
def test_plain_content_is_its_own_identity(value: Any) -> None:
    assert canonical(identity(value)) == canonical(value)


# --- the specification ------------------------------------------------------------------------------------------------


def test_a_spec_is_all_that_another_process_needs() -> None:
    base = Pretrain({"x": 1})
    stage = Train({"fit": Fit(lr=1e-3), "seed": 0, "conflict": None}, {"base": base})
    spec = json.loads(json.dumps(stage.spec()))
    assert spec["inputs"] == {"base": base.key}
    params = {name: build(node, name) for name, node in spec["params"].items()}
    assert params == stage.params
    again = KINDS[spec["kind"]](params, {"base": base})
    assert (again.key, again.version) == (spec["key"], spec["version"])
