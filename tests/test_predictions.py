"""The predictions file and the join: what goes through unchanged, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.builders import refused
from w2sd.predictions import (
    Predictions,
    join,
    length_difference,
    read_predictions,
    select,
    write_predictions,
)

COLUMNS: dict[str, Any] = {
    "id": ["b", "a", "c"],
    "cluster": ["q", "p", "p"],
    "margin": np.array([1.5, -2.0, 0.0]),
    "p_correct": np.array([0.8, 0.1, 0.5]),
    "n_prompt": [4, 5, 6],
    "known": [True, False, True],
}


def predictions(**changes: Any) -> Predictions:
    columns: dict[str, Any] = {
        "ids": ["b", "a", "c"],
        "clusters": ["q", "p", "p"],
        "p_correct": np.array([0.8, 0.1, 0.5]),
        "margin": np.array([1.5, -2.0, 0.0]),
    }
    return Predictions(**(columns | changes))


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", COLUMNS)
    table = read_predictions(tmp_path / "p.parquet")
    assert table.ids == ["b", "a", "c"]
    assert table.clusters == ["q", "p", "p"]
    assert table.p_correct.tolist() == [0.8, 0.1, 0.5]
    assert table.margin.tolist() == [1.5, -2.0, 0.0]
    assert table.p_correct.dtype == table.margin.dtype == np.float64
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "p.parquet")}
    assert types["n_prompt"] == "int32"
    assert types["known"] == "bool"


def test_columns_that_may_be_left_out_come_back(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", COLUMNS)
    table = read_predictions(tmp_path / "p.parquet")
    assert (table.stratum, table.n_chosen, table.n_rejected) == (None, None, None)
    assert length_difference(table) is None
    assert table.known is not None
    assert table.known.tolist() == [True, False, True]
    more = {"stratum": ["+1", "-1", "+1"], "n_chosen": [3, 9, 4], "n_rejected": np.array([5, 2, 4], dtype=np.int32)}
    write_predictions(tmp_path / "p.parquet", COLUMNS | more)
    table = read_predictions(tmp_path / "p.parquet")
    assert table.stratum == ["+1", "-1", "+1"]
    difference = length_difference(table)
    assert difference is not None
    assert difference.tolist() == [-2, 7, 0]
    assert select(table, [2, 0]).ids == ["c", "b"]
    joined = join({"weak": table, "student": select(predictions(), [2, 1, 0])})
    assert joined["weak"].stratum == ["-1", "+1", "+1"]
    assert joined["weak"].known.tolist() == [False, True, True]
    assert joined["weak"].n_chosen.tolist() == [9, 3, 4]
    assert joined["student"].known is None


@pytest.mark.parametrize(
    "column", [{"known": [True, None, False]}, {"stratum": ["a", None, "b"]}, {"n_chosen": [1, 2, None]}]
)
def test_columns_that_may_be_left_out_are_whole_where_they_are_not(tmp_path: Path, column: dict[str, Any]) -> None:
    [name] = column
    path, row = tmp_path / "p.parquet", column[name].index(None)
    with refused(f"{path}[{row}]: {name}", None):
        write_predictions(path, COLUMNS | column)
    pq.write_table(pa.table({name: pa.array(values) for name, values in (COLUMNS | column).items()}), path)
    with refused(f"{path}[{row}]: {name}", None):
        read_predictions(path)


def test_the_difficulty_of_a_pair_is_one(tmp_path: Path) -> None:
    tables = {"weak": predictions(stratum=["x", "y", "z"]), "student": predictions(stratum=["x", "z", "z"])}
    with refused("student.stratum", "z", "'y' a weak"):
        join(tables)


def test_equal_columns_give_equal_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=5000)
    columns: dict[str, Any] = {
        "id": [f"{i:016x}" for i in rng.permutation(5000)],
        "cluster": [f"{i:016x}" for i in rng.integers(0, 900, size=5000)],
        "margin": margin,
        "p_correct": 1 / (1 + np.exp(-margin)),
    }
    write_predictions(tmp_path / "a.parquet", columns)
    as_lists = {name: list(column) for name, column in columns.items()}
    write_predictions(tmp_path / "b.parquet", as_lists)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_single_precision_is_widened(tmp_path: Path) -> None:
    p = np.array([0.8, 0.1, 0.5], dtype=np.float32)
    write_predictions(tmp_path / "p.parquet", COLUMNS | {"p_correct": p, "margin": [1, -2, 0]})
    table = read_predictions(tmp_path / "p.parquet")
    assert table.p_correct.tolist() == p.astype(float).tolist()
    assert table.margin.tolist() == [1.0, -2.0, 0.0]


def test_files_from_elsewhere_may_hold_other_types(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array([7, 8]), "cluster": pa.array(["x", "x"]).dictionary_encode()})
    table = table.append_column("margin", pa.array([1, -1])).append_column("p_correct", pa.array([1, 0]))
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").ids == ["7", "8"]
    assert read_predictions(tmp_path / "p.parquet").clusters == ["x", "x"]
    assert read_predictions(tmp_path / "p.parquet").margin.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("content", [None, b"", b"id,margin\n"])
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.parquet"
    if content is not None:
        path.write_bytes(content)
    with refused(str(path), ANY, "Parquet"):
        read_predictions(path)


def test_a_file_without_clusters_has_one_for_each_id(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "margin": [1.0, -1.0]}), path)
    assert read_predictions(path).clusters == ["a", "b"]
    assert read_predictions(path).p_correct == pytest.approx(1 / (1 + np.exp([-1.0, 1.0])))


def test_files_without_what_is_needed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": ["a"], "p_corect": [0.9]}), path)
    with refused(f"{path}: columns", ["id", "p_corect"], "p_correct", "p_corect"):
        read_predictions(path)
    pq.write_table(pa.table([["a"], ["b"], [0.9]], names=["id", "id", "p_correct"]), path)
    with refused(str(path), "id"):
        read_predictions(path)
    pq.write_table(pa.table({"id": ["a"], "cluster": ["a"], "margin": ["high"], "p_correct": [0.9]}), path)
    with refused(f"{path}[0]: margin", "high"):
        read_predictions(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_every_column(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    columns = COLUMNS | {"stratum": ["+1", "-1", "+1"], "n_chosen": [3, 9, 4], "predicted": [1, 0, 2]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*map(list, columns.values()), strict=True)]
    write_predictions(tmp_path / "whole.parquet", columns)
    if suffix == ".parquet":
        write_predictions(path, columns)
    elif suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *(row.values() for row in rows))))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    for found, expected in zip(read_predictions(path), read_predictions(tmp_path / "whole.parquet"), strict=True):
        assert np.array_equal(found, expected) if expected is not None else found is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ('id,margin\n"a,1\n', ("p.csv:2", ANY)),
        ("id,margin,margin\na,1,2\n", ("p.csv:1", "margin")),
        ("id,margin,known\na,1,perhaps\n", ("p.csv:2: known", "perhaps")),
        ("id,margin,predicted\na,1,-1\n", ("p.csv:2: predicted", "-1")),
        ("id,margin,n_chosen\na,1,1e19\n", ("p.csv:2: n_chosen", "1e19")),
        ("id,margin\na,1_5\n", ("p.csv:2: margin", "1_5", "number")),
        ('id,margin\na,1\nb,high\na,2\n"', ("p.csv:4: id", "a", "p.csv:2")),  # and its last line is not read
    ],
)
def test_what_a_data_file_may_not_hold_neither_may_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, refusal: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text(text)
    with refused(*refusal):
        read_predictions("p.csv")


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        ('{"id": "a", "margin": 1, "margin": 2}', ("", ANY, "margin")),
        ('{"id": "a", "margin": 1, "known": ' + "[" * 100_000 + "]" * 100_000 + "}", ("", ANY, "levels")),
        ('{"id": ["a"], "margin": 1}', (": id", ["a"], "text")),
        ('{"id": "a", "margin": 1' + "0" * 400 + "}", (": margin", 10**400, "number")),
        ('{"margin": 1}\n{"margin": 1}\n"', (": columns", ["margin"], "id")),  # and its last line is not read
    ],
)
def test_a_line_of_json_that_is_no_prediction_is_refused(tmp_path: Path, row: str, refusal: tuple[Any, ...]) -> None:
    path, (place, *rest) = tmp_path / "p.jsonl", refusal
    path.write_text(row)
    with refused(f"{path}{place}" if place == ": columns" else f"{path}:1{place}", *rest):
        read_predictions(path)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"margin": [1.5, -2.0, np.nan]}, ("[2]: margin",)),
        ({"margin": [1.5, -np.inf, 0.0]}, ("[1]: margin", -np.inf)),
        ({"p_correct": [0.8, None, 0.5]}, ("[1]: p_correct", None)),
        ({"p_correct": [0.8, 0.1, 1.01]}, ("[2]: p_correct", 1.01)),
        ({"p_correct": [0.8, 0.9, 0.5]}, ("[1]: margin", -2.0)),
        ({"id": ["a", "a", "c"]}, ("[1]: id", "a")),
        ({"id": ["a", None, "c"]}, ("[1]: id", None)),
        ({"cluster": ["a", "", "c"]}, ("[1]: cluster", "")),
        ({name: [] for name in COLUMNS}, ("", "a file without rows")),
    ],
)
def test_what_no_measurement_may_use_is_neither_written_nor_read(
    tmp_path: Path, changes: dict[str, Any], refusal: tuple[Any, ...]
) -> None:
    column, *rest = refusal
    path = tmp_path / "p.parquet"
    with refused(f"{path}{column}", *rest):
        write_predictions(path, COLUMNS | changes)
    assert not path.exists()
    pq.write_table(pa.table({name: pa.array(values) for name, values in (COLUMNS | changes).items()}), path)
    with refused(f"{path}{column}", *rest):
        read_predictions(path)


def test_a_file_is_written_with_all_four_columns(tmp_path: Path) -> None:
    with refused("predictions", ["id", "known", "margin", "n_prompt", "p_correct"], "cluster"):
        write_predictions(tmp_path / "p.parquet", {k: v for k, v in COLUMNS.items() if k != "cluster"})


def test_join_puts_all_roles_in_the_order_of_sorted_ids() -> None:
    order = [2, 0, 1]
    shuffled = Predictions(
        ids=[predictions().ids[i] for i in order],
        clusters=[predictions().clusters[i] for i in order],
        p_correct=predictions().p_correct[order],
        margin=predictions().margin[order],
    )
    joined = join({"weak": predictions(), "student": shuffled})
    for table in joined.values():
        assert table.ids == ["a", "b", "c"]
        assert table.clusters == ["p", "q", "p"]
        assert table.p_correct.tolist() == [0.1, 0.8, 0.5]
        assert table.margin.tolist() == [-2.0, 1.5, 0.0]


def test_a_tie_has_no_sign_to_contradict(tmp_path: Path) -> None:
    tied = COLUMNS | {"margin": [1e-30, -2.0, 0.0], "p_correct": [0.5, 0.1, 0.7]}
    write_predictions(tmp_path / "p.parquet", tied)
    assert read_predictions(tmp_path / "p.parquet").p_correct.tolist() == [0.5, 0.1, 0.7]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"ids": ["b", "a", "d"]}, ("weak.id", "c", "weak student 2")),
        (
            {"ids": ["b", "a", "c", "d"], "clusters": ["q", "p", "p", "p"], "p_correct": [0.8, 0.1, 0.5, 0.5]}
            | {"margin": [0.0] * 4},
            ("student.id", "d", "1"),
        ),
        ({"clusters": ["q", "q", "p"]}, ("student.cluster", "q", "'p' a weak")),
    ],
)
def test_join_refuses_what_does_not_match(changes: dict[str, Any], refusal: tuple[Any, ...]) -> None:
    columns = {k: np.array(v) if k in ("p_correct", "margin") else v for k, v in changes.items()}
    with refused(*refusal):
        join({"weak": predictions(), "student": predictions(**columns)})
