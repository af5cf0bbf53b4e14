"""The table of rates: a line per kind that has any, medians and peaks, dashes for what is undefined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from test_report_page import read
from writing import write_page

from w2sd.atomic import read_json
from w2sd.pipeline.store import Store
from w2sd.report import results
from w2sd.report.provenance import HEADS
from w2sd.report.provenance import throughput_table as table

ROWS: list[dict[str, Any]] = [
    {
        "kind": "train",
        "pairs_per_cpu_s": 100.0,
        "tokens_per_s": 2e4,
        "padding": 0.2,
        "packed": True,
        "peak_rss_mb": 900,
    },
    {
        "kind": "train",
        "pairs_per_cpu_s": 300.0,
        "tokens_per_s": 4e4,
        "padding": 0.4,
        "packed": False,
        "peak_rss_mb": 700,
    },
    {"kind": "label", "pairs_per_cpu_s": None, "tokens_per_s": None, "padding": 0.0, "peak_rss_mb": 950},
    {"kind": "compare", "peak_rss_mb": 950},
]


def frame(**columns: Any) -> pd.DataFrame:
    stages = pd.DataFrame([{**row, **columns} for row in ROWS], columns=results.STAGE, dtype=object)
    return stages.where(stages.notna(), None)


def test_kinds_have_medians_and_the_largest_peak() -> None:
    shown = table(frame())
    assert shown is not None
    assert shown.columns == HEADS
    assert shown.rows == (
        ("train", "2", "200", "30,000", "30%", "1 of 2", "900"),
        ("label", "1", "–", "–", "0%", "–", "950"),
    )


def test_memory_of_a_gpu_has_a_column_where_there_is_one() -> None:
    shown = table(frame(peak_gpu_mb=5000))
    assert shown is not None
    assert {row[-1] for row in shown.rows} == {"5,000"}
    assert len(shown.columns) == len(shown.rows[0]) == len(HEADS) + 1


def test_slow_stages_keep_their_decimals() -> None:
    shown = table(frame().assign(pairs_per_cpu_s=0.25))
    assert shown is not None
    assert shown.rows[0][2] == "0.250"


def test_stages_of_a_version_that_did_not_measure_have_no_table(fake: Any, tmp_path: Path) -> None:
    job = fake.add()
    assert table(results.stages(fake.root, job["id"])) is None
    assert "tokens/s" not in read(write_page(fake.root, tmp_path)).text


def test_a_page_shows_what_the_artifacts_tell(fake: Any, tmp_path: Path) -> None:
    job = fake.add()
    key = read_json(fake.root / f"jobs/{job['id']}.json")["stages"]["train/student"]["key"]
    store = Store(fake.root)
    spec, runtime = store.spec("train", key), store.read("train", key, "runtime.json")
    assert spec is not None
    assert runtime is not None
    rates = {"pairs_per_cpu_s": 1234.0, "tokens_per_s": 56789.0, "padding": 0.125, "packed": True}
    told = {**runtime, **{f"throughput/{name}": value for name, value in rates.items()}}
    fake.artifact({name: spec[name] for name in ("kind", "key", "inputs", "created")}, metrics={}, runtime=told)
    text = read(write_page(fake.root, tmp_path)).text
    assert "train11,23456,78912%yes300" in text
