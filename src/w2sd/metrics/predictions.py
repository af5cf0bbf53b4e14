"""The file every measurement starts from: what one model thought of each test pair.

One row per pair. `margin` is the score of the better answer minus that of the worse, in the units of the loss;
`p_correct` the confidence in the better answer. Both are oriented to the truth: what trains on a teacher's predictions
puts them back into the slots of each pair before it looks at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file

from w2sd.errors import Refused, require, within
from w2sd.metrics.functional import confidences
from w2sd.metrics.statistics import Column, as_column

# What other columns hold is decided by their values.
TYPES = {
    "id": pa.string(),
    "cluster": pa.string(),
    "margin": pa.float64(),
    "p_correct": pa.float64(),
    "n_prompt": pa.int32(),
    "n_chosen": pa.int32(),
    "n_rejected": pa.int32(),
    "stratum": pa.string(),
    "known": pa.bool_(),
    "predicted": pa.int32(),
}
COUNTS = ("n_chosen", "n_rejected", "predicted")  # whole numbers
PREDICTIONS = "predictions.parquet"  # a row for every example that a model was asked about
LOGITS = "logits.safetensors"  # what a classifier says of every class, beside its predictions
REQUIRED = ("id", "cluster", "margin", "p_correct")
OPTIONAL = ("stratum", "known", "n_chosen", "n_rejected", "predicted")


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


def read_predictions(path: str | Path) -> Predictions:
    """The columns of a predictions file that measurements read; their values are judged by `join`."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in REQUIRED:
                require(name in names, str(path), names, f"a column {name}")
            table = file.read([*REQUIRED, *(name for name in OPTIONAL if name in names)])
            with within(str(path)):
                return _predictions(pa.table({name: table[name].cast(TYPES[name]) for name in table.column_names}))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Refused("predictions", str(path), f"a readable parquet file ({reason})") from None


def read_distributions(folder: str | Path) -> dict[str, Column]:
    """How likely a classifier finds each class, by the id of the item."""
    ids = read_predictions(Path(folder) / PREDICTIONS).ids
    logits_NC = load_file(Path(folder) / LOGITS)["logits"].astype(np.float64)
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return dict(zip(ids, odds_NC / odds_NC.sum(axis=1, keepdims=True), strict=True))


def write_predictions(path: str | Path, columns: Mapping[str, Sequence[Any] | ArrayLike]) -> None:
    """Write a predictions file that can be read and joined; equal columns give equal bytes."""
    for name in REQUIRED:
        require(name in columns, "predictions", sorted(columns), f"a column {name}")
    table = pa.table({name: pa.array(values, type=TYPES.get(name)) for name, values in columns.items()})
    check(str(path), _predictions(table))
    pq.write_table(table, path, compression="zstd", version="2.6", store_schema=False)


def join(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """All roles over the same pairs, in the order of sorted ids; whatever does not match is refused."""
    joined: dict[str, Predictions] = {}
    for role, table in predictions.items():
        check(role, table)
        order = sorted(range(len(table.ids)), key=table.ids.__getitem__)
        joined[role] = select(table, order)
        first = next(iter(joined))
        _check_same_pairs(role, joined[role], first, joined[first])
    return joined


def select(table: Predictions, rows: Sequence[int]) -> Predictions:
    """Some rows, in the order asked for, with every column that is there.

    >>> table = Predictions(["a", "b"], ["p", "q"], np.array([0.9, 0.1]), np.array([2.0, -2.0]), stratum=["+1", "-1"])
    >>> select(table, [1]).stratum
    ['-1']
    """
    place = np.asarray(rows, dtype=np.intp)
    return Predictions(
        [table.ids[i] for i in rows],
        [table.clusters[i] for i in rows],
        table.p_correct[place],
        table.margin[place],
        None if table.stratum is None else [table.stratum[i] for i in rows],
        None if table.known is None else table.known[place],
        None if table.n_chosen is None else table.n_chosen[place],
        None if table.n_rejected is None else table.n_rejected[place],
        None if table.predicted is None else table.predicted[place],
    )


def length_difference(table: Predictions) -> Column | None:
    """How much longer the better answer is than the worse, in tokens of this model; None without the columns."""
    if table.n_chosen is None or table.n_rejected is None:
        return None
    return (table.n_chosen - table.n_rejected).astype(np.float64)


def check(role: str, table: Predictions) -> None:
    """Refuse predictions that no measurement may use: no rows, repeated ids, NaN, or a sign that contradicts."""
    lengths = [len(column) for column in table if column is not None]
    require(len(set(lengths)) == 1, role, lengths, "columns of one length")
    require(lengths[0] > 0, role, 0, "at least one row")
    require(None not in table.ids + table.clusters, role, None, "an id and a cluster in every row")
    repeated = [id for id, n in Counter(table.ids).items() if n > 1]
    require(not repeated, f"{role}.id", next(iter(repeated), None), f"one row per id ({len(repeated)} ids repeat)")
    try:
        p, margin = confidences("p_correct", table.p_correct), as_column("margin", table.margin)
    except ValueError as error:
        raise Refused(role, str(error), "numbers, with p_correct from 0 to 1") from None
    opposite = np.flatnonzero(np.sign(margin) * np.sign(p - 0.5) < 0)
    if len(opposite):
        row = opposite[0]
        accepted = f"the sign of p_correct - 0.5 (p_correct is {p[row]:g} for id {table.ids[row]})"
        raise Refused(f"{role}.margin", float(margin[row]), accepted)


def _check_same_pairs(role: str, table: Predictions, first: str, reference: Predictions) -> None:
    different = sorted(set(table.ids) ^ set(reference.ids))
    if different:
        owner = role if different[0] in set(table.ids) else first
        accepted = f"the same ids in {first} and {role}: {len(different)} are in one only"
        raise Refused(f"{owner}.id", different[0], accepted)
    if table.clusters == reference.clusters and table.stratum == reference.stratum:
        return  # as ever; what differs is looked for row by row
    for id, cluster, expected in zip(table.ids, table.clusters, reference.clusters, strict=True):
        require(cluster == expected, f"{role}.cluster", cluster, f"{expected!r} for id {id}, as in {first}")
    if table.stratum is not None and reference.stratum is not None:
        for id, stratum, expected in zip(table.ids, table.stratum, reference.stratum, strict=True):
            require(stratum == expected, f"{role}.stratum", stratum, f"{expected!r} for id {id}, as in {first}")


def _predictions(table: pa.Table) -> Predictions:
    """A table's columns; a number that is missing is NaN, which `check` refuses as it does a missing id.

    A column that may be left out has to be whole where it is not: booleans and counts know no NaN.
    """
    there = [name for name in OPTIONAL if name in table.column_names]
    for name in there:
        require(table[name].null_count == 0, name, None, "a value in every row, or no such column")
    optional = {name: table[name].to_pylist() if name == "stratum" else table[name].to_numpy() for name in there}
    return Predictions(
        table["id"].to_pylist(),
        table["cluster"].to_pylist(),
        np.asarray(table["p_correct"].to_numpy(), dtype=np.float64),
        np.asarray(table["margin"].to_numpy(), dtype=np.float64),
        **{name: column.astype(np.int64) if name in COUNTS else column for name, column in optional.items()},
    )
