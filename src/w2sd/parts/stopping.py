"""Watching a training on rows that it does not see, and where to stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from w2sd.errors import choose, require
from w2sd.identity import digest

LABELS, TRUTH, NOTHING = "labels", "truth", "nothing"
CURVE = "curve.json"  # every look at a training, among the files of its artifact


class Look(NamedTuple):
    """What was seen after so many steps: shares of the held-out rows, a tie being half of one."""

    step: int
    labels: float  # where the student prefers what its labels do
    truth: float  # where it is right


@dataclass(frozen=True)
class Stopping:
    """A share of the training rows is held out; the weights that did best on them are kept.

    `labels`: agreement with the labels that a student is taught, which is what a supervisor has (Burns et al. 2023,
    appendix A.1). `truth`: an oracle, an upper bound that nobody could reach. `nothing`: trained to the end, but
    watched.
    """

    by: str = LABELS  # labels | truth | nothing
    holdout: float = 0.1  # share of the rows
    every: float = 0.125  # epochs between two looks
    VERSION: ClassVar[int] = 3

    def __post_init__(self) -> None:
        choose("by", self.by, (LABELS, TRUTH, NOTHING))
        require(0 < self.holdout < 1, "holdout", self.holdout, "a share between 0 and 1")
        require(0 < self.every <= 1000, "every", self.every, "a number of epochs above 0, of 1000 or less")

    def holds_out(self, cluster: str) -> bool:
        """Whether the rows of a cluster are held out, all of them.

        By its hash, so rows held out at a small share are also held out at a larger one.

        What is held out is to say when those that are trained on are learned too well, so neither has a say in the
        other's labels: what compares rows with each other, or shows them to each other, sees these and those apart.
        (A first student of two stages is stopped by what is held out, and then labels both.)
        """
        return is_held_out(cluster, self.holdout)

    @property
    def reads_truth(self) -> bool:
        """Whether the truth decides which weights are kept."""
        return self.by == TRUTH


def is_held_out(cluster: str, share: float) -> bool:
    """Whether this share of all clusters has this one."""
    return int(digest("holdout", cluster), 16) / 2**64 < share
