"""Accuracy, PGR and agreement: reference vectors V26, every figure by hand, and None where nothing can be said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.builders import refused

from w2sd.metrics.accuracy import ROLES, accuracy, agreement, agrees, correctness, measure_accuracy, pgr
from w2sd.metrics.statistics import clustered_bootstrap, clustered_standard_error, interval, mcnemar_exact
from w2sd.predictions import Predictions, select

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


def test_accuracy_ignores_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    p = rng.choice([0.1, 0.5, 0.9], size=333)
    assert accuracy(p) == accuracy(rng.permutation(p))


def test_accuracies_of_complementary_confidences_sum_to_one() -> None:
    # Quarters, so that 1 - p is exact and ties stay ties.
    p = np.random.default_rng(2).integers(0, 5, size=257) / 4
    assert (p == 0.5).any()
    assert accuracy(p) + accuracy(1 - p) == pytest.approx(1, abs=1e-15)


NAMES = {
    *(f"accuracy/{role}{suffix}" for role in ROLES for suffix in ("", "_se", "_lo", "_hi")),
    *(f"{name}{suffix}" for name in ("gain", "pgr_gap") for suffix in ("", "_se", "_lo", "_hi")),
    *("gain_mcnemar_p", "pgr", "pgr_lo", "pgr_hi", "pgr_n_undefined", "n/test", "n/clusters", "n/ties"),
}


def roles(weak: list[float], student: list[float], ceiling: list[float], clusters: str = "") -> dict[str, Predictions]:
    ids = [f"{i:03}" for i in range(len(weak))]
    columns = {role: np.array(p) for role, p in zip(ROLES, (weak, student, ceiling), strict=True)}
    return {role: Predictions(ids, list(clusters) or ids, p, p - 0.5) for role, p in columns.items()}


def simulated(n: int, accuracies: tuple[float, float, float], seed: int = 0) -> dict[str, Predictions]:
    """Three models on n pairs in clusters of two; better models are right wherever worse ones are."""
    difficulty = np.random.default_rng(seed).random(n)
    ids, clusters = [f"{i:05}" for i in range(n)], [f"{i // 2:05}" for i in range(n)]
    tables = {}
    for role, share in zip(ROLES, accuracies, strict=True):
        p = np.where(difficulty < share, 0.9, 0.2)
        tables[role] = Predictions(ids, clusters, p, p - 0.5)
    return tables


def test_figures_by_hand() -> None:
    right, wrong, tie = 0.9, 0.1, 0.5
    weak = [right, wrong, wrong, wrong, right, wrong, wrong, tie]
    student = [wrong, right, right, wrong, right, wrong, right, tie]
    ceiling = [right, right, right, right, right, wrong, right, right]
    metrics = measure_accuracy(roles(weak, student, ceiling, "aabbccdd"))
    assert set(metrics) == NAMES
    assert metrics["accuracy/weak"] == 2.5 / 8
    assert metrics["accuracy/student"] == 4.5 / 8
    assert metrics["accuracy/ceiling"] == 7 / 8
    assert metrics["gain"] == 2 / 8
    assert metrics["gain_mcnemar_p"] == mcnemar_exact(3, 1) == pytest.approx(0.625, abs=1e-12)
    assert metrics["pgr_gap"] == 4.5 / 8
    assert metrics["pgr"] == pytest.approx(2 / 4.5, abs=1e-15)
    assert (metrics["n/test"], metrics["n/clusters"], metrics["n/ties"]) == (8, 4, 2)


def test_figures_are_those_of_the_functions() -> None:
    tables = simulated(1000, (0.6, 0.7, 0.8))
    metrics = measure_accuracy(tables, n_resamples=300)
    correct = {role: (tables[role].p_correct > 0.5).astype(float) for role in ROLES}
    clusters = np.unique(tables["weak"].clusters, return_inverse=True)[1]
    draws = clustered_bootstrap(correct, clusters, n_resamples=300)
    for role in ROLES:
        assert metrics[f"accuracy/{role}"] == accuracy(tables[role].p_correct)
        assert metrics[f"accuracy/{role}_se"] == clustered_standard_error(correct[role], tables["weak"].clusters)
        assert (metrics[f"accuracy/{role}_lo"], metrics[f"accuracy/{role}_hi"]) == interval(draws[role])
    assert metrics["pgr"] == pgr(*(accuracy(tables[role].p_correct) for role in ROLES))
    ratios = (draws["student"] - draws["weak"]) / (draws["ceiling"] - draws["weak"])
    assert (metrics["pgr_lo"], metrics["pgr_hi"]) == interval(ratios)
    paired = clustered_standard_error(correct["ceiling"] - correct["weak"], tables["weak"].clusters)
    assert metrics["pgr_gap_se"] == paired
    assert paired is not None
    assert paired < math.hypot(metrics["accuracy/weak_se"] or 0, metrics["accuracy/ceiling_se"] or 0)


def test_metrics_are_the_same_whatever_the_order_of_rows() -> None:
    tables = simulated(200, (0.6, 0.7, 0.8))
    order = np.random.default_rng(1).permutation(200)
    shuffled = {role: select(table, order.tolist()) for role, table in tables.items()}
    found = [json.dumps(measure_accuracy(each), allow_nan=False) for each in (shuffled, tables)]
    assert found[0] == found[1]
    with refused("student.id", "200 ids", "weak"):
        measure_accuracy(tables | {"student": shuffled["student"]})


@pytest.mark.parametrize("accuracies", [(0.7, 0.75, 0.7), (0.8, 0.7, 0.6)])
def test_pgr_is_none_without_a_gap(accuracies: tuple[float, float, float]) -> None:
    metrics = measure_accuracy(simulated(400, accuracies))
    assert metrics["pgr_gap"] is not None
    assert metrics["pgr_gap"] <= 0
    assert (metrics["pgr"], metrics["pgr_lo"], metrics["pgr_hi"]) == (None, None, None)
    assert metrics["pgr_n_undefined"] == 2000
    assert metrics["gain"] is not None


def test_pgr_is_none_within_one_standard_error_of_the_gap() -> None:
    # Ceiling right where weak is wrong on k rows, the other way round on 10: gap (k - 10) / 100, s.e. near .05.
    for k, defined in ((14, False), (16, True)):
        weak = [0.9] * 10 + [0.1] * k + [0.9] * (90 - k)
        ceiling = [0.1] * 10 + [0.9] * 90
        metrics = measure_accuracy(roles(weak, ceiling, ceiling))
        gap, standard_error = metrics["pgr_gap"], metrics["pgr_gap_se"]
        assert gap is not None
        assert standard_error is not None
        assert (gap > standard_error) is defined
        assert (metrics["pgr"] is not None) is defined
        assert 0 < (metrics["pgr_n_undefined"] or 0) < 2000


def test_student_at_the_anchors() -> None:
    tables = simulated(400, (0.6, 0.6, 0.8))
    assert measure_accuracy(tables)["pgr"] == 0
    assert measure_accuracy(tables)["gain_mcnemar_p"] == 1
    assert measure_accuracy(tables | {"student": tables["ceiling"]})["pgr"] == 1


def test_one_cluster_says_nothing_about_errors() -> None:
    metrics = measure_accuracy(roles([0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9], "aaa"))
    assert metrics["accuracy/student"] == 2 / 3
    assert metrics["pgr_gap"] == pytest.approx(2 / 3)
    for name in NAMES:
        if name.endswith(("_se", "_lo", "_hi")) or name == "pgr":
            assert metrics[name] is None, name


def test_rows_that_do_not_vary_say_nothing_about_errors() -> None:
    metrics = measure_accuracy(roles([0.2] * 6, [0.5] * 6, [0.9] * 6))
    assert [metrics[f"accuracy/{role}"] for role in ROLES] == [0, 0.5, 1]
    assert metrics["pgr"] == 0.5  # the gap is 1 on every row
    assert metrics["n/ties"] == 6
    for name in NAMES:
        if name.endswith(("_se", "_lo", "_hi")):
            assert metrics[name] is None, name


def test_one_row_is_measured() -> None:
    metrics = measure_accuracy(roles([0.2], [0.9], [0.9]))
    assert (metrics["gain"], metrics["pgr"], metrics["n/test"]) == (1, None, 1)


def test_a_missing_role_is_refused() -> None:
    tables = simulated(10, (0.6, 0.7, 0.8))
    del tables["ceiling"]
    with refused("predictions", ["student", "weak"], "ceiling"):
        measure_accuracy(tables)


def test_who_was_asked_before_any_label_has_an_accuracy_and_changes_no_other_figure() -> None:
    models = simulated(400, (0.5, 0.6, 0.8))
    asked = measure_accuracy(models | {"zero_shot": models["student"]})
    usual = measure_accuracy(models)
    assert {name: asked[name] for name in usual} == usual
    assert set(asked) - set(usual) == {f"accuracy/zero_shot{suffix}" for suffix in ("", "_se", "_lo", "_hi")}
    assert asked["accuracy/zero_shot"] == usual["accuracy/student"]


def model(p: object, predicted: object = None) -> Predictions:
    column = np.asarray(p, dtype=float)
    ids = [f"{n:05}" for n in range(len(column))]
    return Predictions(ids, ids, column, column - 0.5, predicted=None if predicted is None else np.asarray(predicted))


def test_agreement_by_hand() -> None:
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
