"""The store as it lies on disk: job records and the JSON files of artifacts. Nothing here writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2sd.errors import Refused


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


def read_jobs(store: Path) -> list[Job]:
    """Every job of the store, in the order in which they finished."""
    jobs = [_job(read_json(path), path) for path in (store / "jobs").glob("*.json")]
    return sorted(jobs, key=lambda job: (job.finished, job.id))


def read_artifact(store: Path, kind: str, key: str, file: str) -> dict[str, Any] | None:
    """One JSON file of an artifact, or nothing where the artifact is gone."""
    path = store / "artifacts" / f"{kind}-{key}" / file
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> Any:
    """The content of a JSON file, or one line that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused("store", str(path), f"readable JSON ({' '.join(str(error).split())})") from error


def _job(content: Any, path: Path) -> Job:
    try:
        known = {name: content[name] for name in Job.__dataclass_fields__ if content.get(name) is not None}
        return Job(**{**known, "overrides": tuple(known.get("overrides", ()))})
    except (AttributeError, TypeError) as error:
        raise Refused("store", str(path), f"the record of a job ({error})") from error
