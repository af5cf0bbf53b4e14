"""Supervision that asks a probe: which rows it acts on, what it must not depend on, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.builders import refused

from w2sd.supervision import probes
from w2sd.supervision.base import Lesson
from w2sd.supervision.cleaning import Filtered, Relabelled
from w2sd.supervision.probes import examples

KINDS = ("knn", "logistic", "topological")
PROBED = {f"{cls.__name__}, {probe}": cls(probe, share=0.25) for cls in (Filtered, Relabelled) for probe in KINDS}
ORDERED = {name: one for name, one in PROBED.items() if one.probe != "topological"}
N = 200


def each(supervisions: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("supervision", supervisions.values(), ids=supervisions)


def lesson(options: int = 2, texts: int = 2, seed: int = 0) -> Lesson:
    """Rows about which teacher and features have nothing in common: pairs, unless asked for otherwise."""
    rng = np.random.default_rng(seed)
    p_NK = rng.dirichlet(np.full(options, 0.5), size=N)
    return Lesson(p_NK, rng.permutation(N) / N, features_NAD=rng.normal(size=(N, texts, 3)))


def alike(one: Any, other: Any) -> bool:
    """The same, but for the order of sums."""
    return np.allclose(one, other, rtol=0, atol=1e-7, equal_nan=True)


def mistaught(n: int = 300) -> tuple[Lesson, NDArray[np.bool_], NDArray[np.int64]]:
    """Pairs whose features show the better answer, and a teacher who is wrong on a tenth of them, as sure as ever."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 2, 4))
    right = rng.integers(0, 2, n)
    x[np.arange(n), right, 0] += 5
    wrong = rng.random(n) < 0.1
    p_N2 = 0.2 + 0.6 * np.eye(2)[right ^ wrong]
    return Lesson(p_N2, rng.permutation(n) / n, features_NAD=x), wrong, right


@pytest.mark.parametrize("probe", KINDS)
def test_where_features_are_plain_the_teachers_errors_are_found(probe: str) -> None:
    told, wrong, right = mistaught()
    dropped = np.isnan(Filtered(probe, share=wrong.mean()).targets(told)[:, 0])
    if probe != "topological":  # which leaves out what hangs together with little as well
        assert dropped.sum() == int(wrong.mean() * len(wrong))
    assert (dropped & wrong).sum() > 0.9 * wrong.sum()
    assert (Relabelled(probe).targets(told).argmax(axis=1) == right).mean() > 0.99


@each(ORDERED)
def test_a_probe_acts_on_the_share_that_it_is_asked_for(supervision: Any) -> None:
    """The quarter that is farthest from it."""
    told = lesson()
    targets = supervision.targets(told)
    acted_on = (targets != told.p_NK).all(axis=1)
    assert acted_on.sum() == N // 4
    assert (targets == told.p_NK).all(axis=1).sum() == N - N // 4
    assert np.isnan(targets).any() == isinstance(supervision, Filtered)
    distance = np.abs(supervision.opinion(told) - told.p_NK).sum(axis=1)
    assert distance[acted_on].min() >= distance[~acted_on].max()


@pytest.mark.parametrize("texts", [1, 2], ids=["items", "pairs"])
def test_the_probe_that_is_named_is_asked_with_the_knobs_that_are_its_own(texts: int) -> None:
    told = lesson(texts=texts)
    known = examples(told.features_NAD, told.p_NK)  # type: ignore[arg-type]
    opinions = {
        "knn": probes.knn(known, 7),
        "logistic": probes.fit(known, 0.5).predict(known.vectors),
        "topological": probes.knn(known, 7, probes.keep(known, 7, 0.0)),
    }
    for probe, expected in opinions.items():
        assert np.array_equal(Relabelled(probe, k=7, l2=0.5).opinion(told), expected[:N])
    left_out = np.isnan(Filtered("topological", share=0.3, k=7).targets(told)[:, 0])
    assert np.array_equal(left_out, ~probes.keep(known, 7, 0.3)[:N])


def test_of_rows_equally_far_from_the_probe_the_noise_decides() -> None:
    told = lesson()
    assert np.array_equal(Filtered(share=0.25).suspects(told, told.p_NK), told.noise < 0.25)


@each(PROBED)
@pytest.mark.parametrize(("options", "texts"), [(2, 2), (2, 1), (3, 1)], ids=["pairs", "two classes", "three"])
def test_targets_are_distributions_or_nothing(supervision: Any, options: int, texts: int) -> None:
    told = lesson(options, texts)
    targets = supervision.targets(told)
    assert targets.shape == told.p_NK.shape
    left_out = np.isnan(targets).all(axis=1)
    assert 0 <= targets[~left_out].min() <= targets[~left_out].max() <= 1
    assert targets[~left_out].sum(axis=1) == pytest.approx(1)
    assert left_out.any() == isinstance(supervision, Filtered)


@each(PROBED)
def test_swapping_the_slots_of_some_pairs_swaps_their_targets(supervision: Any) -> None:
    told = lesson()
    heads = (np.random.default_rng(1).random(N) < 0.5)[:, None]
    other = told._replace(
        p_NK=np.where(heads, told.p_NK[:, ::-1], told.p_NK),
        features_NAD=np.where(heads[:, None], told.features_NAD[:, ::-1], told.features_NAD),  # type: ignore[index]
    )
    targets = supervision.targets(told)
    assert alike(supervision.targets(other), np.where(heads, targets[:, ::-1], targets))


@each(PROBED)
def test_names_of_classes_and_order_of_rows_are_nothing_to_a_probe(supervision: Any) -> None:
    told, order, turn = lesson(3, 1), np.random.default_rng(1).permutation(N), [2, 0, 1]
    targets = supervision.targets(told)
    other = Lesson(told.p_NK[order][:, turn], told.noise[order], features_NAD=told.features_NAD[order])  # type: ignore[index]
    assert alike(supervision.targets(other), targets[order][:, turn])


@each(PROBED)
def test_the_same_lesson_gives_the_same_targets_and_is_left_as_it_is(supervision: Any) -> None:
    told, untouched = lesson(), lesson()
    first = supervision.targets(told)
    for column in (told.p_NK, told.noise, told.features_NAD):
        column.setflags(write=False)  # type: ignore[union-attr]
    assert np.array_equal(supervision.targets(told), first, equal_nan=True)
    assert np.array_equal(told.p_NK, untouched.p_NK)


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        ({"probe": "kn"}, ("probe", "kn", "knn logistic topological", "knn")),
        ({"layer": "first"}, ("layer", "first", "last middle")),
        ({"share": 0.0}, ("share", 0.0, "(0 1]")),
        ({"k": 0}, ("k", 0, "1")),
        ({"l2": 0.0}, ("l2", 0.0, "0")),
    ],
)
@pytest.mark.parametrize("cls", [Filtered, Relabelled])
def test_a_knob_that_means_nothing_is_refused(cls: Any, knobs: dict[str, Any], refusal: tuple[Any, ...]) -> None:
    with refused(*refusal):
        cls(**knobs)


def test_all_rows_can_be_relabelled_and_never_be_left_out() -> None:
    assert Relabelled(share=1.0).share == 1
    with refused("share", 1.0, "0 1"):
        Filtered(share=1.0)
