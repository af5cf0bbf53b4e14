"""Is what is asked plain in a model's features? How well a linear probe predicts the truth, and how well weak labels.

A student imitates its supervisor's errors where they are as plain to it as the task (Burns et al. 2023, section 5).
Each probe is fitted to some clusters of rows and asked about the others, so neither can know a row by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from w2sd.identity import digest
from w2sd.supervision import probes
from w2sd.supervision.probes import Examples, Floats, examples, preferred_class

# What a probe is fitted to, and what it is compared with.
FIGURES = {"truth": ("truth", "truth"), "weak": ("weak", "weak"), "weak_on_truth": ("weak", "truth")}
FOLDS = 5
L2 = 1e-3


def saliency(
    states_NAD: ArrayLike, truth: ArrayLike, weak_NK: ArrayLike, clusters: Sequence[str]
) -> dict[str, float | None]:
    """Accuracy and AUROC of cross-fitted probes: of the `truth` fitted to it, of the weak label fitted to that.

    `weak_on_truth` is what a probe of weak labels is worth on the truth. `truth` [n] are the options that are right,
    `weak_NK` what a weak model thinks of each. None where the rows are too few or too much alike to ask.
    """
    weak = np.asarray(weak_NK, dtype=np.float64)
    columns = {"truth": np.eye(weak.shape[1])[np.asarray(truth)], "weak": weak}
    fitted = {name: cross_fitted(states_NAD, labels, clusters) for name, labels in columns.items()}
    figures: dict[str, float | None] = {}
    for name, (probe, compared) in FIGURES.items():
        p, labels = fitted[probe], columns[compared]
        figures[f"{name}/accuracy"] = None if p is None else alike(p, labels)
        figures[f"{name}/auroc"] = None if p is None else ranking(p, labels)
    return figures


def cross_fitted(states_NAD: ArrayLike, labels_NK: Floats, clusters: Sequence[str]) -> Floats | None:
    """What probes say of rows whose clusters they were not fitted to, [n, K]; None where that cannot be."""
    known, n = examples(states_NAD, labels_NK), len(labels_NK)
    fold = np.array([fold_of(cluster) for cluster in clusters])
    p = np.empty_like(labels_NK)
    for held_out in np.unique(fold):
        rest, rows = fold[known.of] != held_out, fold == held_out
        seen = Examples(known.vectors[rest], known.labels[rest], known.of[rest])
        if len(set(preferred_class(seen.labels).tolist()) - {-1}) < 2:
            return None
        p[rows] = probes.fit(seen, L2).predict(known.vectors[:n][rows])
    return p


def fold_of(cluster: str) -> int:
    """In which part of the rows a cluster is, whatever their order."""
    return int(digest("fold", cluster), 16) % FOLDS


def alike(p_NK: Floats, labels_NK: Floats) -> float:
    """How often a probe prefers the option that the labels prefer, its ties half; rows that prefer none left out."""
    preferred, label = preferred_class(p_NK), preferred_class(labels_NK)
    right = np.where(preferred == label, 1.0, np.where(preferred < 0, 0.5, 0.0))
    return float(right[label >= 0].mean())


def ranking(p_NK: Floats, labels_NK: Floats) -> float | None:
    """The AUROC of each option against the others, ties half, in the mean; of two options it is the same for both."""
    label = preferred_class(labels_NK)
    rows = label >= 0
    each = (auroc(label[rows] == option, p_NK[rows, option]) for option in range(p_NK.shape[1]))
    defined = [value for value in each if value is not None]
    return float(np.mean(defined)) if defined else None


def auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The chance that a positive row scores above a negative one, ties half; None if all rows are of one kind.

    (sum of the ranks of positives - n1 (n1 + 1) / 2) / (n1 n0), with average ranks (Mann & Whitney 1947).

    >>> auroc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    0.75
    """
    from scipy.stats import rankdata

    positive, ranks = np.asarray(labels, dtype=np.bool_), rankdata(scores)
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    return (float(ranks[positive].sum()) - n1 * (n1 + 1) / 2) / (n1 * n0) if n1 and n0 else None
