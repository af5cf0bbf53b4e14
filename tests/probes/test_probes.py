"""Probes: what they promise against the same by brute force, what they must not depend on, and what they refuse."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from tests.builders import refused

from w2sd.errors import Refused, StageFailed
from w2sd.supervision import probes
from w2sd.supervision.probes import Examples, Floats, examples, preferred_class


def items(n: int = 120, classes: int = 3, width: int = 4, seed: int = 0) -> Examples:
    """Clouds around a centre for each class, under labels that are right more often than not."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    x = 2 * np.eye(max(classes, width))[true, :width] + rng.normal(size=(n, width))
    said = np.where(rng.random(n) < 0.75, true, rng.integers(0, classes, n))
    return examples(x[:, None], 0.7 * np.eye(classes)[said] + 0.3 * rng.dirichlet(np.ones(classes), n))


def pairs(n: int = 80, width: int = 4, seed: int = 0) -> tuple[Floats, Floats]:
    """States of both answers, and how likely each is to be the better one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2, width))
    p = 1 / (1 + np.exp(x[:, 1, 0] - x[:, 0, 0] - rng.normal(size=n)))
    return x, np.column_stack([p, 1 - p])


def taken(known: Examples, rows: np.ndarray) -> Examples:
    return Examples(*(column[rows] for column in known))


PROBES = {
    "knn": lambda known: probes.knn(known, 10),
    "logistic": lambda known: probes.fit(known, 1e-2).predict(known.vectors),
    "topological": lambda known: probes.keep(known, 10, 0.1).astype(float),
}
each_probe = pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)


# --- what each one promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [items(), examples(*pairs())], ids=["items", "pairs"])
@pytest.mark.parametrize("block", [1, 10**6])
def test_knn_is_the_mean_label_of_the_nearest_others(
    known: Examples, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "BLOCK", block)
    p = probes.knn(known, 7)
    for i, x in enumerate(known.vectors):
        others = [j for j in range(len(p)) if known.of[j] != known.of[i]]
        nearest = sorted(others, key=lambda j: float(np.linalg.norm(x - known.vectors[j])))[:7]
        assert probes.neighbours(known, 7)[i].tolist() == nearest
        assert p[i] == pytest.approx(known.labels[nearest].mean(axis=0), abs=1e-12)


def test_only_voters_vote() -> None:
    known = items()
    voters = np.arange(120) % 3 == 0
    assert voters[probes.neighbours(known, 20, voters)].all()
    assert (probes.knn(known, 20, np.ones(120, dtype=bool)) == probes.knn(known, 20)).all()


@pytest.mark.parametrize("l2", [1e-3, 1.0])
@pytest.mark.parametrize(
    "known",
    [items(), items(classes=2), items(n=30, width=60), items(n=60, classes=50), examples(*pairs())],
    ids=["3", "2", "wide", "many", "pairs"],
)
def test_logistic_regression_is_at_its_optimum(known: Examples, l2: float) -> None:
    """The loss is convex: there is one point without a gradient, and that is autograd's word here."""
    fitted = probes.fit(known, l2)
    weights, bias = (torch.from_numpy(part).requires_grad_() for part in fitted)
    x, q = torch.from_numpy(known.vectors), torch.from_numpy(known.labels)
    loss = -(q * (x @ weights + bias).log_softmax(dim=1)).sum(dim=1).mean() + l2 / 2 * weights.square().sum()
    loss.backward()
    assert max(float(part.grad.abs().max()) for part in (weights, bias)) < 1e-7  # type: ignore[union-attr]
    assert fitted.predict(known.vectors) == pytest.approx((x @ weights + bias).softmax(dim=1).detach().numpy())


def test_logistic_regression_bears_features_of_very_different_sizes() -> None:
    known = items()
    sizes = np.array([1e-3, 1.0, 30.0, 1e3])
    fitted = probes.fit(known._replace(vectors=known.vectors * sizes), 1e-3)
    p = fitted.predict(known.vectors * sizes)
    gradient = (known.vectors * sizes).T @ (p - known.labels) / 120 + 1e-3 * fitted.weights
    assert np.abs(gradient / sizes[:, None]).max() < 1e-5


def test_logistic_regression_arrives_where_whole_steps_go_too_far() -> None:
    x, y = np.array([[0.0, -1.0], [-2.0, 4.0], [1.0, 0.0], [1.0, -10.0]]), np.eye(2)[[0, 0, 1, 0]]
    fitted = probes.fit(examples(x[:, None], y), 1e-4)
    assert np.abs(x.T @ (fitted.predict(x) - y) / 4 + 1e-4 * fitted.weights).max() < 1e-9


def test_classes_without_a_row_change_nothing() -> None:
    known, columns = items(), [1, 4, 5]
    labels = np.zeros((120, 7))
    labels[:, columns] = known.labels
    p = probes.fit(known._replace(labels=labels), 1e-3).predict(known.vectors)
    assert (p[:, columns] == probes.fit(known, 1e-3).predict(known.vectors)).all()
    assert (np.delete(p, columns, axis=1) == 0).all()


def test_labels_in_single_precision_are_fitted_like_others() -> None:
    known = items()
    rounded = known._replace(labels=known.labels.astype(np.float32).astype(np.float64))
    p = probes.fit(rounded, 1e-3).predict(known.vectors)
    assert p == pytest.approx(probes.fit(known, 1e-3).predict(known.vectors), abs=1e-6)


def test_many_classes_of_very_different_shares_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, applied, near = np.random.default_rng(0), [], probes._near
    x = rng.normal(size=(150, 5)) * [0.1, 1, 1, 3, 10]
    z = x @ rng.normal(size=(5, 300)) / 5 - np.linspace(0, 20, 300)
    labels = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    def counted(*parts: Floats) -> probes.Map:
        found = near(*parts)
        return lambda g: applied.append(1) or found(g)  # type: ignore[func-returns-value]

    monkeypatch.setattr(probes, "_near", counted)
    fitted = probes.fit(examples(x[:, None], labels), 1e-3)
    assert np.abs(x.T @ (fitted.predict(x) - labels) / 150 + 1e-3 * fitted.weights).max() < 1e-7
    assert len(applied) < 400


def test_logistic_regression_that_does_not_arrive_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "STEPS", 1)
    with pytest.raises(StageFailed, match=r"\b1\b.*\b0\.001\b"):
        probes.fit(items(), 1e-3)


def by_hand(known: Examples, k: int, share: float) -> list[bool]:
    """The topological filter, one row at a time."""
    near, label = probes.neighbours(known, k).tolist(), preferred_class(known.labels).tolist()
    linked: dict[int, set[int]] = {i: set() for i in range(len(near))}
    for i, row in enumerate(near):
        for j in row:
            if label[i] == label[j] >= 0:
                linked[i].add(j)
                linked[j].add(i)
    kept = [False] * len(near)
    for one in sorted({c for c in label if c >= 0}):
        left, pieces = {i for i in linked if label[i] == one}, []
        while left:
            piece, edge = set(), [min(left)]
            while edge:
                if (i := edge.pop()) not in piece:
                    piece.add(i)
                    edge += linked[i]
            left -= piece
            pieces.append(piece)
        for i in max(pieces, key=len):
            kept[i] = True
    n_more = max(0, round(share * len(kept)) - kept.count(False))
    inside = Examples(known.vectors[kept], known.labels[kept], known.of[kept])
    if n_more:
        means = [inside.labels[near].mean(axis=0) for near in probes.neighbours(inside, k)]
        far = np.abs(inside.labels - means).sum(axis=1)
        for i in sorted(range(len(far)), key=lambda i: (-far[i], i))[:n_more]:
            kept[int(inside.of[i])] = False
    return kept


@pytest.mark.parametrize("k", [1, 2, 4, 12])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_the_topological_filter_keeps_the_largest_pieces_but_for_labels_that_stand_out(
    k: int, seed: int, share: float
) -> None:
    known = items(seed=seed)
    kept = probes.keep(known, k, share)
    assert kept.tolist() == by_hand(known, k, share)
    assert 0 < kept.sum() < 120
    assert (~kept).sum() >= round(share * 120)


def test_the_topological_filter_leaves_out_a_share_of_pairs_and_both_copies_of_each() -> None:
    kept = probes.keep(examples(*pairs()), 10, 0.13)
    assert (kept[:80] == kept[80:]).all()
    assert kept[:80].sum() == 70


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_topological_filter_keeps_both_copies_of_a_pair_or_none_where_pieces_are_equally_large(k: int) -> None:
    rng = np.random.default_rng(k)
    for share in (0.0, 0.3):
        for n in range(8, 20):
            states, sure = rng.normal(size=(n, 2, 2)), np.eye(2)[rng.integers(0, 2, n)]
            with suppress(Refused):  # where too few are left to be asked
                kept = probes.keep(examples(states, sure), k, share)
                assert (kept[:n] == kept[n:]).all()


def test_the_topological_filter_finds_wrong_labels_that_hang_together() -> None:
    """Four wrong ones in a row are a piece with the class that they claim; their neighbours' labels tell on them."""
    x = np.linspace(0, 1, 60)
    right = (x > 0.5).astype(float)
    said = right.copy()
    said[[8, 9, 22, 23]] = 1
    known = Examples(x[:, None], np.stack([1 - said, said], axis=1), np.arange(60))
    kept = probes.keep(known, 24, 0.1)
    assert (~kept).sum() == 6
    assert not kept[[8, 9, 22, 23]].any()
    assert probes.keep(known, 24, 0.0)[[8, 9, 22, 23]].any()


def test_a_label_that_prefers_no_class_belongs_to_none() -> None:
    known = items()
    known.labels[:5] = 1 / 3
    assert not probes.keep(known, 10, 0.0)[:5].any()
    assert preferred_class(known.labels)[:5].tolist() == [-1] * 5


# --- what they must not depend on -------------------------------------------------------------------------------------


@each_probe
def test_the_order_of_the_rows_is_nothing_to_a_probe(probe) -> None:  # type: ignore[no-untyped-def]
    known, order = items(), np.random.default_rng(1).permutation(120)
    assert probe(taken(known, order)) == pytest.approx(probe(known)[order], abs=1e-7)


@each_probe
def test_a_rotation_of_the_features_is_nothing_to_a_probe(probe) -> None:  # type: ignore[no-untyped-def]
    known = items()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    assert probe(known._replace(vectors=known.vectors @ turn)) == pytest.approx(probe(known), abs=1e-7)


@each_probe
def test_a_pair_with_its_answers_exchanged_is_the_same_pair(probe) -> None:  # type: ignore[no-untyped-def]
    """Whichever answers a coin puts first: where it does, P(first) is what P(second) was."""
    (x, y), n = pairs(), 80
    said = probe(examples(x, y))
    heads = np.random.default_rng(2).random(n) < 0.5
    exchanged = np.where(heads[:, None, None], x[:, ::-1], x), np.where(heads[:, None], y[:, ::-1], y)
    again = probe(examples(*exchanged))[:n]
    if said.ndim == 1:
        assert (again == said[:n]).all()
    else:
        assert again[:, 0] == pytest.approx(np.where(heads, said[:n, 1], said[:n, 0]), abs=1e-7)
        assert said[n:] == pytest.approx(said[:n, ::-1], abs=1e-7)


def test_no_example_has_a_say_about_itself() -> None:
    """Neither as it is nor with its answers exchanged, however near that lies."""
    x, y = pairs()
    x[0, 0], x[0, 1], y[0] = 0.0, 1e-6, (1.0, 0.0)
    said = probes.knn(examples(x, y), 10)[0]
    y[0] = 0.0, 1.0
    assert (probes.knn(examples(x, y), 10)[0] == said).all()


# --- what they refuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [120, 500])
@pytest.mark.parametrize("probe", [lambda known, k: probes.knn(known, k), lambda known, k: probes.keep(known, k, 0.1)])
def test_more_neighbours_than_examples_are_refused(probe, k: int) -> None:  # type: ignore[no-untyped-def]
    with refused("k", k, "1 119 120"):
        probe(items(), k)
    probe(items(), 119)


def test_more_neighbours_than_voters_are_refused() -> None:
    with refused("k", 12, "1 11"):
        probes.knn(items(), 12, np.arange(120) < 12)
    known = examples(*pairs())  # each of them twice, and neither votes about the other
    with refused("k", 5, "1 4"):
        probes.knn(known, 5, known.of < 3)


@each_probe
def test_labels_of_one_class_are_refused(probe) -> None:  # type: ignore[no-untyped-def]
    known = items()
    known.labels[:] = [0.2, 0.7, 0.1]
    if probe is PROBES["knn"]:
        assert probe(known) == pytest.approx(known.labels)  # which says nothing, but says it
        return
    with refused("probe"):
        probe(known)


def test_features_without_value_are_an_error() -> None:
    x, y = pairs()
    with pytest.raises(ValueError, match="some for each of 80 labels, got the shape"):
        examples(x[:, 0], y)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="states: expected finite numbers"):
        examples(x, y)
