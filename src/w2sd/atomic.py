"""Write files whole or not at all: JSON in one form, and the digests of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one form (sorted, indented, no NaN), atomically."""
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    with beside(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` when the block is left; an exception leaves nothing of it behind.

    It is a file of its own for everyone who writes: where locks fail, another machine may be at the same thing.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: what is there now survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # as some network file systems answer for a folder
            raise
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
