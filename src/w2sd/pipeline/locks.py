"""Locks of a store: a file that one process at a time holds, and that goes when it is given up."""

from __future__ import annotations

import fcntl
import os
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from w2sd.errors import Refused


def take(path: Path) -> int | None:
    """Return the descriptor of a lock that is held from now on; None where another process holds it.

    The kernel frees it when the last process that has the descriptor ends: a child that inherits it holds it too.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # a link may lead anywhere
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # on NFS a file that is open keeps a link
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in (ENOLCK, ENOSYS, EOPNOTSUPP):
                raise Refused("store", str(path), "a file system with locks (Lustre: mounted with -o flock)") from error
            raise
        os.close(descriptor)  # whoever gave it up removed the file after we had opened it: others lock a new one


def give_up(path: Path, descriptor: int) -> None:
    """Free a lock, and remove its file unless another process holds it: a child that inherited it, or the next one."""
    os.close(descriptor)
    if (again := take(path)) is not None:
        path.unlink(missing_ok=True)
        os.close(again)
