"""Predictions that any framework wrote: Parquet, CSV or JSONL, rows in any order, refused with file and line.

Needed are `id` and `margin` or `p_correct` or both, oriented to the truth: a margin (in logits) above 0 and a
confidence above 1/2 prefer the better answer. Optional are `cluster` (else every id is one), `stratum` (the true
difficulty of the pair), `n_chosen` and `n_rejected` (tokens). Other columns are not looked at.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from w2sd.errors import Refused, nearest, require
from w2sd.metrics.predictions import Predictions, join
from w2sd.metrics.statistics import Column

COLUMNS = ("id", "margin", "p_correct", "cluster", "stratum", "n_chosen", "n_rejected")
_SURE = 1e-12  # confidences of 0 and 1 have infinite logits, so those of confidences this close are taken


class Rows(NamedTuple):
    """A file as it was read: the columns by name, and where each row stands in it."""

    columns: dict[str, list[Any]]
    places: list[str]
    names: list[str]  # of all columns, also those that are not looked at


def read_all(paths: Sequence[str]) -> dict[str, Predictions]:
    """The predictions of each file, all over the same pairs in one order; what differs from the first is refused.

    A file that does not say something about its pairs takes it over from the first file that does.
    """
    tables = {path: _predictions(path) for path in dict.fromkeys(paths)}
    first = tables[paths[0]]
    for path, table in tables.items():
        different = sorted(set(table.ids) ^ set(first.ids))
        accepted = f"the ids of {paths[0]}; {len(different)} are in one of the two files only"
        require(not different, f"{path}: id", next(iter(different), None), accepted)
    clustered = next((table for table in tables.values() if table.clusters), first)
    cluster = dict(zip(clustered.ids, clustered.clusters or clustered.ids, strict=True))
    whole = {
        path: table if table.clusters else table._replace(clusters=[cluster[id] for id in table.ids])
        for path, table in tables.items()
    }
    joined = join(whole)
    stratum = next((table.stratum for table in joined.values() if table.stratum), None)
    measured = (table for table in joined.values() if table.n_chosen is not None and table.n_rejected is not None)
    lengths = next(measured, joined[paths[0]])
    for path, table in joined.items():
        joined[path] = table._replace(stratum=stratum)
        if table.n_chosen is None or table.n_rejected is None:
            joined[path] = joined[path]._replace(n_chosen=lengths.n_chosen, n_rejected=lengths.n_rejected)
    return joined


def _predictions(path: str) -> Predictions:
    """One file, checked row by row; no clusters where it has no such column."""
    rows = _read(path)
    require(bool(rows.places), path, "a file without rows", "at least one row")
    for needed, options in (("id", ("id",)), ("margin or p_correct", ("margin", "p_correct"))):
        if not any(option in rows.columns for option in options):
            raise Refused(
                f"{path}: columns", rows.names, f"a column {needed}", nearest=nearest(options[-1], rows.names)
            )
    ids = _convert(rows, "id", _text)
    seen: dict[str, str] = {}
    for id, place in zip(ids, rows.places, strict=True):
        require(id not in seen, f"{place}: id", id, f"each id once; it is also in {seen.get(id)}")
        seen[id] = place
    margin, p_correct = _beliefs(rows)
    clusters = _convert(rows, "cluster", _text) if "cluster" in rows.columns else []
    stratum = _convert(rows, "stratum", _text) if "stratum" in rows.columns else None
    n_chosen, n_rejected = (
        np.array(_convert(rows, name, _tokens), dtype=np.int64) if name in rows.columns else None
        for name in ("n_chosen", "n_rejected")
    )
    return Predictions(ids, clusters, p_correct, margin, stratum=stratum, n_chosen=n_chosen, n_rejected=n_rejected)


def _beliefs(rows: Rows) -> tuple[Column, Column]:
    """Margin and confidence, one from the other where a file has only one of them."""
    if "p_correct" in rows.columns:
        p = np.array(_convert(rows, "p_correct", _share))
        clipped = np.clip(p, _SURE, 1 - _SURE)
        logits: Column = np.log(clipped) - np.log1p(-clipped)
    if "margin" not in rows.columns:
        return logits, p
    margin = np.array(_convert(rows, "margin", _number))
    if "p_correct" not in rows.columns:
        with np.errstate(over="ignore"):  # exp(800) is infinite, and 1 / (1 + inf) is right
            return margin, 1 / (1 + np.exp(-margin))
    opposite = np.sign(margin) * np.sign(p - 0.5) < 0
    if opposite.any():
        row = int(opposite.argmax())
        accepted = f"the sign of p_correct - 0.5, which is {p[row] - 0.5:g}"
        raise Refused(f"{rows.places[row]}: margin", float(margin[row]), accepted)
    return margin, p


def _convert(rows: Rows, name: str, to: Callable[[Any], Any]) -> list[Any]:
    """One column with every value converted; the first that cannot be is refused by its place."""
    values = []
    for place, value in zip(rows.places, rows.columns[name], strict=True):
        try:
            values.append(to(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise Refused(f"{place}: {name}", value, str(error)) from None
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool | float) or value is None or not str(value):
        raise ValueError("a text or a whole number")
    return str(value)


def _number(value: Any, accepted: str = "a finite number") -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(accepted)
    return number


def _share(value: Any) -> float:
    share = _number(value, "a number from 0 to 1")
    if not 0 <= share <= 1:
        raise ValueError("a number from 0 to 1")
    return share


def _tokens(value: Any) -> int:
    number = _number(value, "a whole number of at least 0")
    if number < 0 or number != int(number):
        raise ValueError("a whole number of at least 0")
    return int(number)


def _read(path: str) -> Rows:
    """The rows of a file by what its name ends with; one that cannot be read is refused, whatever the reason."""
    kinds = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    kind = Path(path).suffix.lower()
    require(kind in kinds, path, kind, "a name that ends in " + ", ".join(kinds))
    try:
        return kinds[kind](path)
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError and pyarrow's are ValueErrors or OSErrors
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        first = next(iter(reason.splitlines()), type(error).__name__)
        raise Refused(path, first, f"a readable {kind.removeprefix('.')} file") from None


def _csv(path: str) -> Rows:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        return _gather(path, list(reader.fieldnames or []), ((reader.line_num, row) for row in reader))


def _jsonl(path: str) -> Rows:
    def lines() -> Iterator[tuple[int, dict[str, Any]]]:
        with open(path, encoding="utf-8-sig") as file:
            for n, line in enumerate(file, 1):
                try:
                    row = json.loads(line) if line.strip() else None
                except ValueError:
                    row = line.strip()
                if row is not None:
                    require(isinstance(row, dict), f"{path}:{n}", row, "one JSON object in each line")
                    yield n, row

    rows = list(lines())
    return _gather(path, list(dict.fromkeys(name for _, row in rows for name in row)), iter(rows))


def _gather(path: str, names: list[str], rows: Iterator[tuple[int, dict[str, Any]]]) -> Rows:
    columns: dict[str, list[Any]] = {name: [] for name in names if name in COLUMNS}
    places = []
    for line, row in rows:
        require(None not in row, f"{path}:{line}", row.get(None), "as many cells as the header has")  # type: ignore[call-overload]
        places.append(f"{path}:{line}")
        for name, column in columns.items():
            column.append(row.get(name))
    return Rows(columns, places, names)


def _parquet(path: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in names if name in COLUMNS])
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    return Rows(table.to_pydict(), [f"{path}: row {n}" for n in range(1, table.num_rows + 1)], names)
