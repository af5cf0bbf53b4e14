"""The class is the schema: from composed YAML to frozen dataclasses, or to one line that says what is wrong.

Each swappable part is a frozen dataclass. Its YAML names it in `_target_` and lists its fields; `build` merges the
YAML over the class and returns the object. A misspelt key, a wrong type or an impossible value is refused here,
before anything is downloaded or trained.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from w2sd.errors import Refused, nearest

TRUSTED = ("w2sd.",)
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
    """The class of a recorded part, if it is one of ours that is still there."""
    name = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    try:
        return _locate(name, "", ()) if name.startswith("w2sd.") else None
    except Refused:
        return None


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


def target(part: Any) -> str:
    """The dotted name of a part's class."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _locate(name: Any, path: str, trusted: Iterable[str]) -> type:
    prefixes = (*TRUSTED, *trusted)
    if not isinstance(name, str) or not name.startswith(prefixes):
        raise Refused(f"{path}._target_", name, f"a class under {', '.join(prefixes)} (add yours to trusted=[...])")
    module, _, cls = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), cls)
    except Exception as error:  # whatever a user's own module does when it is imported
        raise Refused(f"{path}._target_", name, f"a class that can be imported ({error})") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise Refused(f"{path}._target_", name, "a dataclass")
    if inspect.isabstract(found):
        raise Refused(f"{path}._target_", name, "a class derived from it: this one leaves something to be filled in")
    return found


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
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    declared = types.get(key.partition("[")[0], "another type")
    if declared == "Any":  # a field that holds a part
        return Refused(knob, values.get(key), f"a part: its values are set one by one, as in {knob}.KEY=VALUE")
    return Refused(knob, values.get(key.partition("[")[0]), f"a value of type {declared}")
