"""Verdicts as artifacts: keyed by the rule's VERSION, its parameters and the evaluations that it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from w2sd.errors import StageFailed
from w2sd.metrics.predictions import PREDICTIONS
from w2sd.metrics.verdict import VERSION, Verdict
from w2sd.pipeline.stage import canonical
from w2sd.pipeline.store import Store, write_json

KIND, FILE = "verdict", "verdict.json"


def cached(store: Store, params: Mapping[str, Any], inputs: Mapping[str, str], judge: Callable[[], Verdict]) -> Verdict:
    """Return the verdict on these evaluations from the store; judge and store it where it is missing or damaged.

    A forced stage may have written new predictions under an old key: their digests are kept with the verdict.
    """
    content = {"kind": KIND, "version": VERSION, "params": params, "inputs": inputs}
    key = hashlib.sha256(canonical(content).encode()).hexdigest()[:12]
    specs = {evaluation: store.spec("evaluate", evaluation) for evaluation in inputs.values()}
    predictions = {evaluation: spec and spec["digests"].get(PREDICTIONS) for evaluation, spec in specs.items()}
    with suppress(StageFailed):
        if (store.spec(KIND, key) or {}).get("predictions") == predictions:
            return Verdict(**store.read(KIND, key, FILE))
    verdict = judge()
    with suppress(OSError), store.writing({**content, "key": key, "predictions": predictions}) as folder:
        write_json(folder / FILE, {**verdict._asdict(), "nulls": dict(verdict.nulls)})
    return verdict
