"""How a run ends that is told to, by SIGTERM from a scheduler or by Ctrl-C: tidily, with an exit code of its own."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM
from typing import Any

ENDED = 128 + SIGTERM  # the code of a shell for what a signal ended; 0 would be a finished job
INTERRUPTED = 128 + SIGINT
TOLD_BY = {ENDED: "SIGTERM", INTERRUPTED: "Ctrl-C"}
AGAIN_S = 0.1  # until a signal is sent once more that came where Python ignores exceptions


@contextmanager
def ends_when_told() -> Iterator[None]:
    """Have SIGTERM and Ctrl-C leave this process as an exception does: locks are released, and half an artifact goes.

    A second Ctrl-C ends it at once.
    """
    ending, before = _Ending(sys.unraisablehook), {told: signal.getsignal(told) for told in (SIGTERM, SIGINT)}
    signal.signal(SIGTERM, ending.end)
    if before[SIGINT] != signal.SIG_IGN:  # as it is in the background of a script, of which others are interrupted
        signal.signal(SIGINT, ending.interrupt)
    sys.unraisablehook = ending.ignored
    try:
        yield
    except SystemExit as end:
        if ending.is_interrupted and end.code == ENDED:
            raise SystemExit(INTERRUPTED) from None
        raise
    finally:
        ending.again.cancel()
        sys.unraisablehook = ending.hook
        for told, handler in before.items():
            signal.signal(told, handler)


class _Told(SystemExit):
    """What a signal raises, told apart from any other exit where Python ignores it."""


class _Ending:
    """Raises where a signal comes, and sees to it that this is not in vain.

    Python prints and drops what is raised in a `__del__` or in the callback of a weak reference.
    """

    def __init__(self, hook: Any) -> None:
        self.hook = hook
        self.n_under_way = 0  # exceptions that were raised and not dropped
        self.is_interrupted = False
        self.again = threading.Timer(0, lambda: None)

    def end(self, *_: Any) -> None:
        self.n_under_way += 1
        raise _Told(ENDED)

    def interrupt(self, *_: Any) -> None:
        """Do whatever SIGTERM does here: in a training it has a handler that saves first."""
        self.is_interrupted = True
        signal.signal(SIGINT, signal.SIG_DFL)
        signal.raise_signal(SIGTERM)

    def ignored(self, what: Any) -> None:
        if not isinstance(what.exc_value, _Told):
            self.hook(what)
            return
        self.n_under_way -= 1
        self.again = threading.Timer(AGAIN_S, self._send)
        self.again.daemon = True
        self.again.start()

    def _send(self) -> None:
        if not self.n_under_way:  # otherwise it would disturb an orderly end
            ident = threading.main_thread().ident
            assert ident is not None
            signal.pthread_kill(ident, SIGTERM)  # to this thread, so that it wakes if it waits
