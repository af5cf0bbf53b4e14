"""End on SIGTERM, Ctrl-C or a closed pipe in good order, with the exit code that a shell gives for the signal."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from signal import SIGINT, SIGPIPE, SIGTERM
from typing import Any

TERMINATED = 128 + SIGTERM  # the exit code that a shell gives a process which a signal ended
INTERRUPTED = 128 + SIGINT
PIPE_CLOSED = 128 + SIGPIPE
SIGNAL_NAMES = {TERMINATED: "SIGTERM", INTERRUPTED: "Ctrl-C"}
POLL_S = 1.0  # between two looks at whether a parent is there
GRACE_S = 5.0  # for a last checkpoint, once it is not


told: list[int] = []  # the exit code, once a signal has told this process to end


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into SystemExit, so that locks are released and drafts removed; a second Ctrl-C kills.

    Ctrl-C raises SIGTERM: a training, which handles SIGTERM itself, saves a checkpoint first. A library may lose the
    exception (C code that asks for an attribute does) or wrap it in its own: the exit is the same, if later.
    """
    previous = {number: signal.getsignal(number) for number in (SIGTERM, SIGINT)}
    is_interrupted = False

    def terminate(*_: Any) -> None:
        told.append(INTERRUPTED if is_interrupted else TERMINATED)
        end_if_told()

    def interrupt(*_: Any) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        signal.signal(SIGINT, signal.SIG_DFL)
        signal.raise_signal(SIGTERM)

    signal.signal(SIGTERM, terminate)
    if previous[SIGINT] != signal.SIG_IGN:  # a script that runs in the background ignores Ctrl-C
        signal.signal(SIGINT, interrupt)
    try:
        yield
        end_if_told()
    except BaseException as error:
        if is_interrupted and isinstance(error, SystemExit) and error.code == TERMINATED:  # a training has ended
            raise SystemExit(INTERRUPTED) from None
        if told:
            raise SystemExit(told[0]) from None
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        told.clear()


def end_if_told() -> None:
    """End now if a signal has told this process to, and a library has lost it."""
    if told:
        raise SystemExit(told[0])


@contextmanager
def exit_on_closed_pipe() -> Iterator[None]:
    """Exit without a traceback where nobody reads standard output any more, as in `w2sd --help | head -1`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it exits
        raise SystemExit(PIPE_CLOSED) from None


@cache
def end_with(parent: int, pipe: int | None = None) -> None:
    """End this process by SIGTERM, then at once, when its parent has ended or the other end of a pipe is closed.

    A parent that SIGKILL ends can tell nobody, and Linux alone tells for it (PR_SET_PDEATHSIG, and that when the thread
    ends which started the child). The pipe is for a parent's parent: the run that started torchrun.
    """

    def watch() -> None:
        while os.getppid() == parent and not _is_closed(pipe):
            time.sleep(POLL_S)
        os.kill(os.getpid(), SIGTERM)
        time.sleep(GRACE_S)
        os._exit(TERMINATED)

    threading.Thread(target=watch, name="end_with", daemon=True).start()


def _is_closed(pipe: int | None) -> bool:
    """Whether the other end of a pipe, on which nothing ever comes, is closed."""
    return pipe is not None and bool(select.select([pipe], [], [], 0)[0])
