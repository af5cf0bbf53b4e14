"""What targets are made of: answers that are drawn, and their agreement."""

from __future__ import annotations

import numpy as np

from w2sd.supervision.base import agreed, votes


def test_the_mode_of_ten_answers_and_its_share() -> None:
    """V35: 12 is given seven times in ten, 7 twice and 9 once."""
    answers = np.array([12, 12, 7, 12, 9, 12, 12, 7, 12, 12])
    options = np.unique(answers)
    counts = (answers[:, None] == options).sum(axis=0)
    taught = [agreed(counts[None] / 10, threshold)[0] for threshold in (0.7, 0.71)]
    assert options[taught[0].argmax()] == 12
    assert taught[0].tolist() == [0, 0, 1]
    assert np.isnan(taught[1]).all()
    assert votes((counts / 10)[None], np.zeros(1), 10).sum() == 10


def test_votes_come_as_often_as_they_are_likely_and_depend_on_their_row_alone() -> None:
    rng = np.random.default_rng(5)
    p_NK, noise, order = rng.dirichlet(np.ones(3), size=400), rng.random(400), rng.permutation(400)
    counts = votes(p_NK, noise, 200)
    assert (counts.sum(axis=1) == 200).all()
    assert np.abs(counts / 200 - p_NK).max() < 5 * 0.5 / 200**0.5
    assert np.array_equal(votes(p_NK[order], noise[order], 200), counts[order])
    assert votes(np.zeros((0, 3)), np.zeros(0), 5).shape == (0, 3)
