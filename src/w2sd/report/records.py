"""The records of finished runs, as the store keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2sd.errors import Refused
from w2sd.pipeline.store import read_json


@dataclass(frozen=True)
class Job:
    """The record of one finished run."""

    id: str
    name: str  # the experiment
    compare: str  # key of the artifact that holds its results
    stages: dict[str, dict[str, str]]  # by name: kind and key
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)  # the option taken from each config group
    overrides: tuple[str, ...] = ()
    command: str = ""
    sweep: str | None = None
    finished: str = ""

    @property
    def kind(self) -> str:
        """Of the artifact that holds its results: models compared, or a theory simulated."""
        return next((stage["kind"] for stage in self.stages.values() if stage["key"] == self.compare), "compare")


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
