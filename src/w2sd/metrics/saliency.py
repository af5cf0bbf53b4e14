"""Is what is asked plain in a model's features? How well a linear probe predicts the truth, and how well weak labels.

A student imitates its supervisor's errors where they are as plain to it as the task (Burns et al. 2023, section 5).
Each probe is fitted to some clusters of rows and asked about the others, so neither can know a row by heart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.calibration import auroc
from w2sd.probes import logistic
from w2sd.probes.examples import Floats, examples, hardened

FOLDS = 5
L2 = 1e-3


def saliency(vectors: ArrayLike, truth: ArrayLike, weak: ArrayLike, clusters: Sequence[str]) -> dict[str, float | None]:
    """Accuracy and AUROC of cross-fitted probes: of the `truth` fitted to it, of the weak label fitted to that.

    `weak_on_truth` is what a probe of weak labels is worth on the truth. `truth` and `weak` are P(first) [n] of pairs
    or distributions [n, C] of items. None where the rows are too few or too much alike to ask.
    """
    columns = {"truth": np.asarray(truth, dtype=np.float64), "weak": np.asarray(weak, dtype=np.float64)}
    said = {name: cross_fitted(vectors, labels, clusters) for name, labels in columns.items()}
    figures: dict[str, float | None] = {}
    for name, (probe, asked) in {
        "truth": ("truth", "truth"),
        "weak": ("weak", "weak"),
        "weak_on_truth": ("weak", "truth"),
    }.items():
        p, labels = said[probe], columns[asked]
        figures[f"{name}/accuracy"] = None if p is None else agreement(p, labels)
        figures[f"{name}/auroc"] = None if p is None else ranking(p, labels)
    return figures


def cross_fitted(vectors: ArrayLike, labels: Floats, clusters: Sequence[str]) -> Floats | None:
    """What probes say of rows whose clusters they were not fitted to, [n, C]; None where that cannot be."""
    known, n = examples(vectors, labels), len(labels)
    fold = np.array([fold_of(cluster) for cluster in clusters])
    p = np.empty((n, known.labels.shape[1]))
    for held_out in np.unique(fold):
        rest = fold[known.of] != held_out
        seen = known._replace(vectors=known.vectors[rest], labels=known.labels[rest], of=known.of[rest])
        if len(np.unique(hardened(seen.labels)[hardened(seen.labels) >= 0])) < 2:
            return None
        asked = fold == held_out
        p[asked] = logistic.fit(seen, L2).predict(known.vectors[:n][asked])
    return p


def fold_of(cluster: str) -> int:
    """In which part of the rows a cluster is, whatever their order."""
    return int(hashlib.sha256(f"fold\x1f{cluster}".encode()).hexdigest(), 16) % FOLDS


def agreement(p: Floats, labels: Floats) -> float:
    """How often a probe prefers the class that the labels prefer, its ties half; rows that prefer none left out."""
    said, meant = hardened(p), hardened(_distributions(labels))
    asked = meant >= 0
    return float(np.where(said == meant, 1.0, np.where(said < 0, 0.5, 0.0))[asked].mean())


def ranking(p: Floats, labels: Floats) -> float | None:
    """The AUROC of each class against the others, ties half, in the mean; of two classes it is the same for both."""
    meant = hardened(_distributions(labels))
    asked = meant >= 0
    found = [auroc(meant[asked] == label, p[asked, label]) for label in range(p.shape[1])]
    whole = [value for value in found if value is not None]
    return float(np.mean(whole)) if whole else None


def _distributions(labels: Floats) -> Floats:
    return np.column_stack([labels, 1 - labels]) if labels.ndim == 1 else labels
