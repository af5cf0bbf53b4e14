"""A report over a damaged store is right, or says what is damaged; `python -m tests.damage` is the long form."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from tests import damage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.build(tmp_path_factory.mktemp("damage") / "store")


def test_no_flipped_bit_changes_a_report_without_a_word(store: Path) -> None:
    counts = damage.count_flips(store, 6)
    assert {what: (found["silently other"], sum(found.values())) for what, found in counts.items()} == dict.fromkeys(
        damage.FLIPPED, (0, 6)
    )
    assert counts["records of jobs"]["damage told"] == 6
    assert counts["verdicts"]["the same"] == counts["specs of verdicts"]["the same"] == 6  # judged anew


def test_a_report_is_made_over_every_kind_of_damage_to_a_record(store: Path) -> None:
    kinds = [case for case in damage.cases() if case[1] == damage.RECORD]
    assert len(kinds) >= 65
    assert damage.find_failures(store, iter(kinds)) == []


def test_a_report_is_made_over_damage_to_artifacts(store: Path) -> None:
    others = [case for case in damage.cases() if case[1] != damage.RECORD]
    assert damage.find_failures(store, islice(others, 0, None, 9)) == []
    chosen = (
        "artifact",
        "committed",
        "spec, itself",
        "spec, a list as an input",
        "spec, pairs",
        "spec, a number as date",
    )
    assert damage.find_failures(store, (case for case in others if case[0].startswith(chosen))) == []
