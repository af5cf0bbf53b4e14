"""Cleaning of weak labels by a probe on the student's own features: rows are left out, or relabelled.

A probe is fitted to weak labels and sees no truth. Where the features of a strong model hold the right answer more
plainly than the errors of a weak one, it disagrees with the weak label where that is wrong. As in EleutherAI's
weak-to-strong experiments it reads the middle layer of the model that the student begins as.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from w2sd.errors import choose, require
from w2sd.supervision import probes
from w2sd.supervision.base import LAYERS, Floats, Lesson, Supervision

PROBES = ("knn", "logistic", "topological")


@dataclass(frozen=True)
class Probed:
    """Which probe is asked."""

    probe: str = "knn"  # knn | logistic | topological
    share: float = 0.1  # of rows
    layer: str = "middle"  # of the features: last | middle
    k: int = 50  # neighbours (knn, topological)
    l2: float = 1e-3  # penalty (logistic)

    def __post_init__(self) -> None:
        choose("probe", self.probe, PROBES)
        choose("layer", self.layer, LAYERS)
        require(0 < self.share <= 1, "share", self.share, "a share in (0, 1]")
        require(self.k >= 1, "k", self.k, "an integer of 1 or more")
        require(0 < self.l2 < float("inf"), "l2", self.l2, "a number above 0")

    @property
    def neighbours(self) -> int:
        """With how many other examples each one is compared; a fit to all of them compares none."""
        return 0 if self.probe == "logistic" else self.k

    def opinion(self, lesson: Lesson) -> Floats:
        """What the probe thinks of each option, [n, K]."""
        known = _known(lesson)
        if self.probe == "logistic":
            p = probes.fit(known, self.l2).predict(known.vectors)
        else:
            voters = probes.keep(known, self.k, 0.0) if self.probe == "topological" else None
            p = probes.knn(known, self.k, voters)
        return p[: len(lesson.p_NK)]

    def suspects(self, lesson: Lesson, opinion_NK: Floats) -> NDArray[np.bool_]:
        """The share of rows whose weak label is farthest from the probe's; ties in the order of the noise."""
        distance = np.abs(lesson.p_NK - opinion_NK).sum(axis=1)
        is_suspect = np.zeros(len(distance), dtype=bool)
        is_suspect[np.lexsort((lesson.noise, -distance))[: int(self.share * len(distance))]] = True
        return is_suspect


def _known(lesson: Lesson) -> probes.Examples:
    assert lesson.features_NAD is not None
    return probes.examples(lesson.features_NAD, lesson.p_NK)


@dataclass(frozen=True)
class Filtered(Probed, Supervision):
    """The teacher's confidence, on all rows but those whose weak label disagrees most with a probe."""

    probe: str = "knn"  # knn | logistic | topological
    share: float = 0.1  # of rows that are left out; topological: more where more hang together with few
    VERSION: ClassVar[int] = 3
    needs_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.share < 1, "share", self.share, "a share in (0, 1): without all rows there is nothing to learn")

    def targets(self, lesson: Lesson) -> Floats:
        if self.probe == "topological":
            out = ~probes.keep(_known(lesson), self.k, self.share)[: len(lesson.p_NK)]
        else:
            out = self.suspects(lesson, self.opinion(lesson))
        return np.where(out[:, None], np.nan, lesson.p_NK)


@dataclass(frozen=True)
class Relabelled(Probed, Supervision):
    """What a probe says of the rows whose weak label disagrees most with it, and the weak label of the others."""

    probe: str = "knn"  # knn | logistic | topological: knn among what hangs together
    share: float = 1.0  # of rows that are relabelled
    VERSION: ClassVar[int] = 3
    needs_features: ClassVar[bool] = True

    def targets(self, lesson: Lesson) -> Floats:
        opinion_NK = self.opinion(lesson)
        return np.where(self.suspects(lesson, opinion_NK)[:, None], opinion_NK, lesson.p_NK)
