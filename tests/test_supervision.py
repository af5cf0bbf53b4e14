"""How confidence becomes a target: without a word about which slot holds the truth, except where that is the point."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.errors import Refused
from w2sd.probes.supervised import Filtered, Relabelled
from w2sd.supervision import Confident, Gold, Hard, Lesson, NoisyGold, OracleConfident, Soft, Supervision, Synthetic

Floats = NDArray[np.float64]

OPTIONS: dict[str, Supervision] = {
    path.stem: build(OmegaConf.to_container(OmegaConf.load(path)), "supervision")
    for path in sorted(Path(CONF, "supervision").glob("*.yaml"))
}
KINDS = ("longest", "shortest", "hardest", "easiest")
PROBED = {
    f"{cls.__name__.lower()}, {probe}": cls(probe, share=0.25)
    for cls in (Filtered, Relabelled)
    for probe in ("knn", "logistic", "topological")
}
EVERY = {**OPTIONS, **{f"synthetic, {kind}": Synthetic(kind) for kind in KINDS}, **PROBED}
ROW_BY_ROW = {name: supervision for name, supervision in EVERY.items() if not supervision.needs_features}
BLIND = {name: supervision for name, supervision in ROW_BY_ROW.items() if not supervision.reads_truth}
ERRING = {"noisy_gold": NoisyGold(), **{kind: Synthetic(kind) for kind in KINDS}}
# Multiples of 2**-12, so that 1 - p is exact and a tie stays a tie.
GRID = np.arange(2**12 + 1) / 2**12


def each(supervisions: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("supervision", supervisions.values(), ids=supervisions)


def blind(p_first: Any) -> Lesson:
    """What a supervision without the truth is told."""
    p_first = np.asarray(p_first, dtype=np.float64)
    return Lesson(p_first, np.random.default_rng(7).random(p_first.shape))


def lesson(n: int = 200, seed: int = 0) -> Lesson:
    """All that any supervision is told, with ties in everything but the noise."""
    rng = np.random.default_rng(seed)
    return Lesson(
        p_first=rng.choice(GRID, size=n),
        noise=rng.permutation(n) / n,
        truth=rng.integers(0, 2, n).astype(float),
        length=rng.integers(1, 30, n).astype(float),
        p_ceiling=rng.integers(0, 40, n) / 40,
        features=rng.normal(size=(n, 3)),
    )


def swapped(told: Lesson) -> Lesson:
    """The same pairs with their answers in the other slots."""
    truth = None if told.truth is None else 1 - told.truth
    features = None if told.features is None else -told.features
    return told._replace(p_first=1 - told.p_first, truth=truth, features=features)


def reordered(told: Lesson, order: NDArray[np.int64]) -> Lesson:
    return Lesson(*(None if column is None else column[order] for column in told))


def same(one: Floats, other: Floats) -> bool:
    return np.array_equal(one, other, equal_nan=True)


def alike(supervision: Supervision, one: Floats, other: Floats) -> bool:
    """The same, but for the order of a probe's sums."""
    return (
        np.allclose(one, other, rtol=0, atol=1e-7, equal_nan=True) if supervision.needs_features else same(one, other)
    )


# --- what each one teaches --------------------------------------------------------------------------------------------


def test_soft_targets_are_the_confidence_itself() -> None:
    p = np.random.default_rng(0).uniform(size=100)
    assert (Soft().targets(blind(p)) == p).all()


@pytest.mark.parametrize(
    ("p_first", "expected"),
    [
        (0.0, 0.0),
        (1e-300, 0.0),
        (0.25, 0.0),
        (float(np.nextafter(0.5, 0)), 0.0),
        (0.5, 0.5),
        (float(np.nextafter(0.5, 1)), 1.0),
        (0.75, 1.0),
        (1.0, 1.0),
    ],
)
def test_hard_targets_are_the_preferred_side_and_half_for_an_exact_tie(p_first: float, expected: float) -> None:
    assert Hard().targets(blind(p_first)) == expected
    assert Hard().targets(blind([p_first, 1.0]))[0] == expected


def test_hard_targets_take_no_other_value() -> None:
    targets = Hard().targets(blind(GRID))
    assert set(targets) == {0.0, 0.5, 1.0}
    assert targets.dtype == np.float64
    assert (targets == 0.5).sum() == 1


@pytest.mark.parametrize("threshold", [0.5, 0.625, 0.75, 0.875])
def test_confident_keeps_what_the_teacher_is_sure_of_either_way(threshold: float) -> None:
    """Exactly max(q, 1 - q) >= t, right or wrong: the truth is not there to be asked."""
    told = blind(GRID)
    assert (told.truth, told.length, told.p_ceiling) == (None, None, None)
    targets = Confident(threshold).targets(told)
    sure = np.array([max(q, 1 - q) >= threshold for q in GRID])
    assert np.array_equal(~np.isnan(targets), sure)
    assert np.array_equal(targets[sure], GRID[sure])
    assert {threshold, 1 - threshold} <= set(targets)  # the threshold itself is enough


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_oracle_confident_keeps_what_the_teacher_is_sure_of_and_right_about(threshold: float) -> None:
    told = Lesson(np.tile(GRID, 2), np.zeros(2 * len(GRID)), np.repeat([0.0, 1.0], len(GRID)))
    targets = OracleConfident(threshold).targets(told)
    p_correct = np.concatenate([1 - GRID, GRID])
    right = p_correct >= threshold
    assert np.array_equal(~np.isnan(targets), right)
    assert np.array_equal(targets[right], told.p_first[right])
    # Whatever it keeps, confident keeps too; what it leaves out beyond that is confidently wrong.
    sure = ~np.isnan(Confident(threshold).targets(told))
    assert not (right & ~sure).any()
    assert ((told.p_first[sure & ~right] > 0.5) != (told.truth[sure & ~right] == 1)).all()


def test_gold_targets_are_the_truth() -> None:
    told = lesson()
    assert np.array_equal(Gold().targets(told), told.truth)
    assert np.array_equal(Gold().targets(told._replace(p_first=np.full(200, 0.5))), told.truth)  # it has no teacher


# --- teachers that err by design --------------------------------------------------------------------------------------


def wrong(told: Lesson) -> int:
    """On how many pairs the teacher prefers the worse answer; a tie is no error."""
    assert told.truth is not None
    return sum((p < 0.5) if t == 1 else (p > 0.5) for p, t in zip(told.p_first, told.truth, strict=True))


@each(ERRING)
@pytest.mark.parametrize("seed", range(5))
def test_a_control_errs_as_often_as_the_teacher(supervision: Supervision, seed: int) -> None:
    told = lesson(seed=seed)
    targets = supervision.targets(told)
    assert set(targets) == {0.0, 1.0}
    assert (targets != told.truth).sum() == wrong(told) > 50


@each(ERRING)
def test_a_control_of_a_perfect_teacher_is_perfect_and_of_a_hopeless_one_hopeless(supervision: Supervision) -> None:
    told = lesson()
    assert told.truth is not None
    for p_first, expected in ((told.truth, told.truth), (1 - told.truth, 1 - told.truth), (0.5, told.truth)):
        assert np.array_equal(
            supervision.targets(told._replace(p_first=np.broadcast_to(p_first, 200).astype(float))), expected
        )


ORDER = {  # pairs 0 to 5, the first to be wrong first
    "noisy_gold": [3, 1, 5, 0, 4, 2],
    "longest": [2, 1, 5, 0, 3, 4],
    "shortest": [4, 3, 0, 1, 5, 2],
    "hardest": [5, 4, 1, 0, 2, 3],
    "easiest": [3, 2, 1, 0, 4, 5],
}


@pytest.mark.parametrize("errors", range(7))
@pytest.mark.parametrize("name", ERRING)
def test_which_pairs_a_control_gets_wrong(name: str, errors: int) -> None:
    """By hand; pairs 1 and 5 are equally long, 0 and 1 equally clear to the ceiling: there the noise decides."""
    truth = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    teacher = np.where(np.arange(6) < errors, 1 - truth, truth) * 0.8 + 0.1
    told = Lesson(
        p_first=teacher,
        noise=np.array([0.6, 0.2, 0.9, 0.1, 0.7, 0.3]),
        truth=truth,
        length=np.array([20.0, 30.0, 50.0, 12.0, 10.0, 30.0]),
        p_ceiling=np.array([0.6, 0.6, 0.9, 0.95, 0.3, 0.1]),
    )
    flipped = np.flatnonzero(ERRING[name].targets(told) != truth).tolist()
    assert flipped == sorted(ORDER[name][:errors])


def test_errors_at_random_fall_evenly_on_every_kind_of_pair() -> None:
    """Its error rate without its blind spots: where the teacher is wrong has nothing to do with where gold is."""
    rng = np.random.default_rng(3)
    truth, blind_spot = rng.integers(0, 2, 20_000).astype(float), np.arange(20_000) < 4_000
    p_first = np.where(blind_spot, 1 - truth, truth) * 0.6 + 0.2
    flipped = NoisyGold().targets(Lesson(p_first, rng.random(20_000), truth)) != truth
    assert flipped.sum() == 4_000
    assert abs(flipped[blind_spot].mean() - 0.2) < 4 * (0.2 * 0.8 / 4_000) ** 0.5


# --- what all of them keep --------------------------------------------------------------------------------------------


@each(EVERY)
def test_swapping_the_slots_swaps_the_target(supervision: Supervision) -> None:
    told = lesson()
    assert alike(supervision, supervision.targets(swapped(told)), 1 - supervision.targets(told))


@each(BLIND)
def test_targets_are_shares_and_never_fall_as_the_confidence_rises(supervision: Supervision) -> None:
    targets = supervision.targets(blind(GRID))
    assert targets.shape == GRID.shape
    kept = targets[~np.isnan(targets)]
    assert (kept.min(), kept.max()) == (0, 1)
    assert (np.diff(kept) >= 0).all()


@each(BLIND)
def test_a_target_depends_on_its_own_row_alone(supervision: Supervision) -> None:
    rng = np.random.default_rng(1)
    p, order = rng.choice(GRID, size=200), rng.permutation(200)
    assert same(supervision.targets(blind(p[order])), supervision.targets(blind(p))[order])
    assert supervision.targets(blind([])).shape == (0,)


@each(EVERY)
def test_the_order_of_the_rows_changes_no_target(supervision: Supervision) -> None:
    told, order = lesson(), np.random.default_rng(1).permutation(200)
    assert alike(supervision, supervision.targets(reordered(told, order)), supervision.targets(told)[order])


@each(ROW_BY_ROW)
def test_nothing_is_taught_of_no_rows(supervision: Supervision) -> None:
    empty = reordered(lesson(), np.array([], dtype=np.int64))
    assert supervision.targets(empty).shape == (0,)


@each(EVERY)
def test_the_same_lesson_gives_the_same_targets_and_is_left_as_it_is(supervision: Supervision) -> None:
    told, untouched = lesson(), lesson()
    first = supervision.targets(told)
    for column in told:
        column.setflags(write=False)
    assert same(supervision.targets(told), first)
    assert all(np.array_equal(one, other) for one, other in zip(told, untouched, strict=True))


@each(EVERY)
def test_a_target_is_a_share_or_nothing(supervision: Supervision) -> None:
    targets = supervision.targets(lesson())
    assert targets.dtype == np.float64
    assert targets.shape == (200,)
    assert np.isnan(targets).any() == isinstance(supervision, Confident | OracleConfident | Filtered)
    assert 0 <= np.nanmin(targets) <= np.nanmax(targets) <= 1


# --- what they ask for ------------------------------------------------------------------------------------------------

ASKS = {  # reads_truth, needs_teacher, needs_ceiling, needs_features
    "soft": (False, True, False, False),
    "hard": (False, True, False, False),
    "confident": (False, True, False, False),
    "oracle_confident": (True, True, False, False),
    "gold": (True, False, False, False),
    "noisy_gold": (True, True, False, False),
    "synthetic": (True, True, True, False),
    "filtered": (False, True, False, True),
    "relabelled": (False, True, False, True),
}


def test_every_option_says_what_it_asks_for() -> None:
    flags = ("reads_truth", "needs_teacher", "needs_ceiling", "needs_features")
    assert {name: tuple(getattr(one, flag) for flag in flags) for name, one in OPTIONS.items()} == ASKS


@each(EVERY)
def test_what_is_not_asked_for_is_not_looked_at(supervision: Supervision) -> None:
    """Any other value of it, or none, gives the same targets; without the truth there is nothing but the teacher."""
    told = lesson()
    expected = supervision.targets(told)
    lacking: dict[str, Any] = {}
    if not supervision.reads_truth:
        lacking |= {"truth": None, "length": None}
    if not supervision.needs_ceiling:
        lacking |= {"p_ceiling": None}
    if not supervision.needs_features:
        lacking |= {"features": None}
    if not supervision.needs_teacher:
        lacking |= {"p_first": np.full(200, 0.5)}
    assert same(supervision.targets(told._replace(**lacking)), expected)


def test_the_classes_are_the_options_under_their_names() -> None:
    for name, supervision in OPTIONS.items():
        assert type(supervision).__name__.lower() == name.replace("_", "")
    assert {type(supervision) for supervision in OPTIONS.values()} == set(Supervision.__subclasses__())


@pytest.mark.parametrize("cls", [Confident, OracleConfident])
@pytest.mark.parametrize("threshold", [0.49, 1.0, -1.0, float("nan")])
def test_a_threshold_that_keeps_everything_twice_or_nothing_is_refused(cls: type, threshold: float) -> None:
    with pytest.raises(Refused, match=r"^threshold: .* expected a confidence in \[0\.5, 1\)"):
        cls(threshold)


def test_an_unknown_kind_of_errors_is_refused() -> None:
    with pytest.raises(Refused, match=r"^errors: 'longst' is not accepted; .*; did you mean 'longest'\?"):
        Synthetic("longst")


# --- what a probe says ------------------------------------------------------------------------------------------------


def mistaught(n: int = 300) -> tuple[Lesson, NDArray[np.bool_]]:
    """Pairs whose features show the better answer, and a teacher who is wrong on a tenth of them, as sure as ever."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 4))
    x[:, 0] += 3 * np.sign(x[:, 0])
    wrong = rng.random(n) < 0.1
    p = np.where((x[:, 0] > 0) != wrong, 0.8, 0.2)
    return Lesson(p, rng.permutation(n) / n, features=x), wrong


@pytest.mark.parametrize("probe", ["knn", "logistic", "topological"])
def test_where_features_are_plain_the_teachers_errors_are_found(probe: str) -> None:
    told, wrong = mistaught()
    dropped = np.isnan(Filtered(probe, share=wrong.mean()).targets(told))
    relabelled = Relabelled(probe).targets(told)
    if probe != "topological":  # which also leaves out what lies at the edge
        assert dropped.sum() == int(wrong.mean() * len(wrong))
    assert (dropped & wrong).sum() > 0.9 * wrong.sum()
    assert ((relabelled > 0.5) == (told.features[:, 0] > 0)).mean() > 0.99  # type: ignore[index]


@each({name: supervision for name, supervision in PROBED.items() if "topological" not in name})
def test_a_probe_acts_on_the_share_that_it_is_asked_for(supervision: Any) -> None:
    told = lesson()
    targets = supervision.targets(told)
    assert (targets != told.p_first).sum() == 50
    assert (np.isnan(targets).sum() == 50) == isinstance(supervision, Filtered)
    farthest = np.abs(supervision.opinion(told) - told.p_first)
    assert farthest[targets != told.p_first].min() >= farthest[targets == told.p_first].max()


@each(PROBED)
def test_a_probe_takes_a_distribution_over_classes_too(supervision: Any) -> None:
    told = lesson()
    p = np.random.default_rng(2).dirichlet(np.full(3, 0.3), size=200)
    targets = supervision.targets(told._replace(p_first=p))
    assert targets.shape == p.shape
    left_out = np.isnan(targets)
    assert (left_out.any(axis=1) == left_out.all(axis=1)).all()
    assert np.nansum(targets, axis=1)[~left_out.any(axis=1)] == pytest.approx(1)


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        (
            {"probe": "kn"},
            "probe: 'kn' is not accepted; expected one of knn, logistic, topological; did you mean 'knn'",
        ),
        ({"layer": "first"}, "layer: 'first' is not accepted; expected one of last, middle"),
        ({"share": 0.0}, "share: 0.0 is not accepted; expected a share in (0, 1]"),
        ({"k": 0}, "k: 0 is not accepted; expected an integer of 1 or more"),
        ({"l2": 0.0}, "l2: 0.0 is not accepted; expected a number above 0"),
    ],
)
@pytest.mark.parametrize("cls", [Filtered, Relabelled])
def test_a_knob_of_a_probe_that_means_nothing_is_refused(cls: Any, knobs: dict[str, Any], line: str) -> None:
    with pytest.raises(Refused, match=f"^{re.escape(line)}"):
        cls(**knobs)
