"""Saliency: probes that were not fitted to what they are asked, beside figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from w2sd.metrics.saliency import FOLDS, alike, auroc, cross_fitted, fold_of, ranking, saliency
from w2sd.supervision import probes
from w2sd.supervision.probes import examples

N = 200
CLUSTERS = [f"cluster {n // 2}" for n in range(N)]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2, 3))
TRUTH = (X[:, 1, 0] > X[:, 0, 0]).astype(int)


@pytest.mark.parametrize(("options", "texts"), [(2, 2), (2, 1), (3, 1)])
def test_every_row_is_asked_of_a_probe_that_knows_nothing_of_its_cluster(options: int, texts: int) -> None:
    x, labels = X[:, :texts], RNG.dirichlet(np.full(options, 0.5), N)
    p = cross_fitted(x, labels, CLUSTERS)
    assert p is not None
    fold = np.array([fold_of(cluster) for cluster in CLUSTERS])
    assert set(fold) == set(range(FOLDS))
    for out in range(FOLDS):
        fitted = probes.fit(examples(x[fold != out], labels[fold != out]), 1e-3)
        asked = x[fold == out, 0] - (x[fold == out, 1] if texts == 2 else 0)
        assert p[fold == out] == pytest.approx(fitted.predict(asked))


def test_what_is_plain_is_found_and_what_is_noise_is_not() -> None:
    noise = np.eye(2)[np.random.default_rng(1).integers(0, 2, N)]
    said = saliency(X, TRUTH, noise, CLUSTERS)
    assert said["truth/accuracy"] > 0.9  # type: ignore[operator]
    assert said["truth/auroc"] > 0.97  # type: ignore[operator]
    assert abs(said["weak/auroc"] - 0.5) < 0.15  # type: ignore[operator]
    copied = saliency(X, TRUTH, np.eye(2)[TRUTH], CLUSTERS)
    assert copied["weak/accuracy"] == copied["weak_on_truth/accuracy"] == copied["truth/accuracy"]


def test_the_order_of_the_rows_and_of_the_slots_is_nothing_to_saliency() -> None:
    first = np.clip(0.5 + 0.4 * np.tanh(X[:, 0, 1] - X[:, 1, 1]), 0, 1)
    weak = np.column_stack([first, 1 - first])
    said, order = saliency(X, TRUTH, weak, CLUSTERS), np.random.default_rng(2).permutation(N)
    again = saliency(X[order], TRUTH[order], weak[order], [CLUSTERS[n] for n in order])
    assert again == {name: pytest.approx(value, abs=1e-9) for name, value in said.items()}
    exchanged = saliency(X[:, ::-1], 1 - TRUTH, weak[:, ::-1], CLUSTERS)
    assert exchanged == {name: pytest.approx(value, abs=1e-9) for name, value in said.items()}


def test_ties_count_half_and_are_ranked_in_the_mean() -> None:
    """V36: scores that are all the same rank nothing, whatever the order of the rows."""
    undecided = np.full((4, 2), 0.5)
    for truth in ([0, 0, 1, 1], [1, 1, 0, 0]):
        assert ranking(undecided, np.eye(2)[truth]) == 0.5
        assert alike(undecided, np.eye(2)[truth]) == 0.5
    first = np.array([0.9, 0.8, 0.7, 0.1])
    p, labels = np.column_stack([first, 1 - first]), np.eye(2)[[0, 1, 0, 1]]
    assert ranking(p, labels) == auroc(labels[:, 0], first) == 0.75
    assert alike(p, labels) == 0.75
    labels[1] = 0.5  # which prefers nothing
    assert alike(p, labels) == 1.0


def test_of_several_classes_each_is_ranked_against_the_others() -> None:
    p, labels = RNG.dirichlet(np.ones(3), N), np.eye(3)[RNG.integers(0, 3, N)]
    assert ranking(p, labels) == pytest.approx(np.mean([auroc(labels[:, c], p[:, c]) for c in range(3)]))  # type: ignore[misc]
    assert ranking(p[:1], labels[:1]) is None


def test_items_of_one_class_are_not_asked_about() -> None:
    assert set(saliency(X[:, :1], np.zeros(N, int), np.tile([1.0, 0.0], (N, 1)), CLUSTERS).values()) == {None}


V36 = [
    ([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 0.75),
    ([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], 0.5),  # all tied: the order of rows must not matter
    ([0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
]


@pytest.mark.parametrize(("labels", "scores", "expected"), V36)
def test_auroc_reference_vectors(labels: list[int], scores: list[float], expected: float) -> None:
    assert auroc(labels, scores) == pytest.approx(expected, abs=1e-9)


def test_auroc_is_the_chance_of_being_ranked_above() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.random(80) < 0.4, rng.integers(0, 12, size=80)
    above, below = scores[labels][:, None], scores[~labels]
    assert auroc(labels, scores) == pytest.approx(((above > below) + (above == below) / 2).mean(), abs=1e-12)
    assert auroc(labels, -scores) == pytest.approx(1 - (auroc(labels, scores) or 0), abs=1e-12)


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_one_kind_of_rows_has_no_auroc(labels: list[int]) -> None:
    assert auroc(labels, [0.5] * len(labels)) is None
