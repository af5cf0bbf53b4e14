"""Accuracy and PGR: reference vectors V26, properties, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from w2sd.metrics.accuracy import accuracy, correctness, n_ties, pgr

V26 = [
    (0.60, 0.72, 0.80, 0.6),
    (0.60, 0.58, 0.80, -0.1),
    (0.60, 0.84, 0.80, 1.2),
    (0.5661, 0.619, 0.645, 0.6704689480354875),
    (0.566, 0.666, 0.740, 0.5747126436781613),
]


@pytest.mark.parametrize(("weak", "student", "ceiling", "expected"), V26)
def test_pgr_reference_vectors(weak: float, student: float, ceiling: float, expected: float) -> None:
    assert pgr(weak, student, ceiling) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("weak", "ceiling"), [(0.8, 0.8), (0.8, 0.6), (0.0, 0.0), (1.0, 1.0)])
def test_pgr_is_undefined_iff_there_is_no_gap(weak: float, ceiling: float) -> None:
    assert pgr(weak, 0.7, ceiling) is None


def test_pgr_is_defined_for_the_smallest_gap() -> None:
    assert pgr(0.6, 0.6, float(np.nextafter(0.6, 1))) == 0


def test_pgr_anchors() -> None:
    for weak, ceiling in np.random.default_rng(0).uniform(size=(200, 2)):
        if ceiling > weak:
            assert pgr(weak, ceiling, ceiling) == 1
            assert pgr(weak, weak, ceiling) == 0


def test_ties_are_half_right() -> None:
    p = [0.5, 0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0), 0.0, 1.0]
    assert correctness(p).tolist() == [0.5, 0.5, 1, 0, 0, 1]
    assert accuracy(p) == 0.5
    assert n_ties(p) == 2
    assert n_ties([]) == 0


def test_accuracy_ignores_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    p = rng.choice([0.1, 0.5, 0.9], size=333)
    assert accuracy(p) == accuracy(rng.permutation(p))


def test_accuracies_of_complementary_confidences_sum_to_one() -> None:
    # Quarters, so that 1 - p is exact and ties stay ties.
    p = np.random.default_rng(2).integers(0, 5, size=257) / 4
    assert n_ties(p) > 0
    assert accuracy(p) + accuracy(1 - p) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("function", [correctness, accuracy, n_ties])
@pytest.mark.parametrize(
    ("p_correct", "message"),
    [
        ([0.2, float("nan")], "p_correct: row 1 is NaN"),
        ([0.2, 0.3, 1.5], r"p_correct: row 2 is 1\.5, outside \[0, 1\]"),
        ([-0.1], r"p_correct: row 0 is -0\.1, outside \[0, 1\]"),
        ([float("inf")], "p_correct: row 0 is inf, outside"),
        ([[0.1, 0.2]], "p_correct: expected one column of numbers, got 2 dimensions"),
        ([[0.1], [0.1, 0.2]], "p_correct: expected a column of numbers"),
        (["high"], "p_correct: expected a column of numbers"),
        (0.3, "p_correct: expected one column of numbers, got 0 dimensions"),
    ],
)
def test_bad_confidences_are_refused_by_name(
    function: Callable[[object], object], p_correct: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        function(p_correct)
    assert "\n" not in str(caught.value)


def test_the_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        accuracy([])


@pytest.mark.parametrize("bad", [float("nan"), -0.01, 1.01])
@pytest.mark.parametrize("name", ["weak", "student", "ceiling"])
def test_bad_accuracies_are_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected an accuracy from 0 to 1"):
        pgr(**({"weak": 0.6, "student": 0.7, "ceiling": 0.8} | {name: bad}))
