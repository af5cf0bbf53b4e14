"""Selective loss: how much more of what it would have believed a student gives up where the weak model is blind.

Of one student, by weighted least squares over the pairs that the ceiling knows:

    y = a_ku b + c_ku w + d    on pairs that the weak model does not know (ku)
    y = a_kk b + c_kk w + d    on pairs that it knows (kk)

y is the student's margin, b the mean margin of no-conflict students, the *reference*, and w the logit of the weak
model; all are oriented to the truth. Then a is the share of the reference's belief that the student keeps, c what it
takes from the weak model beyond the reference, and d a shift toward or away from the truth. The selective loss is

    (a_kk - a_ku) / (|a_kk| + |a_ku|)

0: as much is kept in ku as in kk; 1: nothing is kept in ku, or the opposite is believed; -1: so in kk. It stays exactly
what it was when margins are multiplied by a number above 0, shifted alike everywhere, or get a multiple of w. Noise
without a direction cancels in the slopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from w2sd.metrics.regions import KK, KU, Codes, regions
from w2sd.predictions import Column, Predictions

FAR = 4.0  # logits of the weak model beyond this count as this: a few sure pairs would decide the slope
LEAST = (
    0.1  # of the typical variance of a pair is added to each: without it, pairs that are equal by chance would decide
)


class Reference(NamedTuple):
    """What the students of a world are measured against, over its pairs."""

    region: Codes
    weak: Column  # logit, at most FAR
    belief: Column  # the mean margin of the no-conflict students
    weight: Column  # of a pair; less where these students differ

    def count(self, region: int) -> int:
        """How many pairs are in a region."""
        return int((self.region == region).sum())


def reference(
    weak: Predictions, ceiling: Predictions, students: Sequence[Predictions], threshold: float = 0.75
) -> Reference:
    """The reference that these no-conflict students make; there have to be two."""
    margins = np.stack([student.margin for student in students])
    spread = margins.var(axis=0, ddof=1)
    least = LEAST * spread.mean()
    return Reference(
        region=regions(ceiling.p_correct, weak.p_correct, threshold),
        weak=_logit(weak.p_correct),
        belief=margins.mean(axis=0),
        weight=1 / (spread + least) if least > 0 else np.ones_like(spread),
    )


def selective_loss(reference: Reference, students: Sequence[Predictions]) -> Column:
    """The selective loss of each student; there have to be pairs in ku and in kk."""
    ku, kk = reference.region == KU, reference.region == KK
    known = ku | kk
    columns = [column * here for here in (ku, kk) for column in (reference.belief, reference.weak)]
    design = np.stack([*columns, np.ones_like(reference.belief)], axis=1)[known]
    margins = np.stack([student.margin for student in students], axis=1)[known]
    root = np.sqrt(reference.weight[known])[:, None]
    a_ku, _, a_kk, _, _ = np.linalg.lstsq(design * root, margins * root, rcond=None)[0]
    kept = np.abs(a_kk) + np.abs(a_ku)
    return np.divide(a_kk - a_ku, kept, out=np.zeros_like(kept), where=kept > 0)


def _logit(p: Column) -> Column:
    least = 1 / (1 + np.exp(FAR))
    inner = np.clip(p, least, 1 - least)
    return np.log(inner / (1 - inner))
