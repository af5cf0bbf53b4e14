"""Candidates for the estimand: one number for each student, larger where it fails in ku."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from w2sd.metrics.excess_flips import count, excess_flips, flips
from w2sd.metrics.regions import KK, KU
from w2sd.metrics.selective_loss import Reference, selective_loss
from w2sd.metrics.strata import quantile_codes
from w2sd.predictions import Column, Predictions

Candidate = Callable[[Reference, Sequence[Predictions], Sequence[Predictions]], Column]  # twins, then students


def flips_in_strata(measured: Reference, twins: Sequence[Predictions], students: Sequence[Predictions]) -> Column:
    """Excess flips within quintiles of the twins' belief, mean over the twins."""
    found = np.zeros(len(students))
    for twin in twins:
        for n, student in enumerate(students):
            moved = flips(_confidence(twin.margin), _confidence(student.margin))
            strata = quantile_codes(measured.belief, moved.c0, 5)
            found[n] += excess_flips(count(moved.f, moved.c0, measured.region, strata))[0] / len(twins)
    return found


def lost_confidence(measured: Reference, twins: Sequence[Predictions], students: Sequence[Predictions]) -> Column:
    """How much more confidence is lost in ku than in kk, at equal belief (20 quantiles)."""
    before = np.mean([_confidence(twin.margin) for twin in twins], axis=0)
    return _difference(measured, [before - _confidence(student.margin) for student in students])


def lost_margin(measured: Reference, twins: Sequence[Predictions], students: Sequence[Predictions]) -> Column:
    """The same of margins."""
    return _difference(measured, [measured.belief - student.margin for student in students])


def selective_loss_unweighted(
    measured: Reference, twins: Sequence[Predictions], students: Sequence[Predictions]
) -> Column:
    """Selective loss with all pairs counted alike."""
    return selective_loss(measured._replace(weight=np.ones_like(measured.weight)), students)


CANDIDATES: dict[str, Candidate] = {
    "excess flips": flips_in_strata,
    "lost confidence": lost_confidence,
    "lost margin": lost_margin,
    "selective loss, unweighted": selective_loss_unweighted,
}


def _difference(measured: Reference, lost: Sequence[Column]) -> Column:
    """The coefficient of ku beside quantiles of belief, over ku and kk."""
    at = np.isin(measured.region, (KU, KK))
    strata = quantile_codes(measured.belief, at, 20)[at]
    columns = [*(strata == np.arange(20)[:, None]).astype(np.float64), (measured.region[at] == KU).astype(np.float64)]
    slopes = np.linalg.lstsq(np.stack(columns, axis=1), np.stack(lost, axis=1)[at], rcond=None)[0]
    return np.asarray(slopes[-1])


def _confidence(margin: Column) -> Column:
    return np.asarray(1 / (1 + np.exp(-np.clip(margin, -40, 40))))
