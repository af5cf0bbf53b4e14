"""Least-norm interpolation through Gram matrices: reference vector V34, and the same with every direction drawn."""

from __future__ import annotations

import numpy as np
import pytest

from w2sd.theory.interpolation import Seen, bi_level, levels, linear_score_error, sign_error, wishart


@pytest.mark.parametrize(
    ("snr", "expected"), [(0, 0.5), (0.5, 0.35241638234956674), (1, 0.25), (3, 0.10241638234956674)]
)
def test_the_error_of_a_linear_score(snr: float, expected: float) -> None:
    assert linear_score_error(snr) == pytest.approx(expected, abs=1e-9)
    assert sign_error(snr / np.hypot(1, snr)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("correlation", "expected"), [(0.5, 0.3333333333333), (0.8, 0.20483276469913342)])
def test_the_error_by_correlation(correlation: float, expected: float) -> None:
    assert sign_error(correlation) == pytest.approx(expected, abs=1e-9)
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=(2, 100_000))
    score = correlation * signal + np.sqrt(1 - correlation**2) * noise
    assert (signal * score < 0).mean() == pytest.approx(expected, abs=0.006)


def test_the_bi_level_spectrum() -> None:
    found = bi_level(100, 1.5, 0.6, 0.3)
    expected = (1000, 3.981071705534973, 0.06309573444801933, 15.848931924611136, 0.9406490568972324)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found.s * found.favoured + (found.d - found.s) * found.others == pytest.approx(found.d)


@pytest.mark.parametrize("seed", range(3))
def test_gram_matrices_give_the_interpolator_and_its_error_on_new_rows(seed: int) -> None:
    """Against the pseudo-inverse of the rows themselves, and against counting on rows that it has not seen."""
    rng, spectrum, n = np.random.default_rng(seed), levels(120, 3, 0.4), 30
    scale_D = np.sqrt([*[spectrum.favoured] * 3, *[spectrum.others] * 117])
    rows_ND = rng.standard_normal((n, 120))
    labels_NK = np.sign(rng.standard_normal((n, 2)) + rows_ND[:, :1])
    seen = Seen(rows_ND[:, 0], rows_ND[:, :3] @ rows_ND[:, :3].T, rows_ND[:, 3:] @ rows_ND[:, 3:].T, spectrum)
    weights_NK = seen.interpolate(labels_NK)
    heads_DK = np.linalg.pinv(rows_ND * scale_D) @ labels_NK
    assert (rows_ND * scale_D).T @ weights_NK == pytest.approx(heads_DK, abs=1e-10)
    new_MD = rng.standard_normal((40_000, 120))
    wrong_K = ((new_MD * scale_D @ heads_DK) * new_MD[:, :1] < 0).mean(axis=0)
    assert seen.errors(weights_NK) == pytest.approx(wrong_K, abs=0.012)


@pytest.mark.parametrize("directions", [0, 3, 8, 400])
def test_gram_matrices_are_those_of_that_many_directions(directions: int) -> None:
    """Mean and variance of entries on and off the diagonal: d and 2 d, 0 and d; and the rank."""
    rng, rows = np.random.default_rng(directions), 8
    drawn = np.array([wishart(rng, rows, directions) for _ in range(1500)])
    assert drawn == pytest.approx(drawn.swapaxes(1, 2))
    assert np.linalg.matrix_rank(drawn[0]) == min(rows, directions)
    on, off = drawn[:, 7, 7], drawn[:, 6, 2]
    spread = np.sqrt(directions)
    assert on.mean() == pytest.approx(directions, abs=0.1 * spread)
    assert off.mean() == pytest.approx(0, abs=0.1 * spread)
    assert (on.var(), off.var()) == pytest.approx((2 * directions, directions), rel=0.15)
