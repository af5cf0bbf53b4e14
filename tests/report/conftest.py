"""Stores that several of these tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.report.writing import FakeStore


@pytest.fixture
def fake(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path / "store")


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as drawings alone: their images cost as much again."""
    monkeypatch.setattr("w2sd.report.figures.to_png", lambda name, figure: b"")


@pytest.fixture
def sweep(fake: FakeStore) -> FakeStore:
    """Two conflicts, three seeds each; one of the six has no PGR, for its ceiling is not above its teacher."""
    for conflict, base in (("NoConflict", 0.6), ("Explicit", 0.3)):
        for seed in (0, 1, 2):
            pgr = base + 0.1 * (seed - 1)
            changes: dict[str, Any] = {"pgr": pgr, "pgr_lo": pgr - 0.08, "pgr_hi": pgr + 0.08}
            if (conflict, seed) == ("Explicit", 2):
                changes = {"pgr": None, "pgr_lo": None, "pgr_hi": None, "accuracy__ceiling": 0.78}
            overrides = ["experiment=pair", f"conflict={conflict.lower()}", f"seed={seed}"]
            fake.add("pair", seed=seed, conflict=conflict, overrides=overrides, sweep="s1", **changes)
    return fake


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> FakeStore:
    """Four seeds with deception planted, four without, and what they have in common; tests only read it."""
    store = FakeStore(tmp_path_factory.mktemp("planted") / "store")
    for seed in range(4):
        store.add_conflict(seed, planted=0.3, steps=(72, 64))
        store.add_conflict(seed, planted=0.08, conflict="MoreData")
    return store


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path / "nothing"
