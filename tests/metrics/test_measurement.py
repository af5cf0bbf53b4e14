"""The comparison of three models: every figure by hand, and None where nothing can be said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.builders import refused

from w2sd.metrics.accuracy import accuracy, pgr
from w2sd.metrics.measurement import ROLES, measure
from w2sd.metrics.statistics import clustered_bootstrap, clustered_standard_error, interval, mcnemar_exact
from w2sd.predictions import Predictions

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
    metrics = measure(roles(weak, student, ceiling, "aabbccdd"))
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
    metrics = measure(tables, n_resamples=300, seed=5)
    correct = {role: (tables[role].p_correct > 0.5).astype(float) for role in ROLES}
    draws = clustered_bootstrap(correct, tables["weak"].clusters, n_resamples=300, seed=5)
    for role in ROLES:
        assert metrics[f"accuracy/{role}"] == accuracy(tables[role].p_correct)
        assert metrics[f"accuracy/{role}_se"] == clustered_standard_error(correct[role], tables["weak"].clusters)
        assert (metrics[f"accuracy/{role}_lo"], metrics[f"accuracy/{role}_hi"]) == interval(draws[role])[:2]
    assert metrics["pgr"] == pgr(*(accuracy(tables[role].p_correct) for role in ROLES))
    ratios = (draws["student"] - draws["weak"]) / (draws["ceiling"] - draws["weak"])
    assert (metrics["pgr_lo"], metrics["pgr_hi"]) == interval(ratios)[:2]
    paired = clustered_standard_error(correct["ceiling"] - correct["weak"], tables["weak"].clusters)
    assert metrics["pgr_gap_se"] == paired
    assert paired is not None
    assert paired < math.hypot(metrics["accuracy/weak_se"] or 0, metrics["accuracy/ceiling_se"] or 0)


def test_metrics_are_the_same_whatever_the_order_of_rows() -> None:
    tables = simulated(200, (0.6, 0.7, 0.8))
    order = np.random.default_rng(1).permutation(200)
    shuffled = {
        role: Predictions(
            [t.ids[i] for i in order], [t.clusters[i] for i in order], t.p_correct[order], t.margin[order]
        )
        for role, t in tables.items()
    }
    assert json.dumps(measure(shuffled), allow_nan=False) == json.dumps(measure(tables), allow_nan=False)


@pytest.mark.parametrize("accuracies", [(0.7, 0.75, 0.7), (0.8, 0.7, 0.6)])
def test_pgr_is_none_without_a_gap(accuracies: tuple[float, float, float]) -> None:
    metrics = measure(simulated(400, accuracies))
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
        metrics = measure(roles(weak, ceiling, ceiling))
        gap, standard_error = metrics["pgr_gap"], metrics["pgr_gap_se"]
        assert gap is not None
        assert standard_error is not None
        assert (gap > standard_error) is defined
        assert (metrics["pgr"] is not None) is defined
        assert 0 < (metrics["pgr_n_undefined"] or 0) < 2000


def test_student_at_the_anchors() -> None:
    tables = simulated(400, (0.6, 0.6, 0.8))
    assert measure(tables)["pgr"] == 0
    assert measure(tables)["gain_mcnemar_p"] == 1
    assert measure(tables | {"student": tables["ceiling"]})["pgr"] == 1


def test_one_cluster_says_nothing_about_errors() -> None:
    metrics = measure(roles([0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9], "aaa"))
    assert metrics["accuracy/student"] == 2 / 3
    assert metrics["pgr_gap"] == pytest.approx(2 / 3)
    for name in NAMES:
        if name.endswith(("_se", "_lo", "_hi")) or name == "pgr":
            assert metrics[name] is None, name


def test_rows_that_do_not_vary_say_nothing_about_errors() -> None:
    metrics = measure(roles([0.2] * 6, [0.5] * 6, [0.9] * 6))
    assert [metrics[f"accuracy/{role}"] for role in ROLES] == [0, 0.5, 1]
    assert metrics["pgr"] == 0.5  # the gap is 1 on every row
    assert metrics["n/ties"] == 6
    for name in NAMES:
        if name.endswith(("_se", "_lo", "_hi")):
            assert metrics[name] is None, name


def test_one_row_is_measured() -> None:
    metrics = measure(roles([0.2], [0.9], [0.9]))
    assert (metrics["gain"], metrics["pgr"], metrics["n/test"]) == (1, None, 1)


def test_a_missing_role_is_refused() -> None:
    tables = simulated(10, (0.6, 0.7, 0.8))
    del tables["ceiling"]
    with refused("predictions", ["student", "weak"], "ceiling"):
        measure(tables)


def test_who_was_asked_before_any_label_has_an_accuracy_and_changes_no_other_figure() -> None:
    models = simulated(400, (0.5, 0.6, 0.8))
    asked = measure(models | {"zero_shot": models["student"]})
    usual = measure(models)
    assert {name: asked[name] for name in usual} == usual
    assert set(asked) - set(usual) == {f"accuracy/zero_shot{suffix}" for suffix in ("", "_se", "_lo", "_hi")}
    assert asked["accuracy/zero_shot"] == usual["accuracy/student"]
