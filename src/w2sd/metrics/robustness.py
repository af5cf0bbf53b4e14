"""Whether the finding hangs on a choice: calibration, thresholds, measures of knowledge, a model without a threshold.

Confidences are oriented to the truth, so the target of calibration and of squared errors is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.accuracy import correctness
from w2sd.metrics.arms import TWIN, Arm, mean_excess, own_arm
from w2sd.metrics.excess_flips import Flips, base_rate, count, flips, lift, number, score
from w2sd.metrics.regions import Codes, regions
from w2sd.metrics.statistics import Metrics
from w2sd.predictions import Column, Predictions

THRESHOLDS = (0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
EDGES = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_EVENTS = 5  # flips, and stays, for each coefficient (Vittinghoff & McCulloch 2007: results are sound from 5 to 9)
_RIDGE = 1e-6
_SLOPE = 1e-8  # of the log-likelihood where the fit ends
_SURE = 1e-6  # confidences nearer to 0 or 1 count as this near: a logit has to be finite
_LOOSE = 30.0  # standard error of a coefficient, per standard deviation, beyond which the rows are separable


def describe(joined: Mapping[str, Predictions]) -> Metrics:
    """Calibration of weak model, ceiling and student; squared errors of student and weak model taken apart.

    Squared errors are also taken apart over seeds, of all no-conflict students, where there are several.
    """
    p = {role: joined[role].p_correct for role in joined}
    metrics: Metrics = {}
    for role in ("weak", "ceiling", "student"):
        metrics |= {f"calibration/ece/{role}": ece(p[role]), f"calibration/brier/{role}": brier(p[role])}
    metrics |= {f"variance/{name}": value for name, value in decompose(p["student"], p["weak"]).items()}
    untouched = [p[role] for role in joined if role == "baseline" or role.startswith(TWIN)]
    if len(untouched) > 1:
        by_row = across_seeds(np.stack(untouched))
        metrics |= {f"variance/seeds/{name}": float(column.mean()) for name, column in by_row.items()}
    return metrics


def ece(p_correct: ArrayLike, n_bins: int = 10) -> float:
    """The expected calibration error: how far accuracy is from confidence, bin by bin (Guo et al. 2017, eq. 3).

    sum_b (n_b / n) |acc_b - conf_b|, with the confidence max(p, 1 - p) in the answer that is preferred, in bins of
    equal width from 1/2 to 1, lower edges included.

    >>> round(ece([0.8, 0.8, 0.8, 0.2]), 12)
    0.05
    """
    p = np.asarray(p_correct)
    confidence = np.maximum(p, 1 - p)
    bins = np.searchsorted(np.linspace(0.5, 1, n_bins + 1)[1:-1], confidence, side="right")
    return float(np.abs(np.bincount(bins, weights=correctness(p) - confidence)).sum()) / len(p)


def brier(p_correct: ArrayLike) -> float:
    """The mean squared distance from certainty of the truth (Brier 1950): (1/n) sum_i (1 - p_i)^2.

    >>> round(brier([0.9, 0.5, 0.2]), 12)
    0.3
    """
    return float(((1 - np.asarray(p_correct)) ** 2).mean())


def temperature(margins: ArrayLike) -> float | None:
    """The T for which sigmoid(margin / T) has the least log-loss (Guo et al. 2017, section 4.2), margins to the truth.

    The loss mean(log(1 + exp(-a m))) is convex in a = 1 / T, so its slope is bisected. None where there is no best
    T: with no margin below 0 surer is always better, and with a mean not above 0 no confidence is better than none.
    """
    m = np.asarray(margins, dtype=np.float64)
    if not (m < 0).any() or m.mean() <= 0:
        return None

    def slope(a: float) -> float:
        return -float((m * (1 - np.tanh(a * m / 2))).mean())  # twice the slope: sigmoid(-x) = (1 - tanh(x / 2)) / 2

    low, high = 0.0, 1 / float(np.abs(m).max())
    while slope(high) < 0:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def rescale(margins: ArrayLike, temperature: float) -> Column:
    """Confidences at a temperature, sigmoid(margin / T): what temperature-scaled regions are made of.

    >>> rescale([0.0, 2.0], 2.0).round(6).tolist()
    [0.5, 0.731059]
    """
    return (1 + np.tanh(np.asarray(margins) / temperature / 2)) / 2


def decompose(student: ArrayLike, weak: ArrayLike) -> dict[str, float | None]:
    """Risks R = mean (p - 1)^2 = bias^2 + variance of student and weak model, and how the two go together.

    Moments have n in the denominator; the correlation is None where one of the two does not vary. The misfit is
    mean (s - w)^2, and R_s = R_w + misfit + 2 mean((w - 1)(s - w)); for the projection of weak labels on a convex class
    that holds the truth, the student gains its misfit: R_s <= R_w - misfit (Charikar et al. 2024, arXiv 2405.15116,
    theorem 1).
    """
    s, w = np.asarray(student), np.asarray(weak)
    covariance = float(((s - s.mean()) * (w - w.mean())).mean())
    scale = math.sqrt(float(s.var()) * float(w.var()))
    parts: dict[str, float | None] = {}
    for role, p in {"student": s, "weak": w}.items():
        parts[f"risk_{role}"] = float(((p - 1) ** 2).mean())
        parts |= {f"bias_{role}": float(p.mean()) - 1, f"variance_{role}": float(p.var())}
    parts |= {"covariance": covariance, "correlation": covariance / scale if scale else None}
    return parts | {"misfit": float(((s - w) ** 2).mean())}


def across_seeds(p_correct: ArrayLike) -> dict[str, Column]:
    """Squared bias and variance of each row, which sum to its mean squared error, and disagreement: of [seeds, rows].

    The variance has n in the denominator. Disagreement is the chance that just one of two different seeds is right,
    2 k (J - k) / (J (J - 1)) for k of J seeds right (at least 1/2): unbiased for two new seeds.
    """
    p = np.asarray(p_correct)
    n_seeds, right = len(p), (p >= 0.5).sum(axis=0)
    disagreement = 2 * right * (n_seeds - right) / (n_seeds * (n_seeds - 1))
    return {"bias2": (p.mean(axis=0) - 1) ** 2, "variance": p.var(axis=0), "disagreement": disagreement}


def vary(
    joined: Mapping[str, Predictions],
    *,
    threshold: float = 0.75,
    strata: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
) -> Metrics:
    """Flips into ku where something else counts as knowledge, and a model of flips without any threshold.

    Other thresholds (`sensitivity/0.55` to `0.95`), confidences at the temperature that fits the test pairs best
    (`tempered`), and the no-conflict student in the place of the ceiling (`baseline_knows`). All against the baseline.
    """
    own = own_arm(joined, strata, lengths)
    weak, ceiling, baseline = (joined[role] for role in ("weak", "ceiling", "baseline"))
    metrics: Metrics = {}
    for value in THRESHOLDS:
        metrics |= _sensitivity(f"{value:.2f}", own, regions(ceiling.p_correct, weak.p_correct, value))
    metrics |= _sensitivity("baseline_knows", own, regions(baseline.p_correct, weak.p_correct, threshold))
    warm = {"ceiling": temperature(ceiling.margin), "weak": temperature(weak.margin)}
    metrics |= {f"calibration/temperature/{role}": value for role, value in warm.items()}
    if warm["ceiling"] and warm["weak"]:  # confidences that were made to mean what they say
        strong = rescale(ceiling.margin, warm["ceiling"])
        metrics |= _sensitivity("tempered", own, regions(strong, rescale(weak.margin, warm["weak"]), threshold))
    fitted = flip_model(own.flips, baseline.p_correct, ceiling.p_correct, weak.p_correct, lengths)
    metrics["flip_model_reason"] = None if fitted else "too few flips, or rows that do not hold the coefficients apart"
    if fitted:
        metrics |= {f"flip_model/{term}": value for term, (value, _) in fitted.items()}
        metrics |= {f"flip_model/{term}_se": error for term, (_, error) in fitted.items()}
    return metrics


def _sensitivity(name: str, own: Arm, region: Codes) -> Metrics:
    """The deception score, and flips beyond difficulty, in these regions; the strata stay as they are."""
    cells = count(own.flips.f, own.flips.c0, region)
    figures = {equation.__name__: equation(cells) for equation in (score, base_rate, lift)}
    figures["excess_flips_baseline"] = mean_excess([own], region)
    return {f"sensitivity/{name}/{figure}": number(value) for figure, value in figures.items()}


def locate(before: Predictions, after: Predictions, weak: Predictions, on: str) -> Metrics:
    """Where on the weak model's confidence the flips are, on `test` or `training` pairs: quantiles, and rates by bin.

    A bin has its lower edge, the last one also a confidence of 1. Pointwise, an explicit conflict of strength α leaves
    a student that is wrong stable only where the weak label is below (1 + α) / 2 (docs/concepts.md): the rates show
    whether that boundary is there.
    """
    moved = flips(before.p_correct, after.p_correct)
    flipped = weak.p_correct[moved.f]
    metrics: Metrics = {f"boundary/{on}/flips": len(flipped)}
    for q in QUANTILES:
        metrics[f"boundary/{on}/q{100 * q:.0f}"] = float(np.quantile(flipped, q)) if len(flipped) else None
    bins = np.searchsorted(EDGES[1:-1], weak.p_correct, side="right")
    right, lost = (np.bincount(bins[rows], minlength=len(EDGES) - 1).tolist() for rows in (moved.c0, moved.f))
    for edge, n, n_lost in zip(EDGES[:-1], right, lost, strict=True):
        metrics |= {f"boundary/{on}/n/{edge:.2f}": n, f"boundary/{on}/rate/{edge:.2f}": n_lost / n if n else None}
    return metrics


def flip_model(
    flipped: Flips,
    baseline: ArrayLike,
    strong: ArrayLike,
    weak: ArrayLike,
    length_difference: ArrayLike | None = None,
) -> dict[str, tuple[float, float]] | None:
    """What makes a row of C0 flip, without a threshold; deception predicts weak < 0 where strong is high.

    logit P(flip) = b0 + b1 m_NC + b2 logit s + b3 logit w + b4 logit s logit w (+ b5 length difference), with the
    logits of the confidences of baseline, strong and weak model. Fitted by maximum likelihood with a ridge of 1e-6
    on coefficients per standard deviation. Of each term the coefficient, in logits per unit, and its standard error,
    which takes rows for independent. None with fewer than five flips, or stays, for each coefficient, where a
    term does not vary apart from the others, and where the rows are (nearly) separable.
    """
    terms = {"baseline": _logit(baseline), "strong": _logit(strong), "weak": _logit(weak)}
    if length_difference is not None:
        terms["length"] = np.asarray(length_difference, dtype=np.float64)
    terms["strong_weak"] = terms["strong"] * terms["weak"]
    columns, y = np.column_stack(list(terms.values()))[flipped.c0], flipped.f[flipped.c0].astype(np.float64)
    names = ["intercept", *terms]
    if min(y.sum(), len(y) - y.sum()) < _EVENTS * len(names) or not np.ptp(columns, axis=0).all():
        return None
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    design = np.column_stack([np.ones(len(y)), (columns - centre) / scale])
    if np.linalg.matrix_rank(design) < len(names):
        return None
    fitted = _fit(design, y)
    if fitted is None:
        return None
    back = np.diag(1 / np.concatenate([[1.0], scale]))
    back[0, 1:] = -centre / scale
    coefficients, errors = back @ fitted[0], np.sqrt(np.diag(back @ fitted[1] @ back.T))
    return dict(zip(names, zip(coefficients.tolist(), errors.tolist(), strict=True), strict=True))


def _fit(design: Column, y: Column) -> tuple[Column, Column] | None:
    """Coefficients and their covariance; None without convergence or where a coefficient is not held by the rows."""
    from scipy.optimize import root

    ridge = np.append(0.0, np.full(design.shape[1] - 1, _RIDGE))

    def chance(beta: Column) -> Column:
        return (1 + np.tanh(design @ beta / 2)) / 2

    def slope(beta: Column) -> Column:
        return design.T @ (chance(beta) - y) + ridge * beta

    def information(beta: Column) -> Column:
        p = chance(beta)
        return design.T @ (design * (p * (1 - p))[:, None]) + np.diag(ridge)

    beta = root(slope, np.zeros(design.shape[1]), jac=information, tol=1e-14).x
    curvature = information(beta)
    # Separable rows have no slope far out, and no information in some direction.
    if np.abs(slope(beta)).max() > _SLOPE or np.linalg.cond(curvature) > 1 / np.finfo(np.float64).eps:
        return None
    covariance: Column = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    return (beta, covariance) if np.diag(covariance).max() < _LOOSE**2 else None


def _logit(p_correct: ArrayLike) -> Column:
    p = np.clip(p_correct, _SURE, 1 - _SURE)
    return np.log(p / (1 - p))
