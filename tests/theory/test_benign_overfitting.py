"""The bench of benign overfitting: its thresholds, what more pseudo-labels do, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.builders import refused

from w2sd.theory import benign_overfitting
from w2sd.theory.benign_overfitting import BenignOverfitting, _falls_below, _mean_error
from w2sd.theory.interpolation import wishart

SMALL = BenignOverfitting(ns=[16, 49], us=[0.4, 0.9, 1.4], replicates=12)


def simulate(theory: BenignOverfitting, seed: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    found = theory.simulate(seed, lambda done, total: None)
    shape = (len(theory.ns), theory.replicates, len(theory.us))
    curves = {name: np.reshape(found.curves[name], shape) for name in ("weak", "student", "ceiling")}
    return found.metrics, curves


def test_the_thresholds_by_hand() -> None:
    theory = BenignOverfitting(p=4.0, q=0.5, r=0.25, p_weak=3.0, q_weak=1.95, r_weak=0.25)
    assert theory.learns == pytest.approx(0.75)  # min(3/4, 5 - 3/2)
    assert theory.teaches == pytest.approx(-0.4)  # 4 - 4.4
    assert theory.threshold == pytest.approx(0.65)  # 2 × 2.2 - 3 - 3/4
    assert theory.transcribed == pytest.approx(1.45)  # 2.2 - 3/4
    assert dataclasses.replace(theory, q=1.9).learns == pytest.approx(0.7)  # 5 - 4.3


def test_the_leading_order_tends_to_a_step_at_its_threshold() -> None:
    """Below it the student falls to chance as n grows, above it errs less and less; the weak model is at chance."""
    theory = BenignOverfitting()
    below, above = ([theory.expected(n, theory.threshold + by)[1] for n in (10**4, 10**8)] for by in (-0.2, 0.2))
    assert 0.4 < below[0] < below[1]
    assert 0.25 > above[0] > above[1]
    assert theory.expected(10**8, 1.0)[0] > 0.49


def test_more_pseudo_labels_past_the_threshold_lower_the_error() -> None:
    metrics, curves = simulate(SMALL)
    student = curves["student"].mean(axis=1)
    assert (student[:, 2] < student[:, 1] - 0.03).all()
    assert (student[:, 2] < curves["weak"].mean(axis=(1, 2)) - 0.1).all()
    assert (curves["ceiling"].mean(axis=1) < student).all()
    assert metrics["error/student"] == pytest.approx(student[1, 2])
    few, many = student[:, SMALL.us.index(metrics["between/u"])]
    assert metrics["between/change"] == pytest.approx(many - few)
    assert metrics["error/student_lo"] < metrics["error/student"] < metrics["error/student_hi"]


def test_the_simulation_is_near_its_leading_order() -> None:
    _, curves = simulate(dataclasses.replace(SMALL, ns=[16, 81], us=[1.0, 1.2], replicates=30))
    found = [curves["weak"][1].mean(), *curves["student"][1].mean(axis=0)]
    weak, first = SMALL.expected(81, 1.0)
    assert found == pytest.approx([weak, first, SMALL.expected(81, 1.2)[1]], abs=0.04)


def test_a_student_is_left_with_the_errors_that_its_teacher_makes_everywhere() -> None:
    """In directions that the weak model favours as well, however many labels there are."""
    theory = BenignOverfitting(r=0.8, q_weak=1.5, r_weak=0.8, ns=[8, 16], us=[1.0, 2.0], replicates=20)
    _, curves = simulate(theory)
    floor = theory.expected(16, 2.0)[1]
    assert curves["student"][1, :, 1].mean() == pytest.approx(floor, abs=0.03)
    assert floor > 0.2 > 4 * curves["ceiling"][1, :, 1].mean()


@pytest.mark.parametrize(("signal", "luck", "noise"), [(0.3, 0.5, 0.2), (0.0, 0.5, 0.1), (0.4, 0.0, 0.4)])
def test_luck_is_averaged_over_replicates(signal: float, luck: float, noise: float) -> None:
    z = np.random.default_rng(0).standard_normal(100_000)
    errors = 0.5 - np.arctan((signal**0.5 + luck**0.5 * z) / noise**0.5) / np.pi
    assert _mean_error(signal, luck, noise) == pytest.approx(errors.mean(), abs=0.003)


def test_the_strong_model_sees_every_direction_once(monkeypatch: pytest.MonkeyPatch) -> None:
    theory, asked = dataclasses.replace(SMALL, r=0.5), []
    monkeypatch.setattr(benign_overfitting, "wishart", lambda rng, rows, n: asked.append(n) or wishart(rng, rows, n))
    theory.replicate(17, np.random.default_rng(0))  # of which no power here is whole
    strong, weak = theory.spectra(17)
    assert weak.s < strong.s
    assert 1 + sum(asked) == strong.d


def test_the_exponent_of_a_signal_over_noise_that_falls_as_n_grows() -> None:
    theory = dataclasses.replace(SMALL, ns=[16, 64])
    few, many = (np.full(3, np.arctan(1 / snr) / np.pi) for snr in (4.0, 1.0))
    assert theory._exponent(few, many) == pytest.approx(-1)


def test_a_seed_decides_everything_and_nothing_else_does() -> None:
    one, again, other = (simulate(SMALL, seed)[1]["student"] for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).all()
    fewer = simulate(dataclasses.replace(SMALL, replicates=3))[1]["student"]
    assert (one[:, :3] == fewer).all()


def test_where_a_curve_falls_for_good() -> None:
    us = [0.2, 0.4, 0.6, 0.8]
    assert _falls_below(np.array([0.4, 0.3, 0.2, 0.1]), us) == pytest.approx(0.5)
    assert _falls_below(np.array([0.4, 0.2, 0.3, 0.2]), us) == pytest.approx(0.7)  # the first dip is none
    assert np.isnan(_falls_below(np.array([0.4, 0.3, 0.3, 0.26]), us))
    assert np.isnan(_falls_below(np.array([0.2, 0.1, 0.1, 0.1]), us))


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        ({"p": 1.0}, ("p", 1.0, "1 6")),
        ({"q_weak": 2.75}, ("q_weak", 2.75, "0 p_weak r_weak 2.75")),
        ({"ns": [16]}, ("ns", [16], "3")),
        ({"us": [0.5, 0.5]}, ("us", [0.5, 0.5], "0")),
        ({"us": [0.5, 1.6]}, ("us", 1.6, "1.50")),
        ({"p_weak": 4.5}, ("p_weak", 4.5)),
        ({"r_weak": 0.5}, ("p_weak",)),
        ({"replicates": 1}, ("replicates", 1, "2")),
    ],
)
def test_what_cannot_be_simulated_is_refused(knobs: dict[str, Any], refusal: tuple[Any, ...]) -> None:
    with refused(*refusal):
        BenignOverfitting(**knobs)
