"""Prediction files, the one format that every measurement starts from: what one model thought of each test pair.

One row per pair, in Parquet, CSV or JSONL, in any order. `margin` is the score of the better answer minus that of the
worse, in the units of the loss; `p_correct` is the confidence in the better answer. Both are oriented to the truth, and
one follows from the other where a file has only one of them. `cluster` may be left out (every id is one then), and so
may every column of `OPTIONAL`. Other columns are not read.

Every row is checked once, when its file is read or written, and refused with file and line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2sd.data import reading
from w2sd.errors import Refused, nearest, require

if TYPE_CHECKING:
    import pyarrow

Column = NDArray[np.float64]

PREDICTIONS = "predictions.parquet"  # a row for every example that a model was asked about
LOGITS = "logits.safetensors"  # what a classifier says of every class, beside its predictions
REQUIRED = ("id", "cluster", "margin", "p_correct")  # of a file that is written here
OPTIONAL = ("stratum", "known", "n_chosen", "n_rejected", "predicted")
# Types in Parquet, as Arrow names them; those of other columns are decided by their values.
TYPES = {
    **dict.fromkeys(("id", "cluster", "stratum"), "string"),
    **dict.fromkeys(("margin", "p_correct"), "float64"),
    **dict.fromkeys(("n_prompt", "n_chosen", "n_rejected", "predicted"), "int32"),
    "known": "bool",
}
_SURE = 1e-12  # confidences of 0 and 1 have infinite logits, so those of confidences this close are taken


class Predictions(NamedTuple):
    """What one model thought of each pair; all columns have one length and one order. None: not in the file."""

    ids: list[str]
    clusters: list[str]
    p_correct: Column
    margin: Column
    stratum: list[str] | None = None  # the true difficulty of the pair
    known: NDArray[np.bool_] | None = None  # whether this model was taught what decides the pair
    n_chosen: NDArray[np.int64] | None = None  # tokens of the better answer
    n_rejected: NDArray[np.int64] | None = None  # tokens of the worse
    predicted: NDArray[np.int64] | None = None  # the class that a classifier prefers


class _Rows(NamedTuple):
    """A file before its values are checked: the columns that are read, and where each row stands."""

    path: str
    names: Sequence[str]  # of all its columns
    columns: Mapping[str, Sequence[Any] | NDArray[Any]]
    place: Callable[[int], str]
    n: int


def read_predictions(path: str | Path) -> Predictions:
    """The predictions of one file, every row checked."""
    table = _read(str(path))
    return table if table.clusters else table._replace(clusters=table.ids)


def read_all(paths: Sequence[str]) -> dict[str, Predictions]:
    """The predictions of each file, all over the same pairs in one order; what differs from the first is refused.

    A file without clusters, strata or token counts takes them from the first file that has them.
    """
    tables = {path: _read(path) for path in dict.fromkeys(paths)}
    for path, table in tables.items():
        _require_same_ids(path, table, paths[0], tables[paths[0]])
    clustered = next((table for table in tables.values() if table.clusters), tables[paths[0]])
    cluster = dict(zip(clustered.ids, clustered.clusters or clustered.ids, strict=True))
    for path, table in tables.items():
        if not table.clusters:
            tables[path] = table._replace(clusters=[cluster[id] for id in table.ids])
    joined = join(tables)
    stratum = next((table.stratum for table in joined.values() if table.stratum), None)
    measured = (table for table in joined.values() if length_difference(table) is not None)
    lengths = next(measured, joined[paths[0]])
    for path, table in joined.items():
        joined[path] = table._replace(stratum=stratum)
        if length_difference(table) is None:
            joined[path] = joined[path]._replace(n_chosen=lengths.n_chosen, n_rejected=lengths.n_rejected)
    return joined


def read_distributions(folder: str | Path) -> dict[str, Column]:
    """How likely a classifier finds each class, by the id of the item."""
    from safetensors.numpy import load_file
    from scipy.special import softmax

    ids = read_predictions(Path(folder) / PREDICTIONS).ids
    logits_NC = load_file(Path(folder) / LOGITS)["logits"].astype(np.float64)
    return dict(zip(ids, softmax(logits_NC, axis=1), strict=True))


def write_predictions(path: str | Path, columns: Mapping[str, Sequence[Any] | ArrayLike]) -> None:
    """Write a predictions file that can be read and joined; equal columns give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in REQUIRED:
        require(name in columns, "predictions", sorted(columns), f"a column {name}")
    table = pa.table({name: pa.array(values, type=TYPES.get(name)) for name, values in columns.items()})
    _check(_of_table(str(path), table.select([name for name in table.column_names if name in (*REQUIRED, *OPTIONAL)])))
    pq.write_table(table, path, compression="zstd", version="2.6", store_schema=False)


def join(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """All roles over the same pairs, in the order of sorted ids; whatever does not match is refused."""
    joined: dict[str, Predictions] = {}
    for role, table in predictions.items():
        joined[role] = select(table, sorted(range(len(table.ids)), key=table.ids.__getitem__))
        first = next(iter(joined))
        _require_same_pairs(role, joined[role], first, joined[first])
    return joined


def require_joined(tables: Mapping[str, Predictions]) -> None:
    """Refuse roles that are not over the same pairs in one order, as `join` gives them."""
    first, ids = next((role, table.ids) for role, table in tables.items())
    for role, table in tables.items():
        require(table.ids == ids, f"{role}.id", f"{len(table.ids)} ids", f"those of {first} in their order")


def select(table: Predictions, rows: Sequence[int]) -> Predictions:
    """Some rows, in the order asked for, with every column that is there.

    >>> table = Predictions(["a", "b"], ["p", "q"], np.array([0.9, 0.1]), np.array([2.0, -2.0]), stratum=["+1", "-1"])
    >>> select(table, [1]).stratum
    ['-1']
    """
    place = np.asarray(rows, dtype=np.intp)
    columns: list[Any] = [
        [column[i] for i in rows] if isinstance(column, list) else None if column is None else column[place]
        for column in table
    ]
    return Predictions(*columns)


def length_difference(table: Predictions) -> Column | None:
    """How much longer the better answer is than the worse, in tokens of this model; None without the columns."""
    if table.n_chosen is None or table.n_rejected is None:
        return None
    return (table.n_chosen - table.n_rejected).astype(np.float64)


def _require_same_ids(role: str, table: Predictions, first: str, reference: Predictions) -> None:
    different = sorted(set(table.ids) ^ set(reference.ids))
    if different:
        owner = role if different[0] in set(table.ids) else first
        accepted = f"the same ids in {first} and {role}: {len(different)} are in one only"
        raise Refused(f"{owner}.id", different[0], accepted)


def _require_same_pairs(role: str, table: Predictions, first: str, reference: Predictions) -> None:
    _require_same_ids(role, table, first, reference)
    columns = {"cluster": (table.clusters, reference.clusters), "stratum": (table.stratum, reference.stratum)}
    for name, (own, others) in columns.items():
        if own is not None and others is not None and own != others:  # then the first difference is searched for
            for id, value, expected in zip(table.ids, own, others, strict=True):
                require(value == expected, f"{role}.{name}", value, f"{expected!r} for id {id}, as in {first}")


# --- reading and checking one file -----------------------------------------------------------------------------------


def _read(path: str) -> Predictions:
    """One file, every row checked; no clusters where it has no such column."""
    return _check(_read_parquet(path) if path.lower().endswith(".parquet") else _read_rows(path))


def _read_rows(path: str) -> _Rows:
    """A file of lines: a column is there if any row has it."""
    rows, ids = [], set[str]()
    for place, row in reading.read(reading.expand(path), path):
        rows.append((place, row))
        ids.add(str(row.get("id")))
        if len(ids) < len(rows):  # `_check` refuses this row, so that no other is read
            break
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    columns = {name: [row.get(name) for _, row in rows] for name in (*REQUIRED, *OPTIONAL) if name in names}
    return _Rows(path, names, columns, lambda n: rows[n][0], len(rows))


def _read_parquet(path: str) -> _Rows:
    """A Parquet file column by column: the values of thousands of rows never become Python objects one by one."""
    from pyarrow import Table

    with reading.parquet(reading.expand(path), path, (*REQUIRED, *OPTIONAL)) as (names, batches):
        [*parts] = batches
        return _of_table(path, Table.from_batches(parts), names) if parts else _Rows(path, names, {}, str, 0)


def _of_table(path: str, table: pyarrow.Table, names: Sequence[str] | None = None) -> _Rows:
    """The columns of a table: arrays of numbers where no value is missing, else lists of objects."""
    from pyarrow import types

    columns = {}
    for name in table.column_names:
        column = table[name]
        is_plain = column.null_count == 0 and (types.is_floating(column.type) or types.is_integer(column.type))
        columns[name] = column.to_numpy() if is_plain else column.to_pylist()
    return _Rows(path, names or table.column_names, columns, lambda n: f"{path}[{n}]", table.num_rows)


def _check(rows: _Rows) -> Predictions:
    """The columns with every value converted and checked; the first row that cannot be used is refused by its place."""
    require(rows.n > 0, rows.path, "a file without rows", "at least one row")
    for needed, options in (("id", ("id",)), ("margin or p_correct", ("margin", "p_correct"))):
        if not any(option in rows.columns for option in options):
            near = nearest(options[-1], rows.names)
            raise Refused(f"{rows.path}: columns", list(rows.names), f"a column {needed}", nearest=near)
    ids = _texts(rows, "id")
    seen: dict[str, int] = {}
    for n, id in enumerate(ids):
        if (first := seen.setdefault(id, n)) != n:
            raise Refused(f"{rows.place(n)}: id", id, f"each id once; it is also in {rows.place(first)}")
    margin, p_correct = _beliefs(rows)
    return Predictions(
        ids,
        _texts(rows, "cluster") if "cluster" in rows.columns else [],
        p_correct,
        margin,
        stratum=_texts(rows, "stratum") if "stratum" in rows.columns else None,
        known=np.array(_convert(rows, "known", _flag)) if "known" in rows.columns else None,
        n_chosen=_counts(rows, "n_chosen"),
        n_rejected=_counts(rows, "n_rejected"),
        predicted=_counts(rows, "predicted"),
    )


def _beliefs(rows: _Rows) -> tuple[Column, Column]:
    """Margin and confidence, one from the other where a file has only one of them."""
    if "p_correct" in rows.columns:
        p = _numbers(rows, "p_correct", 0, 1, "a number from 0 to 1")
        if "margin" not in rows.columns:
            clipped = np.clip(p, _SURE, 1 - _SURE)
            return np.log(clipped) - np.log1p(-clipped), p
    largest = float(np.finfo(np.float64).max)
    margin = _numbers(rows, "margin", -largest, largest, "a finite number")
    if "p_correct" not in rows.columns:
        with np.errstate(over="ignore"):  # exp(800) is infinite, and 1 / (1 + inf) is right
            return margin, 1 / (1 + np.exp(-margin))
    opposite = np.sign(margin) * np.sign(p - 0.5) < 0
    if opposite.any():
        n = int(opposite.argmax())
        accepted = f"the sign of p_correct - 0.5, which is {p[n] - 0.5:g}"
        raise Refused(f"{rows.place(n)}: margin", float(margin[n]), accepted)
    return margin, p


def _texts(rows: _Rows, name: str) -> list[str]:
    """One column of non-empty texts; whole numbers are written out."""
    column = rows.columns[name]
    if set(map(type, column)) == {str} and all(column):
        return list(column)  # the usual case, without a call for each value
    return _convert(rows, name, _text)


def _numbers(rows: _Rows, name: str, lowest: float, highest: float, accepted: str) -> Column:
    """One column in float64, in its range; NaN lies in no range."""
    column = rows.columns[name]
    if not (isinstance(column, np.ndarray) and np.issubdtype(column.dtype, np.number)):
        column = np.array(_convert(rows, name, lambda value: _number(value, accepted)))
    numbers: Column = column.astype(np.float64)
    _refuse_first(rows, name, ~((numbers >= lowest) & (numbers <= highest)), accepted)
    return numbers


def _counts(rows: _Rows, name: str) -> NDArray[np.int64] | None:
    """One column of whole numbers; None where there is none."""
    if name not in rows.columns:
        return None
    accepted = "a whole number of at least 0"
    numbers = _numbers(rows, name, 0, np.iinfo(np.int32).max, accepted)
    _refuse_first(rows, name, numbers != np.floor(numbers), accepted)
    return numbers.astype(np.int64)


def _refuse_first(rows: _Rows, name: str, bad: NDArray[np.bool_], accepted: str) -> None:
    """Refuse the first value that is marked, by its place."""
    if bad.any():
        n = int(bad.argmax())
        value = rows.columns[name][n]
        raise Refused(f"{rows.place(n)}: {name}", value.item() if isinstance(value, np.generic) else value, accepted)


def _convert(rows: _Rows, name: str, to: Callable[[Any], Any]) -> list[Any]:
    """One column with every value converted; the first that cannot be is refused by its place."""
    values = []
    for n, value in enumerate(rows.columns[name]):
        try:
            values.append(to(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise Refused(f"{rows.place(n)}: {name}", value, str(error)) from None
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer) or value == "":
        raise ValueError("a text or a whole number")
    return str(value)


def _number(value: Any, accepted: str) -> float:
    try:
        is_number = not isinstance(value, bool | np.bool_) and "_" not in str(value)  # Python reads 1_5 as 15
        return float(value) if is_number else math.nan
    except (TypeError, ValueError, OverflowError):
        raise ValueError(accepted) from None


def _flag(value: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(value).lower())
    if flag is None:
        raise ValueError("true or false")
    return flag
