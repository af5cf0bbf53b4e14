"""What a stage is handed to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from w2sd.trainer import Resolved

if TYPE_CHECKING:
    from w2sd.stages.performance import Stretch


class Task(NamedTuple):
    """What a stage gets: its parameters and inputs, where to write, and what must not change its result."""

    key: str
    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Path]  # folders of finished artifacts, checked by the launching process
    out: Path  # the artifact being written, by the first process of a group alone
    work: Path  # survives an interruption of this stage
    trainer: Resolved
    logger: Any
    name: str  # the experiment
    logs: Path
    advance: Callable[[int, int], None]
    trusted: Sequence[str] = ()  # prefixes of a user's own modules
    rank: int = 0  # which process of the group this is
    measured: Callable[[Stretch], None] = lambda stretch: None  # takes what a pass over some data took
    tokens: Path | None = None  # where tokens are kept that other processes may find
