"""What a process does that is told to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from w2sd.ending import AGAIN_S, ENDED, ends_when_told

TOLD_BY = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Every test leaves the handlers that it found."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may be run where it is ignored
    before = {number: signal.getsignal(number) for number in TOLD_BY}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == before


def tell(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Deaf:
    """Is told while it goes, where Python ignores exceptions."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        self.number = number

    def __del__(self) -> None:
        tell(self.number)
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


CODES = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@CODES
def test_a_process_ends_where_it_is_told_to(number: int, code: int) -> None:
    assert end_of(lambda: tell(number)) == code


@CODES
def test_ctrl_c_does_whatever_sigterm_does_at_the_time(number: int, code: int) -> None:
    """A training has it save first, and ends later."""
    done = []

    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: done.append("told"))
        tell(number)
        done.append("saved")
        sys.exit(ENDED)

    assert (end_of(work), done) == (code, ["told", "saved"])


def test_a_second_ctrl_c_is_not_ours() -> None:
    second = []

    def work() -> None:
        try:
            tell(signal.SIGINT)
        finally:
            second.append(signal.getsignal(signal.SIGINT))

    assert (end_of(work), second) == (130, [signal.SIG_DFL])


def test_ctrl_c_is_ignored_where_it_was() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert end_of(lambda: tell(signal.SIGINT)) is None
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_exit_keeps_its_code() -> None:
    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell(signal.SIGINT)
        sys.exit(1)

    assert end_of(work) == 1


@CODES
def test_what_is_told_where_exceptions_are_ignored_is_told_again(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = []

    def work() -> None:
        Deaf(number)
        heard.append("nothing")
        go_on(5)

    assert (end_of(work), heard) == (code, ["nothing"])
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
