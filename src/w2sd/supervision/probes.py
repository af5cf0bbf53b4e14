"""Classifiers on features: the k nearest neighbours, the largest connected piece of each class, logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax, softmax

from w2sd.errors import Refused, StageFailed, require

Floats = NDArray[np.float64]


class Examples(NamedTuple):
    """Vectors and labels; rows of one number in `of` are one example, and have no say about each other."""

    vectors: Floats  # [n, D]
    labels: Floats  # [n, C] distributions over classes
    of: NDArray[np.int64]  # [n]


def examples(states_NAD: ArrayLike, labels_NK: ArrayLike) -> Examples:
    """Items, which have one state each; or pairs, which have two in slot order, as their difference and its mirror.

    >>> pair = examples([[[3.0, 2.0], [1.0, 2.0]]], [[0.75, 0.25]])
    >>> pair.vectors.tolist(), pair.labels.tolist()
    ([[2.0, 0.0], [-2.0, -0.0]], [[0.75, 0.25], [0.25, 0.75]])
    """
    states, labels = np.asarray(states_NAD, dtype=np.float64), np.asarray(labels_NK, dtype=np.float64)
    if states.ndim != 3 or len(states) != len(labels):
        raise ValueError(f"states: expected some for each of {len(labels)} labels, got the shape {states.shape}")
    if not np.isfinite(states).all():
        raise ValueError("states: expected finite numbers")
    of = np.arange(len(states))
    if states.shape[1] == 1:
        return Examples(states[:, 0], labels, of)
    x = states[:, 0] - states[:, 1]
    return Examples(np.concatenate([x, -x]), np.concatenate([labels, labels[:, ::-1]]), np.concatenate([of, of]))


def preferred_class(labels: Floats) -> NDArray[np.int64]:
    """The class that each label prefers; −1 where two are exactly as likely."""
    best = labels == labels.max(axis=1, keepdims=True)
    return np.where(best.sum(axis=1) == 1, best.argmax(axis=1), -1)


def require_two_classes(known: Examples) -> None:
    """Refuse labels that say the same of every example."""
    preferred = set(preferred_class(known.labels).tolist()) - {-1}
    if len(preferred) < 2:
        labels = f"labels that all prefer class {preferred.pop()}" if preferred else "labels that prefer no class"
        raise Refused("probe", labels, "labels that prefer two classes or more")


BLOCK = 2**23  # distances at a time: 64 MB


def knn(known: Examples, k: int, voters: NDArray[np.bool_] | None = None) -> Floats:
    """P(class) of each row, [n, C]: the mean label of its k nearest neighbours, among the `voters` if not all are."""
    return known.labels[neighbours(known, k, voters)].mean(axis=1)


def neighbours(known: Examples, k: int, voters: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The k nearest rows of other examples, for each row, [n, k] from near to far."""
    n = len(np.unique(known.of))
    require(0 < k < n, "k", k, f"a number of neighbours from 1 to {n - 1}, of {n} examples")
    barred = np.zeros(len(known.of), dtype=bool) if voters is None else ~voters
    others = int((~barred).sum()) - int(np.bincount(known.of[~barred]).max(initial=0))
    require(k <= others, "k", k, f"a number of neighbours from 1 to {others}: that many are left to ask")
    near = np.empty((len(known.of), k), dtype=np.int64)
    squares = (known.vectors**2).sum(axis=1)
    step = max(1, BLOCK // max(1, len(near)))
    for rows in np.split(np.arange(len(near)), range(step, len(near), step)):
        distances = squares[rows, None] + squares - 2 * known.vectors[rows] @ known.vectors.T
        distances[:, barred] = np.inf
        distances[known.of[rows, None] == known.of] = np.inf
        few = np.argpartition(distances, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(distances, few, axis=1), axis=1, kind="stable")
        near[rows] = np.take_along_axis(few, order, axis=1)
    return near


def keep(known: Examples, k: int, share: float) -> NDArray[np.bool_]:
    """Which rows are in the largest piece of their class; if fewer than `share` of all are not, less some more.

    Two rows of one class are linked if either is among the other's k nearest rows; a row of no class is not kept. What
    goes beyond that are rows whose labels are farthest from the mean label of the k nearest that are kept.
    """
    require_two_classes(known)
    kept = _in_largest_piece(known, k)
    kept &= ~np.isin(known.of, known.of[~kept])  # a pair is kept with its mirror, also where pieces are equally large
    n, copies = known.of.max() + 1, np.bincount(known.of)[0]
    n_more = copies * round(share * n) - int((~kept).sum())
    if n_more > 0:
        far = np.abs(known.labels - knn(known, k, kept)).sum(axis=1)
        kept[np.lexsort((known.of, -np.where(kept, far, -1)))[:n_more]] = False
    return kept


def _in_largest_piece(known: Examples, k: int) -> NDArray[np.bool_]:
    of_class, near = preferred_class(known.labels), neighbours(known, k)
    piece = _pieces(near, of_class[near] == of_class[:, None])
    kept = np.zeros(len(of_class), dtype=bool)
    for label in np.unique(of_class[of_class >= 0]):
        members = of_class == label
        names, sizes = np.unique(piece[members], return_counts=True)
        kept |= members & (piece == names[sizes.argmax()])
    return kept


def _pieces(near: NDArray[np.int64], linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the piece of each row, in the order of the pieces' first rows."""
    rows, columns = np.nonzero(linked)
    graph = coo_array((np.ones(len(rows)), (rows, near[rows, columns])), shape=(len(near), len(near)))
    piece: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return piece


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
        p: Floats = softmax(vectors @ self.weights + self.bias, axis=1)
        return p


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
        p = softmax(x @ w, axis=1)
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
    return float(-(q * log_softmax(x @ w, axis=1)).sum() / len(x) + (penalty * w**2).sum() / 2)
