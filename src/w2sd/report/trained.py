"""What the stages behind a job tell of it: how large its models are, what became of labels, how its student learned."""

from __future__ import annotations

from typing import Any

from w2sd.pipeline.store import Store
from w2sd.report.records import Job
from w2sd.stopping import CURVE, Look

MODELS = {"weak": "train/weak", "strong": "train/ceiling"}
STUDENT = "train/student"
REFINED = "refine/student"
OF_REFINED = ("accuracy", "kept", "shown")  # of labels: right, as the teacher said, examples seen on average


def measures(job: Job, store: Store, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`parameters/weak`, `parameters/strong`; `stopping/…` where the student was watched, `refined/…` where its labels
    were refined; `data/dropped_long_training` where pairs to train on were too long, by the worst-off model; less what
    is gone.

    `known` keeps what was read, by key: jobs share most of their trainings.
    """

    def read(stage: str) -> dict[str, Any]:
        at = job.stages.get(stage)
        if at is None:
            return {}
        if at["key"] not in known:
            known[at["key"]] = store.read(at["kind"], at["key"], "metrics.json") or {}
        return known[at["key"]]

    sizes = {f"parameters/{role}": read(stage).get("n/parameters") for role, stage in MODELS.items()}
    watched = {name: value for name, value in read(STUDENT).items() if name.startswith("stopping/")}
    refined = {f"refined/{name}": read(REFINED).get(name) for name in OF_REFINED}
    too_long = max(read(stage).get("n/dropped_long", 0) for stage in (*MODELS.values(), STUDENT))
    dropped = {"data/dropped_long_training": too_long or None}
    return {name: value for name, value in (sizes | refined | dropped).items() if value is not None} | watched


def curve(job: Job, store: Store) -> list[Look]:
    """What was seen of the student, step by step; nothing where nobody looked or the artifact is gone."""
    at = job.stages.get(STUDENT)
    spec = store.spec(at["kind"], at["key"]) if at else None
    if at is None or spec is None or CURVE not in spec["digests"]:
        return []
    return [Look(**look) for look in store.read(at["kind"], at["key"], CURVE)]
