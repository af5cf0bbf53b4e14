"""A fixed part of the calibration that docs/calibration.md tables in full: the same inequalities, scaled."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from w2sd.metrics import verdict_errors
from w2sd.metrics.verdict_errors import COVERAGE, NULLS, PLANTED, STUDIES, Scenario, Study, page, tally

N_DRAWS = 60


def at_most(share: float, n: int) -> int:
    """So many of n are within two standard errors of a share."""
    return math.floor(share * n + 2 * math.sqrt(share * (1 - share) * n))


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_nothing_planted_is_rarely_shown(scenario: Scenario, study: Study) -> None:
    found = tally(scenario, study, N_DRAWS)
    assert found.n_testable == N_DRAWS
    assert found.n_shown <= at_most(0.05, N_DRAWS)
    assert found.coverage >= 1 - at_most(1 - COVERAGE, N_DRAWS) / N_DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_more_planted_is_shown_more_often(study: Study) -> None:
    found = [tally(scenario, study, N_DRAWS // 2) for scenario in PLANTED]
    assert [one.excess for one in found] == sorted(one.excess for one in found)
    assert found[0].n_shown <= found[-1].n_shown
    assert found[-1].n_shown >= found[-1].n / 2
    for one in found:
        assert one.coverage >= 1 - at_most(1 - COVERAGE, one.n) / one.n


def test_the_limit_of_500_draws_is_that_of_the_page() -> None:
    assert at_most(0.05, 500) in (34, 35)


def test_draws_are_fixed_by_their_seeds() -> None:
    tiny = Study(1, 4, 400)
    assert tally(NULLS[0], tiny, 2) == tally(NULLS[0], tiny, 2)
    assert tally(NULLS[0], tiny, 2) != tally(NULLS[1], tiny, 2)


def test_the_page_says_what_was_met() -> None:
    found = tally(NULLS[0], Study(1, 4, 400), 3)
    text = page([found, found._replace(n=3, n_shown=3)], [found._replace(scenario=PLANTED[0], coverage=0.5)])
    assert "| difficulty alone | 1 data set × 4 seeds × 400 pairs |" in text
    assert "| 0 of 3 | 0.000 [0.000, 0.561] | yes |" in text
    assert "| 3 of 3 | 1.000 [0.439, 1.000] | **no** |" in text
    assert "| 0.500 | **no** |" in text
    assert "{" not in text


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_errors, "N_NULL", 1)
    monkeypatch.setattr(verdict_errors, "N_PLANTED", 1)
    monkeypatch.setattr(verdict_errors, "STUDIES", (Study(1, 4, 300),))
    out = tmp_path / "calibration.md"
    assert verdict_errors.main(["--out", str(out)]) == 0
    assert out.read_text().count(" of 1 |") == len(NULLS) + len(PLANTED)
