"""The audit: virtual students have their dose, studies are counted as they should be, a table is written once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from candidates import CANDIDATES
from game import matrix, play
from students import DECOYS, NONE, OTHER_SEED, PLANTED, VIRTUAL, World, known, rows, virtual
from studies import CONTROLS, HARD, POWER, Tally, page, studies, tally
from tests.metrics.test_verdict import study
from w2sd.metrics.detectable import size_at_most
from w2sd.metrics.selective_loss import reference
from w2sd.metrics.verdict import CANNOT_TELL
from w2sd.predictions import Column, Predictions

ROOT = Path(__file__).parents[1]
TABLE, README = ROOT / "experiments/audit/development.csv", ROOT / "README.md"
N = 800


def table(margin: Column) -> Predictions:
    ids = [f"{n:04}" for n in range(N)]
    return Predictions(ids, [str(n % 40) for n in range(N)], 1 / (1 + np.exp(-margin.clip(-40, 40))), margin)


@pytest.fixture(scope="module")
def world() -> World:
    """Every second topic of eight is a blind spot, in which students with planted errors lose half of their belief."""
    rng = np.random.default_rng(0)
    topics = np.arange(N) % 8
    blind = topics % 2 == 0
    weak = np.where(blind, rng.normal(0, 0.7, N), 3 + rng.normal(0, 0.7, N))
    belief = 1 + rng.normal(size=N) + 0.3 * weak

    def student(loses: float = 0) -> Predictions:
        own = (1 - (loses + 0.1 * rng.normal()) * blind) * belief
        return table(own + 0.5 * rng.normal(size=N))

    arms = {NONE: 0.0, "more data": 0.0, PLANTED: 0.5, OTHER_SEED: 0.0}
    students = {(arm, seed): student(loses) for arm, loses in arms.items() for seed in range(8)}
    return World(
        table(weak), table(np.full(N, 6.0)), [student() for _ in range(8)], students, [f"t{topic}" for topic in topics]
    )


def test_planted_errors_are_found_and_virtual_nulls_are_not(world: World) -> None:
    found = rows(410, 1.0, world)
    assert set(found["arm"]) == {NONE, "more data", PLANTED, OTHER_SEED, *VIRTUAL}
    assert set(CANDIDATES) < set(found)
    assert tally(found, PLANTED, 1, 8) == Tally(1, 1)
    assert [tally(found, arm, 1, 8).n_shown for arm in (OTHER_SEED, "shift", "noise", "smaller scale")] == [0] * 4
    assert "| planted .125 |" in page(found)


def test_virtual_students_have_the_dose_of_those_with_planted_errors(world: World) -> None:
    measured = reference(world.weak, world.ceiling, world.twins)
    made = virtual(world, measured, np.random.default_rng(1))
    for seed in range(8):
        dose = known(measured, world.students[PLANTED, seed].margin)
        before = known(measured, world.students[OTHER_SEED, seed].margin)
        for name in ("shift", "noise", "topics shifted"):
            assert min(before, dose) - 0.03 < known(measured, made[name, seed].margin) <= max(dose, 0)
        assert np.allclose(made["smaller scale", seed].margin, 0.5 * world.students[OTHER_SEED, seed].margin)


def made_up(n_seeds_of: dict[int, int]) -> pd.DataFrame:
    """A table of worlds with so many seeds, in which every student of `a` has lost more than those of the controls."""
    lines = [
        {"world": world, "arm": arm, "seed": seed, "loss": seed / 100 + (arm == "a"), "loss_all_twins": -seed}
        for world, n_seeds in n_seeds_of.items()
        for arm in ("a", *CONTROLS)
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(lines)


def test_studies_share_no_world_and_have_enough_seeds() -> None:
    table = made_up({500: 8, 501: 4, 502: 8, 503: 4, 504: 3})
    assert list(studies(table, "a", 2, 4)) == [[500, 501], [502, 503]]
    assert list(studies(table, "a", 1, 8)) == [[500], [502]]
    assert list(studies(table, "b", 1, 4)) == []
    assert tally(table, "a", 1, 4) == Tally(4, 4)
    assert tally(table, "a", 1, 8) == Tally(0, 2)  # by all twins they are alike


def test_too_many_false_alarms_are_marked() -> None:
    assert [Tally(n, 20).is_too_many for n in (3, 4)] == [False, True]
    assert [Tally(n, 40).is_too_many for n in (4, 5)] == [False, True]
    assert str(Tally(18, 20)) == "18 of 20 [0.70, 0.97]"


def test_rates_that_are_quoted_are_those_of_the_table() -> None:
    worlds = pd.read_csv(TABLE)
    imitation, planted = tally(worlds, "imitation", 1, 4), tally(worlds, PLANTED, 1, 8)
    assert f"shown in {imitation.n_shown} of {imitation.n} embedded worlds" in CANNOT_TELL
    assert f"in {planted.n_shown} of {planted.n} worlds with eight students each" in README.read_text().replace(
        "\n", " "
    )
    trained = [tally(worlds, arm, 1, 8) for arm in DECOYS if arm not in HARD]
    made = [tally(worlds, arm, 1, 8) for arm in VIRTUAL if arm not in HARD]
    for arms, name in ((trained, "trained"), (made, "made")):
        counted = f"{sum(one.n_shown for one in arms)} of {sum(one.n for one in arms)} {name}"
        assert counted in README.read_text()


@pytest.mark.parametrize("n_seeds", [4, 8])
def test_what_score_prints_of_embedded_worlds_is_of_the_table(n_seeds: int) -> None:
    worlds = pd.read_csv(TABLE)
    nulls = [tally(worlds, arm, 1, n_seeds) for arm in DECOYS if arm not in HARD]
    planted, tabled = tally(worlds, PLANTED, 1, n_seeds), size_at_most(1, n_seeds)
    assert tabled is not None
    assert (tabled.false_alarms, tabled.null_studies) == tuple(map(sum, zip(*nulls, strict=True)))
    assert tabled.dose == (0.125 if planted.n_shown >= POWER * planted.n else None)


def test_the_game_counts_the_verdicts_of_each_world_whatever_arms_are_called() -> None:
    arms = {"planted": study(worlds=2, loses=0.5), "a decoy": study(worlds=2)[:9], "none": study()[:2]}
    found = play(arms)
    assert found == {
        "planted": {"shown": 2, "not_shown": 0, "not_testable": 0},
        "a decoy": {"shown": 0, "not_shown": 1, "not_testable": 1},
        "none": {"shown": 0, "not_shown": 0, "not_testable": 1},
    }
    words = dict(zip(arms, ("violet", "zebra", "anchor"), strict=True))
    assert play({words[arm]: replicates for arm, replicates in arms.items()}) == {
        words[arm]: counts for arm, counts in found.items()
    }
    assert "| planted | 2 | 0 | 0 | 1.00 [0.34, 1.00] |" in matrix(found)
