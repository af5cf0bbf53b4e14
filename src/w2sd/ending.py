"""How a run ends that is told to by SIGTERM, as schedulers do it: tidily, and with an exit code of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENDED = 128 + signal.SIGTERM  # the code of a shell for what a signal ended; 0 would be a finished job


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Have SIGTERM leave this process as an exception does: locks are released, and half an artifact goes."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
