"""How confidence becomes a target: without a word about which slot holds the truth, except where that is the point."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf

from tests.builders import refused
from w2sd.cli import CONF
from w2sd.config import build
from w2sd.supervision import base as supervisions
from w2sd.supervision.base import Supervision, agreed, votes
from w2sd.supervision.oracle import Gold, NoisyGold, OracleConfident, Synthetic
from w2sd.supervision.teacher import Balanced, Confident, Consistent, Hard, Soft, TwoStage

Floats = NDArray[np.float64]

OPTIONS: dict[str, Supervision] = {
    path.stem: build(OmegaConf.to_container(OmegaConf.load(path)), "supervision")
    for path in sorted(Path(CONF, "supervision").glob("*.yaml"))
}
KINDS = ("longest", "shortest", "hardest", "easiest")
SAMPLED = ("consistent", "two_stage")  # whose targets are drawn, by the noise of a row
DRAWN = {name: OPTIONS[name] for name in SAMPLED}
EVERY = {  # but those that ask a probe: tests/probes/test_supervised.py
    **{name: one for name, one in OPTIONS.items() if name not in SAMPLED and not one.needs_features},
    **{f"synthetic, {kind}": Synthetic(kind) for kind in KINDS},
}
BLIND = {name: supervision for name, supervision in EVERY.items() if not supervision.reads_truth}
ERRING = {"noisy_gold": NoisyGold(), **{kind: Synthetic(kind) for kind in KINDS}}
# Multiples of 2**-12, so that 1 - p is exact and a tie stays a tie.
GRID = np.arange(2**12 + 1) / 2**12


class Lesson(NamedTuple):
    """A lesson about pairs, by their first slots: 1 where it holds the truth."""

    p_first: Floats
    noise: Floats
    truth: Floats | None = None
    length: Floats | None = None
    p_ceiling: Floats | None = None


def targets_of(supervision: Supervision, told: Lesson) -> Floats:
    """P(first slot is better); of two options the other one has the rest."""
    truth = None if told.truth is None else 1 - told.truth.astype(np.int64)
    p_N2 = np.stack([told.p_first, 1 - told.p_first], axis=-1)
    targets_N2 = supervision.targets(supervisions.Lesson(p_N2, told.noise, truth, told.length, told.p_ceiling))
    first, second = targets_N2.T
    assert same(second, 1 - first, rounding(supervision))
    return first


def rounding(supervision: Supervision) -> float:
    """How far off equal targets may be: not at all, except of logarithms."""
    return 1e-12 if isinstance(supervision, Balanced) else 0.0


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
    )


def swapped(told: Lesson) -> Lesson:
    """The same pairs with their answers in the other slots."""
    truth = None if told.truth is None else 1 - told.truth
    return told._replace(p_first=1 - told.p_first, truth=truth)


def reordered(told: Lesson, order: NDArray[np.int64]) -> Lesson:
    return Lesson(*(None if column is None else column[order] for column in told))


def same(one: Floats, other: Floats, digits: float = 0.0) -> bool:
    return np.allclose(one, other, rtol=0, atol=digits, equal_nan=True)


# --- what each one teaches --------------------------------------------------------------------------------------------


def test_soft_targets_are_the_confidence_itself() -> None:
    p = np.random.default_rng(0).uniform(size=100)
    assert (targets_of(Soft(), blind(p)) == p).all()


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
    assert targets_of(Hard(), blind([p_first])) == [expected]
    assert targets_of(Hard(), blind([p_first, 1.0]))[0] == expected


def test_hard_targets_take_no_other_value() -> None:
    targets = targets_of(Hard(), blind(GRID))
    assert set(targets) == {0.0, 0.5, 1.0}
    assert targets.dtype == np.float64
    assert (targets == 0.5).sum() == 1


def test_hard_targets_of_classes_are_the_preferred_ones_in_equal_shares() -> None:
    p_N3 = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3]])
    taught = Hard().targets(supervisions.Lesson(p_N3, np.zeros(3)))
    assert np.array_equal(taught, [[0, 1, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]])


@each(EVERY)
def test_lessons_about_classes(supervision: Supervision) -> None:
    """Targets are distributions or nothing, move with the names of the classes, and err as often as the teacher."""
    rng = np.random.default_rng(0)
    told = supervisions.Lesson(
        p_NK=rng.dirichlet(np.ones(4), size=300),
        noise=rng.permutation(300) / 300,
        truth=rng.integers(0, 4, 300),
        length=rng.integers(1, 30, 300).astype(float),
        p_ceiling=rng.random(300),
    )
    targets_N4 = supervision.targets(told)
    kept = ~np.isnan(targets_N4[:, 0])
    assert np.isnan(targets_N4[~kept]).all()
    assert np.allclose(targets_N4[kept].sum(axis=1), 1)
    turn = np.array([1, 2, 3, 0])  # class c is called c + 1
    renamed = told._replace(p_NK=told.p_NK[:, np.argsort(turn)], truth=turn[told.truth])
    assert same(supervision.targets(renamed), targets_N4[:, np.argsort(turn)], rounding(supervision))
    if supervision in ERRING.values():
        assert told.truth is not None
        wrong = targets_N4.argmax(axis=1) != told.truth
        assert wrong.sum() == (told.p_NK.argmax(axis=1) != told.truth).sum()
        off = (targets_N4.argmax(axis=1) - told.truth)[wrong] % 4
        assert np.ptp(np.bincount(off, minlength=4)[1:]) <= 1  # wrong classes take turns


@pytest.mark.parametrize("threshold", [0.5, 0.625, 0.75, 0.875])
def test_confident_keeps_what_the_teacher_is_sure_of_either_way(threshold: float) -> None:
    """Exactly max(q, 1 - q) >= t, right or wrong: the truth is not there to be asked."""
    told = blind(GRID)
    assert (told.truth, told.length, told.p_ceiling) == (None, None, None)
    targets = targets_of(Confident(threshold), told)
    sure = np.array([max(q, 1 - q) >= threshold for q in GRID])
    assert np.array_equal(~np.isnan(targets), sure)
    assert np.array_equal(targets[sure], GRID[sure])
    assert {threshold, 1 - threshold} <= set(targets)  # the threshold itself is enough


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_oracle_confident_keeps_what_the_teacher_is_sure_of_and_right_about(threshold: float) -> None:
    told = Lesson(np.tile(GRID, 2), np.zeros(2 * len(GRID)), np.repeat([0.0, 1.0], len(GRID)))
    targets = targets_of(OracleConfident(threshold), told)
    p_correct = np.concatenate([1 - GRID, GRID])
    right = p_correct >= threshold
    assert np.array_equal(~np.isnan(targets), right)
    assert np.array_equal(targets[right], told.p_first[right])
    # Whatever it keeps, confident keeps too; what it leaves out beyond that is confidently wrong.
    sure = ~np.isnan(targets_of(Confident(threshold), told))
    assert not (right & ~sure).any()
    assert ((told.p_first[sure & ~right] > 0.5) != (told.truth[sure & ~right] == 1)).all()


def test_balanced_targets_have_the_reference_values() -> None:
    """V7 of methods.md."""
    targets = targets_of(Balanced(), blind([0.2, 0.7, 0.6, 0.9]))
    expected = [0.12985774978281595, 0.5820937934213921, 0.4724135241959408, 0.8430766737648119]
    assert targets.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_balanced_targets_keep_every_difference_and_forget_the_level(shift: float) -> None:
    log_odds = np.random.default_rng(0).normal(size=100)
    there, back = (targets_of(Balanced(1e-12), blind(1 / (1 + np.exp(-log_odds - by)))) for by in (0.0, shift))
    assert np.allclose(there, back, atol=1e-9)
    moved = np.log(there / (1 - there))
    assert abs(moved.mean()) < 1e-9
    assert np.allclose(moved - log_odds, (moved - log_odds)[0], atol=1e-9)


def test_balanced_targets_of_classes_have_the_same_mean_log_probability() -> None:
    """Up to what every class of a row has in common; two classes are a pair."""
    p_N4 = np.random.default_rng(0).dirichlet([1.0, 2.0, 5.0, 9.0], size=50)
    taught = Balanced().targets(supervisions.Lesson(p_N4, np.zeros(50)))
    assert np.ptp(np.log(taught).mean(axis=0)) < 1e-4
    assert np.ptp(np.log(p_N4).mean(axis=0)) > 1


def test_balanced_targets_of_a_certain_teacher_are_finite() -> None:
    assert np.isfinite(targets_of(Balanced(), blind([0.0, 1.0, 1.0, 0.3]))).all()


def test_gold_targets_are_the_truth() -> None:
    told = lesson()
    assert np.array_equal(targets_of(Gold(), told), told.truth)
    assert np.array_equal(targets_of(Gold(), told._replace(p_first=np.full(200, 0.5))), told.truth)  # it has no teacher


# --- teachers that err by design --------------------------------------------------------------------------------------


def wrong(told: Lesson) -> int:
    """On how many pairs the teacher prefers the worse answer; a tie is no error."""
    assert told.truth is not None
    return sum((p < 0.5) if t == 1 else (p > 0.5) for p, t in zip(told.p_first, told.truth, strict=True))


@each(ERRING)
@pytest.mark.parametrize("seed", range(5))
def test_a_control_errs_as_often_as_the_teacher(supervision: Supervision, seed: int) -> None:
    told = lesson(seed=seed)
    targets = targets_of(supervision, told)
    assert set(targets) == {0.0, 1.0}
    assert (targets != told.truth).sum() == wrong(told) > 50


@each(ERRING)
def test_a_control_of_a_perfect_teacher_is_perfect_and_of_a_hopeless_one_hopeless(supervision: Supervision) -> None:
    told = lesson()
    assert told.truth is not None
    for p_first, expected in ((told.truth, told.truth), (1 - told.truth, 1 - told.truth), (0.5, told.truth)):
        assert np.array_equal(
            targets_of(supervision, told._replace(p_first=np.broadcast_to(p_first, 200).astype(float))), expected
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
    flipped = np.flatnonzero(targets_of(ERRING[name], told) != truth).tolist()
    assert flipped == sorted(ORDER[name][:errors])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.4988, 1.0])
@pytest.mark.parametrize("kind", [None, "longest", "easiest"])
def test_errors_have_a_rate_of_their_own_where_one_is_given(rate: float, kind: str | None) -> None:
    told = lesson()
    supervision = NoisyGold(rate) if kind is None else Synthetic(kind, rate)
    assert (targets_of(supervision, told) != told.truth).sum() == round(rate * 200)
    others = told._replace(p_first=1 - told.p_first)  # however often the teacher is wrong
    assert same(targets_of(supervision, others), targets_of(supervision, told))


def test_errors_at_random_fall_evenly_on_every_kind_of_pair() -> None:
    """Its error rate without its blind spots: where the teacher is wrong has nothing to do with where gold is."""
    rng = np.random.default_rng(3)
    truth, blind_spot = rng.integers(0, 2, 20_000).astype(float), np.arange(20_000) < 4_000
    p_first = np.where(blind_spot, 1 - truth, truth) * 0.6 + 0.2
    flipped = targets_of(NoisyGold(), Lesson(p_first, rng.random(20_000), truth)) != truth
    assert flipped.sum() == 4_000
    assert abs(flipped[blind_spot].mean() - 0.2) < 4 * (0.2 * 0.8 / 4_000) ** 0.5


# --- what all of them keep --------------------------------------------------------------------------------------------


@each(EVERY)
def test_swapping_the_slots_swaps_the_target(supervision: Supervision) -> None:
    told = lesson()
    assert same(targets_of(supervision, swapped(told)), 1 - targets_of(supervision, told), rounding(supervision))


@each(BLIND)
def test_targets_are_shares_and_never_fall_as_the_confidence_rises(supervision: Supervision) -> None:
    targets = targets_of(supervision, blind(GRID))
    assert targets.shape == GRID.shape
    kept = targets[~np.isnan(targets)]
    certain = Balanced().added if isinstance(supervision, Balanced) else 0.0
    assert (kept.min(), kept.max()) == pytest.approx((0, 1), abs=certain, rel=0)
    assert (np.diff(kept) >= 0).all()


@each({name: supervision for name, supervision in BLIND.items() if name != "balanced"})
def test_a_target_depends_on_its_own_row_alone(supervision: Supervision) -> None:
    rng = np.random.default_rng(1)
    p, order = rng.choice(GRID, size=200), rng.permutation(200)
    assert same(targets_of(supervision, blind(p[order])), targets_of(supervision, blind(p))[order])
    assert targets_of(supervision, blind([])).shape == (0,)


@each(EVERY)
def test_the_order_of_the_rows_changes_no_target(supervision: Supervision) -> None:
    told, order = lesson(), np.random.default_rng(1).permutation(200)
    moved = targets_of(supervision, reordered(told, order))
    assert same(moved, targets_of(supervision, told)[order], rounding(supervision))
    empty = reordered(told, np.array([], dtype=np.int64))
    assert targets_of(supervision, empty).shape == (0,)


@each(EVERY)
def test_the_same_lesson_gives_the_same_targets_and_is_left_as_it_is(supervision: Supervision) -> None:
    told, untouched = lesson(), lesson()
    first = targets_of(supervision, told)
    for column in told:
        column.setflags(write=False)
    assert same(targets_of(supervision, told), first)
    assert all(np.array_equal(one, other) for one, other in zip(told, untouched, strict=True))


@each(EVERY)
def test_a_target_is_a_share_or_nothing(supervision: Supervision) -> None:
    targets = targets_of(supervision, lesson())
    assert targets.dtype == np.float64
    assert targets.shape == (200,)
    assert np.isnan(targets).any() == isinstance(supervision, Confident | OracleConfident)
    assert 0 <= np.nanmin(targets) <= np.nanmax(targets) <= 1


# --- answers that are drawn ------------------------------------------------------------------------------------------


def drawn(n: int = 400) -> supervisions.Lesson:
    rng = np.random.default_rng(5)
    first, second = rng.dirichlet(np.ones(3), size=(2, n))
    return supervisions.Lesson(first, rng.random(n), p_second_NK=second)


@each(DRAWN)
def test_a_drawn_target_is_one_answer_or_nothing_and_is_drawn_again_alike(supervision: Supervision) -> None:
    told, order = drawn(), np.random.default_rng(1).permutation(400)
    targets = supervision.targets(told)
    kept = ~np.isnan(targets).any(axis=1)
    assert 0 < kept.sum() < 400
    assert np.isnan(targets[~kept]).all()
    assert set(targets[kept].ravel()) == {0.0, 1.0}
    assert (targets[kept].sum(axis=1) == 1).all()
    shuffled = supervisions.Lesson(told.p_NK[order], told.noise[order], p_second_NK=told.p_second_NK[order])
    assert same(supervision.targets(shuffled), targets[order])


def test_a_filter_asks_as_often_and_as_strictly_as_it_is_told_to() -> None:
    told = drawn()
    expected = agreed(votes(told.p_NK, told.noise, 5) / 5, 0.8)
    assert same(Consistent(threshold=0.8, samples=5).targets(told), expected)
    assert TwoStage(threshold=0.8, samples=5).first_stage == Consistent(threshold=0.8, samples=5)


def test_two_stages_keep_the_teacher_s_word_and_ask_the_student_only_where_there_is_none() -> None:
    told = drawn()
    teacher = Consistent().targets(told)
    student = Consistent().targets(told._replace(p_NK=told.p_second_NK, noise=(told.noise + 0.5) % 1))
    both = TwoStage().targets(told)
    silent = np.isnan(teacher[:, 0])
    assert same(both[~silent], teacher[~silent])
    assert same(both[silent], student[silent])
    assert np.isnan(both).sum() < np.isnan(teacher).sum()


@pytest.mark.parametrize("cls", [Consistent, TwoStage])
@pytest.mark.parametrize(("knob", "value"), [("threshold", 0.0), ("threshold", 1.1), ("samples", 0), ("samples", 1001)])
def test_impossible_draws_are_refused(cls: Any, knob: str, value: Any) -> None:
    with refused(knob, value):
        cls(**{knob: value})


# --- what they ask for ------------------------------------------------------------------------------------------------

ASKS = {  # reads_truth, needs_teacher, needs_ceiling; and needs_features
    "filtered": (False, True, False),
    "relabelled": (False, True, False),
    "soft": (False, True, False),
    "hard": (False, True, False),
    "confident": (False, True, False),
    "balanced": (False, True, False),
    "consistent": (False, True, False),
    "two_stage": (False, True, False),
    "oracle_confident": (True, True, False),
    "gold": (True, False, False),
    "noisy_gold": (True, True, False),
    "synthetic": (True, True, True),
}


def test_every_option_says_what_it_asks_for() -> None:
    told = {name: (one.reads_truth, one.needs_teacher, one.needs_ceiling) for name, one in OPTIONS.items()}
    assert told == ASKS
    assert {name for name, one in OPTIONS.items() if one.needs_features} == {"filtered", "relabelled"}


@each(EVERY)
def test_what_is_not_asked_for_is_not_looked_at(supervision: Supervision) -> None:
    """Any other value of it, or none, gives the same targets; without the truth there is nothing but the teacher."""
    told = lesson()
    expected = targets_of(supervision, told)
    lacking: dict[str, Any] = {}
    if not supervision.reads_truth:
        lacking |= {"truth": None, "length": None}
    if not supervision.needs_ceiling:
        lacking |= {"p_ceiling": None}
    if not supervision.needs_teacher:
        lacking |= {"p_first": np.full(200, 0.5)}
    assert same(targets_of(supervision, told._replace(**lacking)), expected)


def test_the_classes_are_the_options_under_their_names() -> None:
    for name, supervision in OPTIONS.items():
        assert type(supervision).__name__.lower() == name.replace("_", "")
    known = Supervision.__subclasses__()
    every = {*known, *(sub for cls in known for sub in cls.__subclasses__())}
    assert {type(one) for one in OPTIONS.values()} == {cls for cls in every if cls.__module__.startswith("w2sd.")}


@pytest.mark.parametrize("cls", [Confident, OracleConfident])
@pytest.mark.parametrize("threshold", [0.49, 1.0, -1.0, float("nan")])
def test_a_threshold_that_keeps_everything_twice_or_nothing_is_refused(cls: type, threshold: float) -> None:
    with refused("threshold", threshold, "0.5 1"):
        cls(threshold)


@pytest.mark.parametrize("added", [0.0, 0.1])
def test_what_is_added_to_probabilities_is_little(added: float) -> None:
    with refused("added", added, "0 0.01"):
        Balanced(added)


def test_an_unknown_kind_of_errors_is_refused() -> None:
    with refused("errors", "longst", nearest="longest"):
        Synthetic("longst")


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_of_errors_is_a_share(rate: float) -> None:
    for make in (NoisyGold, lambda rate: Synthetic(rate=rate)):
        with refused("rate", rate, "0 1 null"):
            make(rate)
