"""Write files whole or not at all: JSON in one form, with or without a digest in it, and the digests of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

DIGEST = b',\n "digest": '  # of a sealed file, after its other fields


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one form (sorted, indented, no NaN), atomically."""
    with beside(path) as part:
        part.write_text(_text(content) + "\n", encoding="utf-8")


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as `write_json` does, with a last field `digest`: the SHA-256 of all bytes before it."""
    body = _text(content).removesuffix("\n}").encode()
    with beside(path) as part:
        part.write_bytes(body + _seal(body))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the mapping that `write_sealed` wrote, without its digest; ValueError where one byte is not as written."""
    if not path.is_file():  # a pipe would keep its reader waiting
        raise ValueError(f"{path} is not a file")
    raw = path.read_bytes()
    body = raw.rpartition(DIGEST)[0]
    if raw != body + _seal(body):
        raise ValueError(f"{path} is not as it was written")
    try:
        content: dict[str, Any] = json.loads(body + b"\n}")
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error
    return content


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)


def _seal(body: bytes) -> bytes:
    return DIGEST + f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


@contextmanager
def beside(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A file to write that takes the place of `path` when the block is left; an exception leaves nothing of it behind.

    It is a file of its own for everyone who writes: where locks fail, another machine may be at the same thing.
    One that is not `durable` may be lost with the power, and then be found empty.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
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
