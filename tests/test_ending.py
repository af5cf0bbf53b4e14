"""What a process does that is told to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from w2sd.ending import AGAIN_S, ends_when_told

TOLD_BY = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Every test leaves the handlers that it found."""
    before = {number: signal.getsignal(number) for number in TOLD_BY}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == before


def tell(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Deaf:
    """Is told while it goes, where Python ignores exceptions."""

    def __del__(self) -> None:
        tell()
        time.sleep(0)


def go_on(seconds: float) -> None:
    """Work of many short steps, as a run's is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def end_of(work: Callable[[], None]) -> Any:
    """The exit code of what is told to end at work; None where it comes through."""
    try:
        with ends_when_told():
            work()
    except SystemExit as end:
        return end.code
    return None


def test_a_process_ends_where_it_is_told_to() -> None:
    assert end_of(tell) == 143


def test_what_is_told_where_exceptions_are_ignored_is_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    heard = []

    def work() -> None:
        Deaf()
        heard.append("nothing")
        go_on(5)

    assert (end_of(work), heard) == (143, ["nothing"])
    assert "Exception ignored" not in capsys.readouterr().err


def test_an_orderly_end_is_not_disturbed_by_what_is_told_again() -> None:
    tidied = []

    def work() -> None:
        try:
            tell()
        finally:
            Deaf()
            go_on(3 * AGAIN_S)
            tidied.append("everything")

    assert (end_of(work), tidied) == (143, ["everything"])


def test_who_has_done_everything_is_told_nothing_more() -> None:
    assert end_of(Deaf) is None
    go_on(3 * AGAIN_S)  # the signal would end the tests


def test_other_exceptions_that_are_ignored_are_still_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", hook := lambda what: shown.append(what.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ValueError

    with ends_when_told():
        Broken()
    assert shown == [ValueError]
    assert sys.unraisablehook is hook
