"""The records of finished runs, as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2sd.atomic import read_sealed
from w2sd.parts.stopping import CURVE, TRUTH, Look
from w2sd.pipeline.store import Damaged, Store

MODELS = {"weak": "train/weak", "strong": "train/ceiling"}
STUDENT = "train/student"
REFINED = "refine/student"
OF_REFINED = ("accuracy", "kept", "shown")  # of labels: right, as the teacher said, examples seen on average
MOST = 10  # damaged files that are named
VERDICT = "verdict"  # the kind of artifact that holds one
FAR = 1e300  # a figure beyond is none, and its sum with another may be no number
NESTED = 32  # levels of a configuration


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


class Damages(list[str]):
    """What a report left out because it is damaged: a line for each file, with the remedy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Damages:
        return self  # pandas copies `attrs` in depth: all parts of a report add to one list

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a damaged file that ends the block."""
        try:
            yield
        except Damaged as damage:
            self.note(damage)

    def note(self, damage: Damaged) -> None:
        """Take down a damaged file, each once."""
        if (line := str(damage).removeprefix("store: ")) not in self:
            self.append(line)

    def lines(self) -> list[str]:
        """How many files there are, and the first of them."""
        n, more = len(self), len(self) - MOST
        head = [f"Left out: {n} damaged file{'s' * (n > 1)}."] if n else []
        return [*head, *self[:MOST], *[f"And {more} more."] * (more > 0)]


def read_jobs(store: Path, damages: Damages | None = None) -> list[Job]:
    """Every job of the store, in the order in which they finished; damaged records are noted, or else refused."""
    jobs = []
    for path in sorted((store / "jobs").glob("*.json")):
        with nullcontext() if damages is None else damages.noted():
            jobs.append(_job(path))
    return sorted(jobs, key=lambda job: (job.finished, job.id))


def _job(path: Path) -> Job:
    """The job of a record; whatever else is in the file counts as damage."""
    try:
        content = read_sealed(path)
        known = {name: content[name] for name in Job.__dataclass_fields__ if content.get(name) is not None}
        job = Job(**{**known, "overrides": tuple(known.get("overrides", ()))})
        if job.id != path.stem or not _is_well_formed(job):
            raise ValueError(f"{path} is not the record of a job")
        return job
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(path, path) from error


def _is_well_formed(job: Job) -> bool:
    """Whether every field holds what a report takes it for."""
    tables = (job.config, job.choices, job.stages, *job.stages.values())
    if not all(isinstance(table, dict) for table in tables) or _is_deep(job.config):
        return False
    if not all(isinstance(job.config.get(group) or {}, dict) for group in job.oracles):
        return False
    named = (at.get(part) for at in job.stages.values() for part in ("kind", "key"))
    texts = (job.id, job.name, job.compare, job.command, job.finished, job.sweep or "")
    return all(isinstance(text, str) for text in (*texts, *job.oracles, *job.overrides, *job.choices.values(), *named))


def _is_deep(value: Any, levels: int = NESTED) -> bool:
    """Whether a value has more levels than any configuration."""
    if not isinstance(value, dict | list):
        return False
    within = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(each, levels - 1) for each in within)


def figures(store: Store, kind: str, key: str, name: str = "metrics.json") -> dict[str, Any]:
    """The figures in a file of an artifact: numbers that a table can hold, None, or words, which have no interval."""
    found = store.read(kind, key, name) or {}
    for figure, value in found.items():
        is_number = isinstance(value, int | float) and abs(value) < FAR
        if not (value is None or is_number or (isinstance(value, str) and f"{figure}_lo" not in found)):
            raise Damaged(store.path(kind, key) / name, store.path(kind, key))
    return found


def measures(job: Job, store: Store, known: dict[str, dict[str, Any]], damages: Damages) -> dict[str, Any]:
    """`parameters/weak`, `parameters/strong`; `stopping/…` where the student was watched, `refined/…` where its labels
    were refined; `data/dropped_long_training` where pairs to train on were too long, by the worst-off model; less what
    is gone or damaged.

    `known` keeps what was read, by key: jobs share most of their trainings.
    """

    def read(stage: str) -> dict[str, Any]:
        at = job.stages.get(stage)
        if at is None:
            return {}
        if at["key"] not in known:
            known[at["key"]] = {}
            with damages.noted():
                known[at["key"]] = figures(store, at["kind"], at["key"])
        return known[at["key"]]

    sizes = {f"parameters/{role}": read(stage).get("n/parameters") for role, stage in MODELS.items()}
    watched = {name: value for name, value in read(STUDENT).items() if name.startswith("stopping/")}
    refined = {f"refined/{name}": read(REFINED).get(name) for name in OF_REFINED}
    counts = [read(stage).get("n/dropped_long") for stage in (*MODELS.values(), STUDENT)]
    dropped = {"data/dropped_long_training": max(n for n in (0, *counts) if isinstance(n, int)) or None}
    return {name: value for name, value in (sizes | refined | dropped).items() if value is not None} | watched


def curve(job: Job, store: Store, damages: Damages) -> list[Look]:
    """What was seen of the student, step by step; nothing where nobody looked or the artifact is gone or damaged."""
    if (at := job.stages.get(STUDENT)) is None:
        return []
    with damages.noted():
        spec = store.spec(at["kind"], at["key"])
        if spec is not None and CURVE in spec["digests"]:
            looks = store.read(at["kind"], at["key"], CURVE, list)
            try:
                return [Look(**look) for look in looks]
            except TypeError as error:
                folder = store.path(at["kind"], at["key"])
                raise Damaged(folder / CURVE, folder) from error
    return []
