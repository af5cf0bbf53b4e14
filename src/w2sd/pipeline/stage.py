"""A stage is a value: kind, parameters, inputs. Building a graph of them runs nothing.

    key = sha256(canonical JSON of {kind, version, parameters, keys of the inputs})[:12]

so one changed upstream value renames everything below it and nothing beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from w2sd.config import describe, target
from w2sd.errors import require

# The declared version of each kind. A change in what a kind computes bumps its number, gets a line in the CHANGELOG,
# and leaves results of the old version valid for what they are.
VERSIONS = {
    "pretrain": 1,
    "generative": 1,
    "sft": 2,
    "reference": 2,
    "features": 1,
    "zero_shot": 1,
    "train": 1,
    "label": 1,
    "refine": 1,
    "evaluate": 1,
    "generate": 1,
    "compare": 3,
    "simulate": 1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run. `params` hold plain values and parts (frozen dataclasses), all of which bear identity."""

    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Stage] = dataclasses.field(default_factory=dict)

    @property
    def version(self) -> int:
        return VERSIONS[self.kind]

    @cached_property
    def key(self) -> str:
        """Twelve hex digits that name what this stage computes."""
        content = {
            "kind": self.kind,
            "version": self.version,
            "params": {name: identity(value) for name, value in self.params.items()},
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]

    def spec(self) -> dict[str, Any]:
        """Everything another process needs to run this stage, as JSON."""
        return {
            "kind": self.kind,
            "key": self.key,
            "version": self.version,
            "params": {name: describe(value) for name, value in self.params.items()},
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }


def identity(value: Any) -> Any:
    """What decides the effect of `value`, as plain JSON; refuses anything whose text could change between runs."""
    if hasattr(value, "identity"):
        return {"_target_": target(value), **identity(_versioned(value, value.identity()))}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: identity(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"_target_": target(value), **_versioned(value, {"VERSION": getattr(value, "VERSION", None), **fields})}
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} has no stable identity; parameters are plain values and frozen dataclasses")


def _versioned(value: Any, content: dict[str, Any]) -> dict[str, Any]:
    version = content.get("VERSION", 0)  # not every identity has one: where a source is known by its content, say
    require(isinstance(version, int), f"{target(value)}.VERSION", version, "an integer, bumped when results change")
    return content


def canonical(content: Any) -> str:
    """The one JSON text of `content`.

    >>> canonical({"b": 1, "a": [0.1, None]})
    '{"a":[0.1,null],"b":1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
