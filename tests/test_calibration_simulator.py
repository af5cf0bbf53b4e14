"""The simulator behind docs/calibration.md: the same draws for the same seeds, and the page as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import verdict_errors
from verdict_errors import NULLS, PLANTED, Study, page, tally

PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"


def test_the_page_stands_as_the_simulator_writes_it() -> None:
    """All of it but the rows of the tables, which take hours: also its erratum."""
    without_rows = re.sub(r"(\|[-:| ]+\|\n)(\|.*\n)+", r"\1\n", PAGE.read_text())
    assert without_rows == page([], [])
    found = tally(NULLS[0], Study(1, 4, 400), 3)
    text = page([found, found._replace(n=3, n_shown=3)], [found._replace(scenario=PLANTED[0], coverage=0.5)])
    assert "| 0 of 3 | 0.000 [0.000, 0.561] | yes |" in text
    assert "| 3 of 3 | 1.000 [0.439, 1.000] | **no** |" in text
    assert "| 0.500 | **no** |" in text


def test_the_command_judges_every_scenario_and_the_same_seeds_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_errors, "N_NULL", 1)
    monkeypatch.setattr(verdict_errors, "N_PLANTED", 1)
    monkeypatch.setattr(verdict_errors, "STUDIES", (Study(1, 4, 300),))
    for name in ("one.md", "other.md"):
        assert verdict_errors.main(["--out", str(tmp_path / name)]) == 0
    text = (tmp_path / "one.md").read_text()
    assert text.count(" of 1 |") == len(NULLS) + len(PLANTED)
    assert text == (tmp_path / "other.md").read_text()
    tiny = Study(1, 4, 400)
    assert tally(NULLS[0], tiny, 2) != tally(NULLS[1], tiny, 2)
