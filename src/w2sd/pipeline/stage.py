"""A stage is a value: kind, parameters, inputs. Building a graph of them runs nothing.

    key = sha256(canonical JSON of {kind, version, parameters, keys of the inputs})[:12]

so one changed upstream value renames everything below it and nothing beside it.
A task is what a stage is handed to run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from w2sd.config import describe
from w2sd.conflicts.base import adds_rows
from w2sd.data.pairs import classes_of, draw
from w2sd.data.tally import Tally
from w2sd.identity import canonical, digest, identity
from w2sd.parts.trainer import Resolved

FACETS = {"w2s": ("helpful", "unrelated"), "test": ("helpful_test",)}  # knobs of a source for its other facets


class Reading(NamedTuple):
    """How much text a stage reads, as far as knobs tell. None: not known before it runs."""

    rows: int | None  # at most; documents in `pretrain`
    length: int | None  # tokens of a text, at most
    times: int = 1  # texts that are read for each row


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run. `params` hold plain values and parts (frozen dataclasses), all of which bear identity.

    Each kind of stage is a subclass, declared in `graph.py`; `stages/<kind>.py` runs it.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Stage] = dataclasses.field(default_factory=dict)
    kind: ClassVar[str]
    version: ClassVar[int]  # part of the key; a change in what the kind computes bumps it, with a line in the CHANGELOG
    is_shared: ClassVar[bool] = False  # several devices make it faster
    trains: ClassVar[bool] = False  # it has training curves, and in W&B a run of its own
    asks_model: ClassVar[bool] = True  # it loads a model, and so needs a device
    reads_language: ClassVar[bool] = False  # it uses the output embedding of its model
    reads_parts: ClassVar[bool] = False  # it reads rows of every part of its split
    facets_of: ClassVar[tuple[str, ...]] = ()  # splits of which it reads rows of every facet
    texts: ClassVar[int] = 2  # that it reads of a pair

    def __init_subclass__(cls, **declared: Any) -> None:
        """Take what a kind declares beside its base class as its class variables."""
        for name, value in declared.items():
            setattr(cls, name, value)

    @cached_property
    def key(self) -> str:
        """Twelve hex digits that name what this stage computes."""
        content = {
            "kind": self.kind,
            "version": self.version,
            "params": {name: identity(value) for name, value in self.params.items()},
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]

    @property
    def origin(self) -> Mapping[str, Any]:
        """The parameters that name its model: those of the training that it asks, or else its own."""
        return self.inputs["model"].params if "model" in self.inputs else self.params

    def reading(self) -> Reading:
        """Return how much text is read where that is rows of a split; other kinds say it themselves."""
        data, rows, conflict = self.params["data"], self._rows(), self.params.get("conflict")
        if rows is not None and adds_rows(conflict):
            ratio = getattr(conflict, "ratio", None)  # somebody's own conflict may have no such knob
            rows = None if ratio is None else rows + round(ratio * rows)
        epochs = self.params["fit"].epochs if self.trains else 1
        return Reading(rows, data.max_tokens, epochs * (1 if classes_of(data) else self.texts))

    def _rows(self) -> int | None:
        """Return how many rows of its split it reads, if the source has a knob for its size or a limit."""
        data, split = self.params["data"], self.params["split"]
        declared, limit = getattr(data, split, None), getattr(data, "limit", 0)
        rows = declared if isinstance(declared, int) else limit
        if not rows:
            return None
        if split == "w2s" and self.reads_parts:
            rows *= data.w2s_parts
        facets = FACETS.get(split, ()) if split in self.facets_of else ()
        others = [getattr(data, facet, 0) for facet in facets]
        return rows + sum(other if isinstance(other, int) else limit for other in others if other)

    def spec(self) -> dict[str, Any]:
        """Everything another process needs to run this stage, as JSON."""
        return {
            "kind": self.kind,
            "key": self.key,
            "version": self.version,
            "trains": self.trains,
            "params": {name: describe(value) for name, value in self.params.items()},
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }


class Stretch(NamedTuple):
    """What one pass over some batches took, in all processes together. The first batch warms up and is not timed."""

    began: float  # when the first batch was done, by the clock of `time.perf_counter`
    seconds: float  # 0 where there was no second one
    cpu_seconds: float
    seen: Tally  # in all batches
    timed: Tally  # in those after the first
    is_packed: bool  # how its rows lay (data/layout.py)


def stream(params: Mapping[str, Any]) -> int:
    """Return what everything random in a stage begins from: head, adapter, order of the rows, dropout.

    Under one seed the weak model, the ceiling, the baselines and each arm draw different numbers.
    """
    if "text" in params:  # a pretraining, of which all runs share one
        return 10 * params["text"].seed + params["model"].init_seed
    seed = params["seed"]
    return int(digest("stream", params["stream"], str(seed))[:8], 16) if "stream" in params else seed


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
    origin: Mapping[str, Any] = MappingProxyType({})  # the parameters of the training that made its model, if one did
    rank: int = 0  # which process of the group this is
    measured: Callable[[Stretch], dict[str, Any]] = lambda stretch: {}  # takes what a pass over some data took
    trains: bool = False  # as its kind declares
    tokens: Path | None = None  # where tokens are kept that other processes may find

    @property
    def stream(self) -> int:
        """What everything random in this stage begins from."""
        return stream(self.params)

    def draw(self, id: str) -> float:
        """Return the number in [0, 1) that stream and seed draw for this id, whatever else they drew."""
        return draw(self.params["stream"], str(self.params["seed"]), id)
