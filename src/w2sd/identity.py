"""The identity of a value: one JSON text for what decides its effect, and short digests of texts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from w2sd.errors import require


def name_of(part: Any) -> str:
    """Name a part's class in keys: ours without its module, so that a file can move and no result with it."""
    return type(part).__qualname__ if target(part).startswith("w2sd.") else target(part)


def target(part: Any) -> str:
    """The dotted name of a part's class."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def digest(*parts: str) -> str:
    """A stable 16-digit id of some texts; the separator keeps ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def identity(value: Any) -> Any:
    """What decides the effect of `value`, as plain JSON; refuses anything whose text could change between runs."""
    if hasattr(value, "identity"):
        return {"_target_": name_of(value), **identity(_versioned(value, value.identity()))}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: identity(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"_target_": name_of(value), **_versioned(value, {"VERSION": getattr(value, "VERSION", None), **fields})}
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
