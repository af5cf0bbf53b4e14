"""Rows of tokens in files: they save work, and a file that is not what was written is worth as much as none."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from w2sd.atomic import beside
from w2sd.data.text import Row


def save(path: Path, rows: list[Row | None]) -> None:
    """Write the rows beside their place and rename them: no other process ever finds half of them."""
    sides = [side for row in rows if row for side in row.sides]
    arrays: dict[str, NDArray[np.int32]] = {
        "ids": np.concatenate([np.zeros(0, np.int32), *sides]),
        "sizes": np.array([list(map(len, row.sides)) if row else [0, 0, 0] for row in rows], np.int32),
        "said": np.array([[row.is_cut, row.is_tie] if row else [0, 0] for row in rows], np.int32),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path, durable=False) as part:
            save_file(arrays, part, {"digest": _digest(arrays)})
    except (OSError, SafetensorError) as error:  # a full disk, a store that can only be read
        _tell("%s cannot be written; others will make these tokens again (%s)", path, error)


def load(path: Path) -> list[Row | None] | None:
    """What `save` wrote; None if nothing is there, or something else."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in ("ids", "sizes", "said")}
            if (file.metadata() or {}).get("digest") != _digest(arrays):
                raise ValueError("its content has changed")
        sizes, said = arrays["sizes"], arrays["said"]
        are_rows = len(sizes) == len(said) == 0 or (sizes.shape, said.shape) == ((len(said), 3), (len(said), 2))
        are_ids = {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
        if not (are_rows and are_ids and (sizes >= 0).all() and sizes.sum() == len(arrays["ids"])):
            raise ValueError("these are no rows of tokens")
    except (OSError, SafetensorError, ValueError) as error:
        _tell("%s cannot be read; its tokens are made again (%s)", path, error)
        return None
    sides = iter(np.split(arrays["ids"], sizes.ravel().cumsum())[:-1])
    rows = zip(sides, sides, sides, said.astype(bool).tolist(), strict=True)
    return [Row(prompt, chosen, rejected, *flags) if len(prompt) else None for prompt, chosen, rejected, flags in rows]


def _digest(arrays: dict[str, NDArray[np.int32]]) -> str:
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(f"{name}{array.shape}".encode() + array.tobytes())
    return whole.hexdigest()


def _tell(line: str, path: Path, error: Exception) -> None:
    logging.getLogger(__name__).warning(line, path, str(error).partition("\n")[0])
