"""What the tests share: the refusal that a block raises or a command prints, and the figures of a comparison."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from w2sd.atomic import read_json
from w2sd.errors import Refused


@contextmanager
def refused(
    knob: str, value: Any = ANY, accepted: str = "", nearest: Any = None
) -> Iterator[pytest.ExceptionInfo[Refused]]:
    """Expect a refusal of one line: of this knob and value, with this suggestion or none.

    `accepted` holds words, each of which must be in what the refusal accepts: options and numbers, no sentence.
    """
    with pytest.raises(Refused) as caught:
        yield caught
    error = caught.value
    assert len(str(error).splitlines()) == 1
    assert (error.knob, error.nearest) == (knob, nearest)
    assert value is ANY or repr(error.value) == repr(value)
    assert _lacks(error.accepted, accepted) == []


def assert_refusal(
    line: str, knob: str, value: Any = ANY, accepted: str = "", nearest: Any = None, program: str = "w2sd"
) -> None:
    """Check that a command printed one line: the refusal that `refused` describes."""
    start, hint = (part.partition(repr(ANY))[0] for part in str(Refused(knob, value, "\0", nearest or ANY)).split("\0"))
    start = f"{program}: {start}"
    assert len(line.splitlines()) == 1
    assert line.startswith(start), line
    said, found, _ = line.removeprefix(start).partition(hint)
    assert bool(found) == bool(nearest), line
    assert _lacks(said, accepted) == [], line


def _lacks(text: str, words: str) -> list[str]:
    """The words that do not stand in a text as words of their own."""
    return [word for word in words.split() if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)]


def figures_of(folder: Path) -> dict[str, Any]:
    """All figures of a comparison: the headlines, and the others."""
    headlines, others = read_json(folder / "metrics.json"), read_json(folder / "diagnostics.json")
    assert not headlines.keys() & others.keys()
    return headlines | others


def comparisons(store: Path) -> dict[str, dict[str, Any]]:
    """The figures of every comparison in a store, by artifact."""
    return {folder.name: figures_of(folder) for folder in store.glob("artifacts/compare-*")}
