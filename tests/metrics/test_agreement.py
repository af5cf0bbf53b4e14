"""Agreement with the supervisor: by hand, what imitation and independence give, and more than two classes."""

from __future__ import annotations

import numpy as np
import pytest

from w2sd.metrics.accuracy import agreement, agrees
from w2sd.predictions import Predictions


def model(p: object, predicted: object = None) -> Predictions:
    column = np.asarray(p, dtype=float)
    ids = [f"{n:05}" for n in range(len(column))]
    return Predictions(ids, ids, column, column - 0.5, predicted=None if predicted is None else np.asarray(predicted))


def test_by_hand() -> None:
    weak, student = model([0.9, 0.9, 0.9, 0.1, 0.1, 0.5]), model([0.8, 0.8, 0.2, 0.2, 0.9, 0.9])
    assert agrees(weak, student).tolist() == [1, 1, 0, 1, 0, 0.5]
    found = agreement({"weak": weak, "student": student, "ceiling": weak}, n_resamples=50)
    assert found["agreement/student"] == pytest.approx(3.5 / 6)
    assert found["agreement/student/weak_right"] == pytest.approx(2.25 / 3.5)
    assert found["agreement/student/weak_wrong"] == pytest.approx(1.25 / 2.5)
    assert found["agreement/ceiling"] == 1
    assert found["agreement/student_lo"] <= found["agreement/student"] <= found["agreement/student_hi"]


def test_of_two_wrong_classes_only_the_same_one_agrees() -> None:
    weak, student = model([0.1, 0.1, 0.9], [1, 1, 0]), model([0.1, 0.1, 0.9], [1, 2, 0])
    assert agrees(weak, student).tolist() == [1, 0, 1]


def test_imitation_agrees_with_errors_and_the_truth_does_not() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.7
    weak, truth = model(np.where(right, 0.8, 0.2)), model(np.full(4000, 0.9))
    found = agreement({"weak": weak, "student": weak, "ceiling": truth}, n_resamples=100)
    assert (found["agreement/student/weak_wrong"], found["agreement/student/weak_right"]) == (1, 1)
    assert (found["agreement/ceiling/weak_wrong"], found["agreement/ceiling/weak_right"]) == (0, 1)
    assert found["agreement/ceiling"] == pytest.approx(right.mean())
    assert found["agreement/ceiling_lo"] < right.mean() < found["agreement/ceiling_hi"]


def test_rows_that_are_there_again_say_no_more_than_once() -> None:
    rng = np.random.default_rng(1)
    once = {role: model(rng.random(60)) for role in ("weak", "student", "ceiling")}
    again = {role: model(np.tile(of.p_correct, 9))._replace(clusters=of.clusters * 9) for role, of in once.items()}
    assert agreement(again, n_resamples=200) == pytest.approx(agreement(once, n_resamples=200))


def test_without_errors_there_is_no_agreement_with_them() -> None:
    perfect = model(np.full(50, 0.9))
    found = agreement({"weak": perfect, "student": perfect, "ceiling": perfect}, n_resamples=20)
    assert found["agreement/student/weak_wrong"] is None
    assert found["agreement/student/weak_wrong_lo"] is None
