"""Whether a model's weights are all there and whole: told by names, headers and sizes, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from w2sd.errors import Refused

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_weights(knob: str, value: str, find: Callable[[str], Path | None]) -> None:
    """Refuse weights of which a file is missing, cut off or no safetensors; `find` is asked where each file lies."""
    if (whole := find(ONE)) is not None:
        _open(knob, value, whole)
        return
    index = find(INDEX)
    if index is None:
        raise Refused(knob, value, f"a model with {ONE}, or with {INDEX} and the files that it names")
    shards: dict[str, set[str]] = {}
    try:
        for weights, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            shards.setdefault(shard, set()).add(weights)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(knob, str(index), f"the index of a model's weights ({error!r})") from error
    for shard, names in sorted(shards.items()):
        if (path := find(shard)) is None:
            raise Refused(knob, value, f"a model with all of its weights; {shard}, which {INDEX} names, is missing")
        if lacking := sorted(names - _open(knob, value, path)):
            raise Refused(knob, str(path), f"the weights {lacking[0]}, which {INDEX} says are in it")


def _open(knob: str, value: str, path: Path) -> set[str]:
    """The names of the weights in a file; to open it is to read its header and to hold its size against that."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        accepted = f"a model whose {path.name} is whole ({error}); copy or download it again"
        raise Refused(knob, value, accepted) from error
