"""Runs by their overrides, each composed and built once in a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from w2sd.config import RunConfig

COMPOSED: dict[tuple[str, ...], RunConfig] = {}


@pytest.fixture
def asked(asked: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """The run of some overrides: a value, which tests can share."""

    def run(*overrides: str) -> RunConfig:
        if overrides not in COMPOSED:
            COMPOSED[overrides] = asked(*overrides)
        return COMPOSED[overrides]

    return run
