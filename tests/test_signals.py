"""A process that a signal ends: its exit code, and what it still does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from w2sd.signals import TERMINATED, end_if_told, exit_on_signals

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Every test leaves the handlers that it found."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may be run where it is ignored
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def exit_code(work: Callable[[], None]) -> Any:
    """The exit code of work that is ended; None where it comes through."""
    try:
        with exit_on_signals():
            work()
    except SystemExit as end:
        return end.code
    return None


CODES = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@CODES
def test_a_signal_leaves_the_process_as_an_exception(number: int, code: int) -> None:
    tidied = []

    def work() -> None:
        try:
            send(number)
        finally:
            tidied.append("lock")

    assert (exit_code(work), tidied) == (code, ["lock"])


@CODES
def test_a_training_saves_first_whichever_the_signal(number: int, code: int) -> None:
    done = []

    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: done.append("signal"))
        send(number)
        done.append("saved")
        sys.exit(TERMINATED)

    assert (exit_code(work), done) == (code, ["signal", "saved"])


def test_a_second_ctrl_c_ends_at_once() -> None:
    second = []

    def work() -> None:
        try:
            send(signal.SIGINT)
        finally:
            second.append(signal.getsignal(signal.SIGINT))

    assert (exit_code(work), second) == (130, [signal.SIG_DFL])


def test_ctrl_c_is_ignored_where_it_was() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert exit_code(lambda: send(signal.SIGINT)) is None
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_exit_keeps_its_code() -> None:
    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        send(signal.SIGINT)
        sys.exit(1)

    assert exit_code(work) == 1


@CODES
def test_a_library_that_loses_or_wraps_the_exception_changes_nothing_about_the_exit(number: int, code: int) -> None:
    class Lost:
        def __del__(self) -> None:
            with suppress(SystemExit):
                send(number)

    def wrap() -> None:
        try:
            send(number)
        except SystemExit as end:
            raise ValueError("what a library makes of it") from end

    assert exit_code(Lost) == code
    assert exit_code(wrap) == code


@pytest.mark.parametrize("is_told", [False, True])
def test_a_stage_is_not_begun_where_the_exception_was_lost(is_told: bool) -> None:
    begun = []

    def work() -> None:
        with suppress(SystemExit):
            send(signal.SIGTERM if is_told else 0)
        end_if_told()
        begun.append("stage")

    assert (exit_code(work), begun) == ((143, []) if is_told else (None, ["stage"]))
    end_if_told()  # what comes after the work has been told nothing
