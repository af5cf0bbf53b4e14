"""The records of finished runs, as the store keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2sd.errors import Refused
from w2sd.pipeline.store import read_json
from w2sd.stopping import TRUTH


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
