"""Rows for files to hold, what lies in a layout, read back from its tensors, and tables without places."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from w2sd.data.layout import Tokens
from w2sd.data.pairs import Item, Pair, Table

Rows = list[dict[str, Any]]


def some(n: int, start: int = 0) -> Rows:
    """Rows that a careless reader of any format would break: commas, quotes, newlines, other scripts."""
    odd = [' "quoted", and more', "\nsecond line", " ünïcødé 漢字", " \u2028 line separator", " plain"]
    return [
        {"prompt": f"question {i}{odd[i % 5]}", "chosen": f"good {i}{odd[(i + 1) % 5]}", "rejected": f"bad {i}"}
        for i in range(start, start + n)
    ]


def write(path: Path, rows: Rows) -> str:
    """Write rows to a file in the format of its suffix; return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    if ".csv" in name:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def answers_in(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    """The prompt and the answer of every answer, in the order of their numbers."""
    if tokens.mask is not None:
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
        return [(row[:-n], row[-n:]) for row, n in zip(rows, tokens.n_answer_B.tolist(), strict=True)]
    cuts = np.cumsum([n for size in tokens.sizes for n in size])
    parts = iter(np.split(tokens.ids[0].numpy(), cuts))
    texts = [[next(parts).tolist() for _ in size] for size in tokens.sizes]
    return [(text[0], text[slot]) for slot in range(1, len(texts[0])) for text in texts]


def anywhere(table: Table[Pair] | Table[Item]) -> tuple[list[Pair | Item], dict[str, int]]:
    """The rows of a table as they would be in any other file, and what was dropped."""
    return [example._replace(where="") for example in table.examples], table.dropped
