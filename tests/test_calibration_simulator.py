"""The simulator behind docs/calibration.md: the same draws for the same seeds, and the page as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import verdict_errors
from verdict_errors import HARD, NULLS, PLANTED, Study, Tally, World, page, resemblance, tally

PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"


def test_the_page_stands_as_the_simulator_writes_it() -> None:
    """All of it but the rows of the tables, which take minutes, and the count of intervals."""
    without_rows = re.sub(r"(\|[-:| ]+\|\n)(\|.*\n)+", r"\1\n", PAGE.read_text())
    without_count = re.sub(r"effect\n[\d,]+ of [\d,]+ \(.*\)\n", "effect\nnone\n", without_rows)
    assert without_count == page([], [], [])


def test_cells_are_bold_where_the_level_does_not_allow_them() -> None:
    cells = [Tally(case, Study(1, 8, 4000), True, 40, 0, 38, 0.1) for case in NULLS[:2]]
    text = page([cells[0]._replace(n_shown=4), cells[1]._replace(n_shown=5)], [], cells)
    assert "| another seed | 4 | 4 of 40 | 0.100 [0.040, 0.231] |" in text
    assert "| **5** | **5** of 40 |" in text
    assert "| all | **9** | **9** of 80 |" in text
    assert "152 of 160 (0.950" in text


@pytest.mark.parametrize("visible", [True, False])
def test_students_resemble_trained_ones(visible: bool) -> None:
    found = resemblance(visible, 8)
    assert found["weak"] == pytest.approx(0.775, abs=0.015)
    assert found["students"] == pytest.approx(0.92, abs=0.015)
    assert found["ceiling"] == pytest.approx(0.996, abs=0.002)
    assert 0.67 <= found["gap"] <= 1.12
    assert 0.1 <= found["sd"] <= 0.2


def test_each_case_moves_margins_and_half_of_the_harmed_topics_are_blind() -> None:
    world = World(400, True, np.random.default_rng(0))
    margins = world.students(3)
    for case in (*NULLS[1:], *HARD, *PLANTED):
        assert not np.array_equal(case.change(world, margins), margins), case.name
    assert len(set(world.topic[world.harmed() & world.blind])) == len(set(world.topic[world.harmed() & ~world.blind]))


def test_the_command_judges_every_case_and_the_same_seeds_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_errors, "N_STUDIES", 1)
    monkeypatch.setattr(verdict_errors, "STUDIES", (Study(1, 4, 200),))
    monkeypatch.setattr(verdict_errors, "resemblance", lambda visible: resemblance(visible, 1))
    for name in ("one.md", "other.md"):
        assert verdict_errors.main(["--out", str(tmp_path / name)]) == 0
    text = (tmp_path / "one.md").read_text()
    assert text.count(" of 2 |") == len(NULLS) + len(HARD)
    assert text.count(" of 1 |") == len(PLANTED)
    assert text == (tmp_path / "other.md").read_text()
    tiny = Study(1, 4, 200)
    assert tally(PLANTED[2], tiny, True, 3).effect > tally(NULLS[0], tiny, True, 3).effect
