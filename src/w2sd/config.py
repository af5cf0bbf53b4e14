"""The class is the schema: from composed YAML to frozen dataclasses, or to one line that says what is wrong.

Each swappable part is a frozen dataclass. Its YAML names it in `_target_` and lists its fields; `build` merges the
YAML over the class and returns the object. A misspelt key, a wrong type or an impossible value is refused here,
before anything is downloaded or trained. `read` makes the whole run of a composed configuration.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from w2sd.conflicts.base import Conflict
from w2sd.errors import Refused, choose, nearest, require
from w2sd.identity import target
from w2sd.parts.adapter import Adapter
from w2sd.parts.fit import Fit, Generative, GenerativeByModel, Sft
from w2sd.parts.stopping import Stopping
from w2sd.parts.trainer import Trainer
from w2sd.parts.words import InContext, Shown, WordHead
from w2sd.supervision.base import Supervision

# Where our parts are defined. No other module is imported because a configuration or a record names it.
PLACES = ("chess", "conflicts", "data", "logger", "models", "objectives", "parts", "supervision", "world")
OURS = tuple(f"w2sd.{place}." for place in PLACES)
HERE = Path(__file__).parent
CONF = next(place for place in (HERE / "conf", HERE.parents[1] / "conf") if place.is_dir())  # in a wheel, in a checkout
NOT_RECORDED = "not recorded"  # the value of a knob that the version which made a record did not have


def build(node: Any, path: str, trusted: Iterable[str] = ()) -> Any:
    """The object that `node` describes: `_target_` names its dataclass; a field may hold a part or a dict of parts."""
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        raise Refused(path, dict(node), "an option of this group, or a _target_ and its fields")
    cls = _locate(node["_target_"], path, trusted)
    fields = {key: value for key, value in node.items() if key != "_target_"}
    for key, value in fields.items():
        if isinstance(value, Mapping) and "_target_" in value:
            fields[key] = build(value, f"{path}.{key}", trusted)
        elif isinstance(value, Mapping) and value:
            fields[key] = {name: build(part, f"{path}.{key}.{name}", trusted) for name, part in value.items()}
    return merge(cls, fields, path)


def known_class(node: Any) -> type | None:
    """The class of a recorded part, if it is one of ours that is still there: a record makes nothing else imported."""
    name = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(name, str) or name.rpartition(".")[0] not in _modules_of_options():
        return None
    try:
        return _locate(name, "", ())
    except Refused:
        return None


@functools.cache
def _modules_of_options() -> frozenset[str]:
    """The modules that options in `conf/` name; others of ours may take seconds to import, with torch."""
    texts = (path.read_text() for path in CONF.rglob("*.yaml"))
    return frozenset(module for text in texts for module in re.findall(r"_target_: *([\w.]+)\.\w+", text))


def mark_unrecorded(node: Any) -> Any:
    """A recorded part in which the fields that its class has got since say that they were not recorded.

    Today's defaults say nothing about an old result. Parts of other packages stay as they are.
    """
    if not isinstance(node, Mapping):
        return node
    own = {key: mark_unrecorded(value) for key, value in node.items()}
    cls = known_class(own)
    names = [field.name for field in dataclasses.fields(cls)] if cls else []
    return own | {name: NOT_RECORDED for name in names if name not in own}


def describe(part: Any) -> Any:
    """The plain JSON from which `build` makes an equal object."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {f.name: describe(getattr(part, f.name)) for f in dataclasses.fields(part)}
        return {"_target_": target(part), **fields}
    if isinstance(part, Mapping):
        return {name: describe(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    return part


def _locate(name: Any, path: str, trusted: Iterable[str]) -> type:
    prefixes = (*OURS, *trusted)
    if not isinstance(name, str) or not name.startswith(prefixes):
        raise Refused(f"{path}._target_", name, f"a class under {', '.join(prefixes)} (add yours to trusted=[...])")
    module, _, cls_name = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), cls_name)
    except Exception as error:  # whatever a user's own module does when it is imported
        raise Refused(f"{path}._target_", name, f"a class that can be imported ({error})") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise Refused(f"{path}._target_", name, "a dataclass")
    if name.startswith(OURS) and cls.__module__ != module:
        raise Refused(
            f"{path}._target_", name, "a class by the module that defines it", nearest=f"{cls.__module__}.{cls_name}"
        )
    if inspect.isabstract(cls):
        raise Refused(f"{path}._target_", name, "a class derived from it: this one leaves something to be filled in")
    return cls


def merge(cls: type, values: Mapping[str, Any], path: str) -> Any:
    """An instance of `cls` with `values`, each of the type its field declares."""
    known = [field.name for field in dataclasses.fields(cls)]
    parts = {key: value for key, value in values.items() if _is_part(value)}
    try:
        merged: Any = OmegaConf.merge(_schema(cls), {k: v for k, v in values.items() if k not in parts})
        fields = {key: OmegaConf.to_object(v) if OmegaConf.is_config(v := merged[key]) else v for key in known}
    except OmegaConfBaseException as error:
        raise _refusal(error, cls, values, path) from error
    for field in dataclasses.fields(cls):  # OmegaConf does not look at a list inside a list
        value = fields[field.name]
        if isinstance(value, list) and field.name not in parts and any(isinstance(item, list | dict) for item in value):
            raise Refused(f"{path}.{field.name}".lstrip("."), value, f"a value of type {field.type}")
    try:
        return cls(**{**fields, **parts})
    except Refused as refusal:
        raise (refusal.under(path) if path else refusal) from None


@functools.cache
def _schema(cls: type) -> DictConfig:
    """The fields of a class with their types and defaults, made once; to merge into it is to merge into a copy."""
    return OmegaConf.structured(cls)


def _is_part(value: Any) -> bool:
    """A part, or a dict of parts, that is built already."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_part, value.values()))
    return dataclasses.is_dataclass(value)


def _culprit(cls: type, values: Mapping[str, Any]) -> str | None:
    """The first key that cannot be merged alone; some of OmegaConf's errors name none."""
    for key, value in values.items():
        try:
            OmegaConf.merge(_schema(cls), {key: value})
        except OmegaConfBaseException:
            return key
    return None


def _refusal(error: OmegaConfBaseException, cls: type, values: Mapping[str, Any], path: str) -> Refused:
    key = str(error.full_key or error.key or _culprit(cls, values))
    known = [field.name for field in dataclasses.fields(cls)]
    knob = f"{path}.{key}" if path else key
    if isinstance(error, ConfigKeyError):
        return Refused(knob, values.get(key), "one of the keys " + ", ".join(known), nearest=nearest(key, known))
    name = key.partition("[")[0]
    declared = {field.name: field.type for field in dataclasses.fields(cls)}.get(name, "another type")
    if declared == "Any":  # a field that holds a part
        return Refused(knob, values.get(key), f"a part: its values are set one by one, as in {knob}.KEY=VALUE")
    return Refused(knob, values.get(name), f"a value of type {declared}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The top-level values of a run."""

    name: str = "run"  # the experiment: groups jobs in the report and in W&B
    seed: int = 0  # the student's: data order and head
    teacher_seed: int = 0  # weak model, ceiling and labels
    twin_seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2, 3])  # of the no-conflict twins
    controls: bool = False  # with a conflict: also its placebos, and the same conflict under the truth
    training_pairs: bool = False  # with a conflict: also look for its flips on the pairs that students were trained on
    samples: int = 4  # test prompts that policies are asked to answer, for a person to read; 0: none
    ceiling_split: str = "gt"  # what the ceiling is trained on: gt | w2s
    store: str = "store"  # where finished stages live
    out: str = "report"  # report and logs
    plan_only: bool = False
    force: list[str] = dataclasses.field(default_factory=list)  # kinds of stages to compute again
    launch: str = "inline"  # inline | process
    jobs: str = "0/1"  # of a sweep: K/N takes every N-th from number K on
    trusted: list[str] = dataclasses.field(default_factory=list)  # prefixes of your own modules that _target_ may name
    traceback: bool = False

    def __post_init__(self) -> None:
        for knob in ("seed", "teacher_seed"):
            require(0 <= getattr(self, knob) < 2**32, knob, getattr(self, knob), f"an integer from 0 to {2**32 - 1}")
        usable = 0 < len(self.name) <= 100 and "/" not in self.name
        require(usable, "name", self.name, "a name of at most 100 letters that can be part of a file's")
        for knob in ("store", "out"):
            place = getattr(self, knob)
            is_folder = place != "" and not Path(place).expanduser().is_file()
            require(is_folder, knob, place, "a folder, there or not")
        for seed in self.twin_seeds:
            is_seed = 0 <= seed < 2**32 and self.twin_seeds.count(seed) == 1
            require(is_seed, "twin_seeds", seed, f"integers from 0 to {2**32 - 1}, each once")
        require(self.samples >= 0, "samples", self.samples, "an integer of 0 or more")
        choose("ceiling_split", self.ceiling_split, ("gt", "w2s"))
        choose("launch", self.launch, ("inline", "process"))
        takes(self.jobs, 0)


def takes(jobs: str, job: int) -> bool:
    """Whether the share `jobs` of a sweep, K/N, has the job of this number."""
    share = re.fullmatch(r"(\d+)/(\d+)", jobs)
    k, n = map(int, share.groups()) if share else (0, 0)
    require(k < n, "jobs", jobs, "K/N with K from 0 to N - 1: every N-th job of a sweep, from number K on")
    return job % n == k


class RunConfig(NamedTuple):
    """A run as asked for: every part built and checked. None: the group is off."""

    data: Any
    weak: Any
    strong: Any
    adapter: Adapter
    head: WordHead | None
    objective: Any
    conflict: Conflict
    supervision: Supervision
    refinement: InContext | None
    hint: Shown | None
    chain: Any
    fit: Fit
    stopping: Stopping | None
    generative: Generative | GenerativeByModel | None
    sft: Sft | None
    trainer: Trainer
    logger: Any
    settings: Settings


GROUPS = tuple(part for part in RunConfig._fields if part != "settings")


def read(cfg: DictConfig, typed: Mapping[str, Any] | None = None) -> RunConfig:
    """The run that a composed configuration asks for.

    `typed` is what the command line sets, by key, where the rest may come from a folder of somebody else's options.
    """
    values = _plain(cfg)
    if typed is not None:
        _require_typed(values, typed)
    parts = {group: values.pop(group, None) for group in GROUPS}
    settings = merge(Settings, values, "")
    hints = get_type_hints(RunConfig)
    return RunConfig(
        **{group: _part(group, node, hints[group], settings.trusted) for group, node in parts.items()},
        settings=settings,
    )


def _require_typed(node: Mapping[str, Any], typed: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse what lets other people's code run unless the command line sets it: `trusted`, and `trust_remote_code`."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            _require_typed(value, typed, f"{key}.")
        elif (key == "trusted" or name == "trust_remote_code") and value and typed.get(key) != value:
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value).lower()
            raise Refused(key, value, "what the command line sets, not a folder of options", nearest=f"{key}={text}")


def _part(group: str, node: Any, hint: Any, trusted: list[str]) -> Any:
    """The part of a group, of the class that the field declares; None where a group that can be off is empty."""
    classes = get_args(hint) or (hint,)
    if type(None) in classes and (node is None or node == {}):
        return None
    require(isinstance(node, dict), group, node, f"a part; choose one with {_choice(group)}=OPTION")
    part = build(node, group, trusted)
    names = " or ".join(cls.__name__ for cls in classes if cls is not type(None))
    accepted = f"a part of class {names}; choose one with {_choice(group)}=OPTION"
    require(hint is Any or isinstance(part, hint), group, target(part), accepted)
    return part


def _choice(group: str) -> str:
    """What is written to choose an option for a part."""
    return f"model@{group}" if group in ("weak", "strong") else group


ORACLE_TRAITS = ("reads_truth", "needs_ceiling", "needs_blind_spots", "inverts_truth")


def oracles(run: RunConfig) -> list[str]:
    """The groups whose part declares that it reads what no supervisor knows: truth, a ceiling's view, blind spots.

    Of a supervision in stages the first one counts too.
    """
    return [group for group in GROUPS if _is_oracle(getattr(run, group))]


def _is_oracle(part: Any) -> bool:
    stages = [part, getattr(part, "first_stage", None)]
    return any(getattr(stage, trait, False) for stage in stages for trait in ORACLE_TRAITS)


def recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration in which the knobs that its version did not have yet are marked as not recorded.

    What no reward model reads is left out where the student is one.
    """
    unrecorded = {field.name: NOT_RECORDED for field in dataclasses.fields(Settings)}
    full = unrecorded | {key: mark_unrecorded(value) for key, value in config.items()}
    objective = known_class(full.get("objective"))
    if objective is not None and getattr(objective, "student", None) == "reward":
        full.pop("sft", None)
        if isinstance(full.get("data"), dict):
            full["data"].pop("append_eos", None)
    return full


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        knob = getattr(error, "full_key", None) or "config"
        accepted = "a value: " + str(error.msg or error).splitlines()[0]
        raw: Any = OmegaConf.to_container(cfg)
        for key in str(knob).split("."):
            raw = raw.get(key, "???") if isinstance(raw, dict) else "???"
        raise Refused(str(knob), raw, accepted) from error
