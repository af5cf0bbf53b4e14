"""A verdict that was reached before, kept in the store: STORE/verdicts/<hash>.json.

The hash is of all that a verdict can depend on: the predictions by their content, which of them are whose, the source
of this package and the version of NumPy. Where any of it changes, the verdict is reached again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import w2sd
from w2sd.metrics.verdict import Verdict
from w2sd.pipeline.stage import canonical
from w2sd.pipeline.store import Store, read_json, write_json


def remembered(store: Store, rests_on: Any, reach: Callable[[], Verdict]) -> Verdict:
    """The verdict on what `rests_on` says in plain JSON: reached if it is not known, and then kept.

    A store that can only be read keeps none, and one that cannot be read back is reached again.
    """
    rule = _rule()
    if rule is None:
        return reach()
    digest = hashlib.sha256(canonical([rule, rests_on]).encode()).hexdigest()
    place = store.root / "verdicts" / f"{digest}.json"
    with suppress(OSError, ValueError, TypeError):
        return Verdict(**read_json(place))
    verdict = reach()
    with suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        write_json(place, {**verdict._asdict(), "nulls": dict(verdict.nulls)})
    return verdict


@functools.cache
def _rule() -> str | None:
    """By which code verdicts are reached: every line of this package, and NumPy's version.

    None where a file was changed since this process began: it may run what was there before.
    """
    source = hashlib.sha256(np.__version__.encode())
    for path in sorted(Path(w2sd.__path__[0]).rglob("*.py")):
        if path.stat().st_ctime >= w2sd.BEGAN:
            return None
        source.update(path.read_bytes())
    return source.hexdigest()
