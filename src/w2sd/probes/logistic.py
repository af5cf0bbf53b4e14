"""What a linear classifier says: logistic regression on labels that may be soft, with a penalty on its weights.

    minimise  −(1/n) Σ_i Σ_c q_ic log softmax(x_i W + b)_c + (λ/2) |W|²

It is convex, so Newton's method ends at the one optimum from wherever it begins, with no seed and no learning rate.
A class that no label gives any weight has its optimum at a bias of −∞, and takes no part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from w2sd.errors import StageFailed
from w2sd.probes.examples import Examples, Floats, require_two_classes

TOLERANCE = 1e-9  # of the gradient, beside where it began
ENOUGH = 1e-4  # the same, where rounding lets it come no further
STEPS = 100
Map = Callable[[Floats], Floats]


class Linear(NamedTuple):
    """A fitted classifier."""

    weights: Floats  # [D, C]
    bias: Floats  # [C]

    def predict(self, vectors: Floats) -> Floats:
        """P(class), [n, C]."""
        return _softmax(vectors @ self.weights + self.bias)


def fit(known: Examples, l2: float) -> Linear:
    """The optimum for these labels; without a penalty there may be none, so it has to be above 0."""
    require_two_classes(known)
    if not l2 > 0:
        raise ValueError(f"l2: expected a penalty above 0, got {l2}")
    overall: Floats = known.labels.sum(axis=0)
    occurs = overall > 0
    labels = known.labels[:, occurs]
    labels = labels / labels.sum(axis=1, keepdims=True)  # in single precision they sum to 1 nearly, steps to 0 exactly
    shares = labels.mean(axis=0)
    x = np.column_stack([known.vectors, np.ones(len(known.vectors))])
    penalty = np.append(np.full(known.vectors.shape[1], l2), 0.0)[:, None]  # of weights, not of the bias
    w = np.zeros((x.shape[1], len(shares)))
    w[-1] = np.log(shares)  # the optimum of vectors that tell nothing
    near = _near(x, penalty, shares)
    first = size = 0.0
    for _ in range(STEPS):
        p = _softmax(x @ w)
        gradient = x.T @ (p - labels) / len(x) + penalty * w
        size = float(np.sqrt(max((gradient * near(gradient)).sum(), 0.0)))  # below 0 by rounding alone
        first = first or size
        if size <= TOLERANCE * first:
            break
        step = _newton(x, p, penalty, gradient, near, min(0.1, size / first))
        w = _descend(x, labels, penalty, w, step, float((gradient * step).sum()))
    else:
        if size > ENOUGH * first:
            raise StageFailed(f"a logistic probe has not converged in {STEPS} steps; its penalty {l2:g} is too small")
    weights, bias = np.zeros((len(w) - 1, len(occurs))), np.full(len(occurs), -np.inf)
    weights[:, occurs], bias[occurs] = w[:-1], w[-1]
    return Linear(weights, bias)


def _near(x: Floats, penalty: Floats, shares: Floats) -> Map:
    """Nearly the inverse of the Hessian: features differ in size and go together, and classes differ in share.

    Where every row's probabilities are the shares s, the Hessian is (diag s − s sᵀ) ⊗ xᵀx / n + the penalty. One change
    of basis makes xᵀx / n and the penalty diagonal, and steps that sum to 0 over classes have no use for s sᵀ.
    """
    common = x.T @ x / len(x)
    white = np.linalg.inv(np.linalg.cholesky(common + np.diagflat(penalty + 1e-12 * (x**2).mean())))
    seen, turn = np.linalg.eigh(white @ common @ white.T)  # from 0, all penalty, to 1, none
    basis, seen = white.T @ turn, seen.clip(0, 1)[:, None]
    size = shares * seen + (1 - seen)

    def near(g: Floats) -> Floats:
        step = basis @ ((basis.T @ g) / size)
        return step - step.mean(axis=1, keepdims=True)

    return near


def _newton(x: Floats, p: Floats, penalty: Floats, gradient: Floats, near: Map, accuracy: float) -> Floats:
    """The step H⁻¹(−g) by conjugate gradients: the Hessian is multiplied by, and never written down."""
    step, rest = np.zeros_like(gradient), -gradient
    along = ready = near(rest)
    left = goal = float((rest * ready).sum())
    for _ in range(4 * gradient.size):
        change = x @ along
        change = p * (change - (p * change).sum(axis=1, keepdims=True))
        bent = x.T @ change / len(x) + penalty * along
        curvature = float((along * bent).sum())
        if curvature <= 0:  # but for rounding the bias of all classes at once has none
            break
        step, rest = step + left / curvature * along, rest - left / curvature * bent
        ready = near(rest)
        before, left = left, float((rest * ready).sum())
        if left <= accuracy**2 * goal:
            break
        along = ready + left / before * along
    return step


def _descend(x: Floats, q: Floats, penalty: Floats, w: Floats, step: Floats, slope: float) -> Floats:
    """As far along a step as the loss falls enough (Armijo 1966)."""
    begin, share = _loss(x, q, penalty, w), 1.0
    begin += 1e-14 * abs(begin)  # what is lost to rounding near the end
    while share > 1e-9 and _loss(x, q, penalty, w + share * step) > begin + 1e-4 * share * slope:
        share /= 2
    return w + share * step


def _loss(x: Floats, q: Floats, penalty: Floats, w: Floats) -> float:
    z = x @ w
    most = z.max(axis=1, keepdims=True)
    log_p = z - most - np.log(np.exp(z - most).sum(axis=1, keepdims=True))
    return float(-(q * log_p).sum() / len(x) + (penalty * w**2).sum() / 2)


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
