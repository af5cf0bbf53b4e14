"""A conflict pulls the student away from its supervisor: through extra data, an extra loss, or other labels.

Its hooks are all that a student knows of it. A conflict whose loss reads the truth says so in `reads_truth`; only then
does a batch carry it, and the report flags the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from w2sd.data.pairs import CONFLICTING, TARGET, UNRELATED
from w2sd.errors import Refused, require
from w2sd.objectives.preference import SFT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from w2sd.data.batch import PairBatch
    from w2sd.data.pairs import Pair, Table
    from w2sd.objectives.base import Objective
    from w2sd.parts.words import Shown

SOURCE, TEACHER, COIN, INVERTED = "own", "teacher", "coin", "inverted"
REVERSE, WORSE_TEXT = "reverse", "sft"
FORMS = (REVERSE, WORSE_TEXT)
SOURCES = {CONFLICTING: "data.helpful", UNRELATED: "data.unrelated", TARGET: "the last part of w2s"}  # of extra rows


class Extra(NamedTuple):
    """Rows that join the training rows, and whose word is taken for which answer is better.

    `own`: their source's; `inverted`: the opposite of it; `teacher`: the supervisor's, as for every other row; `coin`:
    nobody's.
    """

    pairs: list[Pair]
    labels: str = SOURCE


IsBlind = Callable[[Sequence["Pair"]], "NDArray[np.bool_]"]  # which rows the weak model was never taught to decide


class Conflict:
    """The hooks, doing nothing. A student that is trained on the data's own labels has no conflict at all."""

    VERSION: ClassVar[int]
    draws: ClassVar[str] = ""  # the facet of its extra rows, `ratio` for each training row
    reads_draws: ClassVar[bool] = False  # whether `loss` needs a random number for each row
    is_placebo: ClassVar[bool] = False  # a placebo is a control itself and needs none of its own
    needs_blind_spots: ClassVar[bool] = False  # whether `extra` has to be told which rows the weak model cannot know
    inverts_truth: ClassVar[bool] = False  # whether its rows have the opposite of their own labels
    weight_noise: float = 0.0  # on the trained weights at the end, of the root mean square of each tensor

    @property
    def match_steps(self) -> bool:
        """Whether an arm with extra rows takes no more optimiser steps than its baseline."""
        return False

    @property
    def reads_truth(self) -> bool:
        """Whether `loss` needs to know which answer is better."""
        return False

    @property
    def needs_rate(self) -> bool:
        """Whether its `rate` is how often the student that it stands beside was pulled at, which training measures."""
        return False

    @property
    def hint(self) -> Shown | None:
        """What the student reads of the weak model's preferences, or None."""
        return None

    def placebos(self) -> dict[str, Conflict]:
        """The placebo arms that belong beside this one, by name, in the same dose."""
        return {}

    def extra(self, table: Table, n_rows: int, is_blind: IsBlind | None = None) -> Extra:
        """Rows to add to `n_rows` training rows; `is_blind` is there for a conflict that needs the blind spots."""
        return Extra([])

    def relabel(self, targets: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """The targets [n, 2] of the student's own rows, and a number in [0, 1) for each, as targets."""
        return targets

    def check(self, objective: Objective) -> None:
        """Refuse, before anything is trained, knobs that mean nothing beside this objective."""

    def loss(self, scores: Any, batch: PairBatch, objective: Objective) -> Tensor | None:
        """A term per example to add to the objective's, or None."""
        return None


def blind_spots(conflict: Conflict, data: Any, weak: Any) -> IsBlind | None:
    """Which rows `weak` was never taught to decide, for a conflict that needs to know; refuses data that do not say."""
    if not conflict.needs_blind_spots:
        return None
    if not hasattr(data, "known") or not hasattr(weak, "rung"):
        raise Refused(
            "conflict",
            type(conflict).__name__,
            "data=world and model@weak=world_s or another rung: only there are blind spots known",
        )
    return lambda pairs: ~data.known(pairs, weak.rung)


def adds_rows(conflict: Conflict | None) -> bool:
    """Whether it has rows of its own for a student to read."""
    return conflict is not None and type(conflict).extra is not Conflict.extra


def against(scores: Any, reference: Tensor, objective: Objective, form: str) -> Tensor:
    """The loss of preferring the answer that the reference (1: the first) does not.

    `reverse`: the objective's own, with the answers' parts exchanged; `sft`: what it takes to write that answer.
    """
    pull: Objective = SFT() if form == WORSE_TEXT else objective
    return pull(scores, 1 - reference)


def check_form(form: str, objective: Objective) -> None:
    """Refuse a form that asks a reward model to write."""
    if form == WORSE_TEXT and objective.student != "policy":
        raise Refused("form", form, "reverse: a reward model writes no text that sft could be taught on")


def preferred(targets: Tensor) -> Tensor:
    """1 where P(first is better) prefers the first answer, 0 where it prefers the second, ½ where it is undecided."""
    return ((targets - 0.5).sign() + 1) / 2


def spare(table: Table, ratio: float) -> list[Pair]:
    """Rows of w2s that train no student: those of its last part."""
    part = max((pair.part for pair in table.rows("w2s", TARGET, None)), default=0)
    if part == 0:
        raise Refused("ratio", ratio, "w2s rows that train no student: set data.w2s_parts to 2 or more")
    return table.rows("w2s", TARGET, part)


@dataclass(frozen=True)
class ExtraRows(Conflict):
    """Rows of some kind, `ratio` per training row."""

    ratio: float = 1.0  # extra rows per training row
    match_steps: bool = False  # as many optimiser steps as without the extra rows
    labels: ClassVar[str] = SOURCE  # whose word is taken, as in `Extra`

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 100, "ratio", self.ratio, "a number above 0")

    def pool(self, table: Table, is_blind: IsBlind | None) -> list[Pair]:
        """Return the candidates, in the order in which they are taken."""
        return table.rows("w2s", self.draws)

    def extra(self, table: Table, n_rows: int, is_blind: IsBlind | None = None) -> Extra:
        """The first `ratio` × `n_rows` of the pool; too few are refused: a smaller dose is another arm."""
        pool, wanted = self.pool(table, is_blind), round(self.ratio * n_rows)
        if len(pool) < wanted:
            source = SOURCES[self.draws] + (", where the weak model is blind," if self.needs_blind_spots else "")
            most = f"at most {len(pool) / n_rows:.3g}: {source} has {len(pool)} rows for {n_rows} training rows"
            raise Refused("ratio", self.ratio, most)
        return Extra(pool[:wanted], self.labels)


@dataclass(frozen=True)
class NoConflict(Conflict):
    """Nothing but weak labels: no extra data, no extra loss."""

    VERSION: ClassVar[int] = 1
