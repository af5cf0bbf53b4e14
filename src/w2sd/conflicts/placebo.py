"""Placebos: what a conflict arm does to a student besides the conflict. Each is a conflict like any other, and an arm
whose `ratio` and `match_steps` are those of the arm that it stands beside has as many rows and steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.conflicts.base import (
    COIN,
    FORMS,
    REVERSE,
    TEACHER,
    Conflict,
    ExtraRows,
    IsBlind,
    against,
    check_form,
    preferred,
    spare,
)
from w2sd.data.pairs import CONFLICTING, TARGET, UNRELATED
from w2sd.errors import choose, require

if TYPE_CHECKING:
    from torch import Tensor

    from w2sd.data.batch import PairBatch
    from w2sd.data.pairs import Pair, Table
    from w2sd.objectives.base import Objective


@dataclass(frozen=True)
class MoreData(ExtraRows):
    """P1: more harmless rows under weak labels. More data, no conflict."""

    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = TARGET
    labels: ClassVar[str] = TEACHER
    is_placebo: ClassVar[bool] = True

    def pool(self, table: Table, is_blind: IsBlind | None) -> list[Pair]:
        return spare(table, self.ratio)


@dataclass(frozen=True)
class RandomHelpful(ExtraRows):
    """P2: helpful rows with labels by a coin. The conflict's texts without its pull."""

    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = CONFLICTING
    labels: ClassVar[str] = COIN
    is_placebo: ClassVar[bool] = True


@dataclass(frozen=True)
class Unrelated(ExtraRows):
    """P3: rows about something else altogether, with their own labels. Distribution shift, no conflict."""

    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = UNRELATED
    is_placebo: ClassVar[bool] = True


@dataclass(frozen=True)
class Agreeing(ExtraRows):
    """P4: helpful rows labelled by the harmless teacher. The conflict's texts, pulling the supervisor's way."""

    VERSION: ClassVar[int] = 1
    draws: ClassVar[str] = CONFLICTING
    labels: ClassVar[str] = TEACHER
    is_placebo: ClassVar[bool] = True


@dataclass(frozen=True)
class RandomMask(Conflict):
    """P5: the explicit term on rows drawn at random, toward the answer that the weak label does not prefer.

    A row's id and the seed decide whether it is drawn: other seeds draw other rows, in whatever order the rows come.
    """

    alpha: float = 0.5  # strength
    rate: float | None = 0.1  # share of rows, the same ones in every epoch; None: as an explicit arm was pulled at
    form: str = REVERSE  # that of the explicit term: reverse | sft, for policies only
    VERSION: ClassVar[int] = 2
    reads_draws: ClassVar[bool] = True
    is_placebo: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 100, "alpha", self.alpha, "a number of 0 or more")
        require(self.rate is None or 0 <= self.rate <= 1, "rate", self.rate, "a share in [0, 1]")
        choose("form", self.form, FORMS)

    def identity(self) -> dict[str, Any]:
        """What decides the student; the form, which came later, counts where it is another."""
        added = {} if self.form == REVERSE else {"form": self.form}
        return {"VERSION": self.VERSION, "alpha": self.alpha, "rate": self.rate, **added}

    @property
    def needs_rate(self) -> bool:
        return self.rate is None

    def check(self, objective: Objective) -> None:
        check_form(self.form, objective)
        require(not self.needs_rate, "rate", self.rate, "a share in [0, 1]: alone, there is no arm to take it from")

    def loss(self, scores: Any, batch: PairBatch, objective: Objective) -> Tensor | None:
        assert self.rate is not None  # as the stage that trains has measured it
        pull = against(scores, preferred(batch.targets), objective, self.form)
        return self.alpha * pull * (batch.draws < self.rate).to(pull.dtype)


def dose(ratio: float, match_steps: bool) -> dict[str, Conflict]:
    """The two placebos that go beside a conflict with extra rows (P1, P2), in its dose."""
    return {"more_data": MoreData(ratio, match_steps), "random_helpful": RandomHelpful(ratio, match_steps)}
