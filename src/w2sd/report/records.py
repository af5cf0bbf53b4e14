"""The records of finished runs, as the store keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2sd.atomic import read_json
from w2sd.errors import Refused
from w2sd.parts.stopping import CURVE, TRUTH, Look
from w2sd.pipeline.store import Store

MODELS = {"weak": "train/weak", "strong": "train/ceiling"}
STUDENT = "train/student"
REFINED = "refine/student"
OF_REFINED = ("accuracy", "kept", "shown")  # of labels: right, as the teacher said, examples seen on average
VERDICT = "verdict"  # the kind of artifact that holds one


@dataclass(frozen=True)
class Job:
    """The record of one finished run."""

    id: str
    name: str  # the experiment
    compare: str  # key of the artifact that holds its results
    stages: dict[str, dict[str, str]]  # by name: kind and key
    oracles: list[str]  # the groups whose part reads the truth
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)  # the option taken from each config group
    overrides: tuple[str, ...] = ()
    command: str = ""
    sweep: str | None = None
    finished: str = ""

    @property
    def reads_truth(self) -> str:
        """The parts that no one without the truth could use, in words; else nothing.

        >>> own = {"supervision": {"_target_": "my.own.Peek"}, "stopping": {"by": "truth"}}
        >>> Job("", "", "", {}, oracles=["supervision", "stopping"], config=own).reads_truth
        'supervision Peek, stopping by truth'
        """
        return ", ".join(_in_words(group, self.config.get(group) or {}) for group in self.oracles)


def _in_words(group: str, part: dict[str, Any]) -> str:
    words = {"mask": f"{group} with mask={TRUTH}", "by": f"{group} by {TRUTH}"}
    cls = str(part.get("_target_", "")).rpartition(".")[2]
    return next((said for knob, said in words.items() if part.get(knob) == TRUTH), f"{group} {cls}")


def read_jobs(store: Path) -> list[Job]:
    """Every job of the store, in the order in which they finished."""
    jobs = [_job(path) for path in (store / "jobs").glob("*.json")]
    return sorted(jobs, key=lambda job: (job.finished, job.id))


def _job(path: Path) -> Job:
    """The job of a record; one that cannot be read is refused by the name of its file."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise Refused("store", str(path), f"readable JSON ({' '.join(str(error).split())})") from error
    try:
        known = {name: content[name] for name in Job.__dataclass_fields__ if content.get(name) is not None}
        return Job(**{**known, "overrides": tuple(known.get("overrides", ()))})
    except (AttributeError, TypeError) as error:
        raise Refused("store", str(path), f"the record of a job ({error})") from error


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
