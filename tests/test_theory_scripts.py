"""The theory scripts: reference vectors V33 and V34, the thresholds by hand, and what the toys must show."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import benign_overfitting
import misfit
from benign_overfitting import BenignOverfitting, BiLevel, Seen, falls_below, sign_error, wishart
from misfit import Misfit, fit_head, risks
from replicates import from_command_line, over_resamples, show
from w2sd.metrics.statistics import Mean

H = np.array([[1, 0], [0, 1], [1, 1], [1, -1.0]])
HEAD = np.array([1.0, 2.0])
TRUTH = H @ HEAD
TAUGHT = TRUTH + np.array([0.3, -0.2, 0.1, 0.4])
SMALL = BenignOverfitting(ns=(16, 49), us=(0.4, 0.9, 1.4), replicates=12)
TINY = Misfit(features=10, rows=300, new_rows=600, teachers=5, replicates=4)


def test_the_error_of_a_score_by_its_correlation() -> None:
    snr = np.array([0, 0.5, 1, 3])
    expected = [0.5, 0.35241638234956674, 0.25, 0.10241638234956674]
    assert sign_error(snr / np.hypot(1, snr)) == pytest.approx(expected, abs=1e-9)


def test_the_two_levels_of_a_spectrum() -> None:
    found = BiLevel(100**1.5, 100**0.3, 100**-0.6)
    assert (found.favoured, found.others) == pytest.approx((15.848931924611136, 0.9406490568972324), abs=1e-9)


def test_gram_matrices_give_the_interpolator_and_its_error_on_new_rows() -> None:
    """Against the pseudo-inverse of the rows themselves, and against counting on rows that it has not seen."""
    rng, spectrum = np.random.default_rng(0), BiLevel(120, 3, 0.4)
    scale_D = np.sqrt([*[spectrum.favoured] * 3, *[spectrum.others] * 117])
    rows_ND = rng.standard_normal((30, 120))
    labels_NK = np.sign(rng.standard_normal((30, 2)) + rows_ND[:, :1])
    seen = Seen(rows_ND[:, 0], rows_ND[:, :3] @ rows_ND[:, :3].T, rows_ND[:, 3:] @ rows_ND[:, 3:].T, spectrum)
    weights_NK = seen.interpolate(labels_NK)
    heads_DK = np.linalg.pinv(rows_ND * scale_D) @ labels_NK
    assert (rows_ND * scale_D).T @ weights_NK == pytest.approx(heads_DK, abs=1e-10)
    new_MD = rng.standard_normal((20_000, 120))
    wrong_K = ((new_MD * scale_D @ heads_DK) * new_MD[:, :1] < 0).mean(axis=0)
    assert seen.errors(weights_NK) == pytest.approx(wrong_K, abs=0.015)


@pytest.mark.parametrize("directions", [3, 400])
def test_a_gram_matrix_has_the_moments_of_so_many_directions(directions: int) -> None:
    rng = np.random.default_rng(directions)
    drawn = np.array([wishart(rng, 8, directions) for _ in range(1500)])
    on, off = drawn[:, 7, 7], drawn[:, 6, 2]
    assert on.mean() == pytest.approx(directions, abs=0.1 * directions**0.5)
    assert (on.var(), off.var()) == pytest.approx((2 * directions, directions), rel=0.15)


def test_the_thresholds_by_hand_and_the_step_that_leading_order_tends_to() -> None:
    toy = BenignOverfitting(p=4.0, q=0.5, r=0.25, p_weak=3.0, q_weak=1.95, r_weak=0.25)
    assert (toy.learns, toy.teaches) == pytest.approx((0.75, -0.4))  # min(3/4, 5 - 3/2) and 4 - 4.4
    assert (toy.threshold, toy.transcribed) == pytest.approx((0.65, 1.45))  # 2 × 2.2 - 3 - 3/4 and 2.2 - 3/4
    below, above = ([toy.expected(n, toy.threshold + by)[1] for n in (10**4, 10**8)] for by in (-0.2, 0.2))
    assert 0.4 < below[0] < below[1]
    assert 0.25 > above[0] > above[1]


def test_more_pseudo_labels_past_the_threshold_lower_the_error_of_a_student() -> None:
    errors = SMALL.simulate(0)
    student = errors.student_NRU.mean(axis=1)
    assert (student[:, 2] < student[:, 1] - 0.03).all()
    assert (student[:, 2] < errors.weak_NR.mean(axis=1) - 0.1).all()
    assert (errors.ceiling_NRU.mean(axis=1) < student).all()
    assert student[1, 1:] == pytest.approx([SMALL.expected(49, u)[1] for u in SMALL.us[1:]], abs=0.08)
    assert (SMALL.simulate(0).student_NRU == errors.student_NRU).all()
    table = SMALL.table(errors)
    assert table["error, student (n = 49, u = 1.4)"][0] == pytest.approx(student[1, 2])  # type: ignore[index]
    assert len(SMALL.draw(errors).axes[0].lines) > 2 * len(SMALL.us)


def test_where_a_curve_falls_for_good() -> None:
    us = (0.2, 0.4, 0.6, 0.8)
    assert falls_below(np.array([0.4, 0.2, 0.3, 0.2]), us) == pytest.approx(0.7)  # the dip before is none
    assert np.isnan(falls_below(np.array([0.4, 0.3, 0.3, 0.26]), us))


def test_a_projection_gains_its_misfit_and_a_ridge_head_that_is_too_short_less() -> None:
    on_rows = risks(H @ fit_head(H, TAUGHT), TAUGHT, TRUTH)
    assert on_rows == pytest.approx((0.075, 0.0741666667, 0.0008333333), abs=1e-9)
    assert on_rows.slack == pytest.approx(0, abs=1e-12)
    head = fit_head(H, TAUGHT, ridge=1.0)
    assert head == pytest.approx([0.95, 1.375], abs=1e-9)
    slack = risks(H @ head, TAUGHT, TRUTH).slack
    assert slack == pytest.approx(2 * head @ (head - HEAD) / 4, abs=1e-12)  # 2 × ridge × θ'(θ - θ*) / rows


def test_the_sweeps_hold_what_the_theory_says() -> None:
    curves = TINY.simulate(0)
    table = {name: cell[0] if isinstance(cell, Mean) else cell for name, cell in TINY.table(curves).items()}
    assert table["slack on the student's own rows, largest"] < misfit.EXACT
    held, of = map(int, table["ridge heads at least as long as the truth's: inequality holds"].split(" of "))
    assert held == of > 0
    assert table["slack under the largest penalty (0.1 a row)"] < 0
    gain = table["gain of students over their teachers, R_weak - R_student"]
    assert gain == pytest.approx(table["misfit"], abs=0.05)
    assert gain > 0.05
    outside = "truth with a part outside of the class (mean square 0.4): slack"
    assert table[outside] == pytest.approx(table["the same, expected"], abs=0.25)
    assert len(TINY.draw(curves).axes[0].lines) == 3


def test_ranks_are_correlated_in_each_replicate() -> None:
    found = misfit.rank_correlations(np.array([[1, 10, 1000.0], [1, 2, 3]]), np.array([[1, 2, 3.0], [3, 2, 1]]))
    assert found == pytest.approx([1, -1])


@pytest.mark.parametrize(("undefined", "has_interval"), [(25, True), (26, False)])
def test_a_figure_that_is_often_undefined_has_no_interval(undefined: int, has_interval: bool) -> None:
    calls = iter(range(501))
    found = over_resamples(lambda x: np.nan if 0 < next(calls) <= undefined else float(x.mean()), np.arange(8.0))
    assert (found.value, found.lo is not None) == (3.5, has_interval)


def test_flags_are_the_sizes_and_what_cannot_be_simulated_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ns", "25", "100", "--r-weak", "0", "--r", "0", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["benign_overfitting.py", *words])
    toy, seed, figure = from_command_line(BenignOverfitting, benign_overfitting.__file__, "A toy.")
    assert (toy, seed) == (BenignOverfitting(ns=(25, 100), r=0.0, r_weak=0.0), 3)
    assert figure == Path(benign_overfitting.__file__).with_suffix(".png")
    monkeypatch.setattr(sys, "argv", ["benign_overfitting.py", "--us", "0.5", "0.5"])
    with pytest.raises(SystemExit, match="2"):
        from_command_line(BenignOverfitting, "x.py", "A toy.")
    show({"a": Mean(0.5, 0.4, 0.6), "longer": "3 of 4"})
    assert capsys.readouterr().out == "a       0.500 [0.400, 0.600]\nlonger  3 of 4\n"
