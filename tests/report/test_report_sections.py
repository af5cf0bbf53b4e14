"""What models say, side by side, as text and for a few jobs; how fast stages were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from tests.report.writing import read, write_page

from w2sd.atomic import read_json, read_sealed
from w2sd.pipeline.store import Store
from w2sd.report import results
from w2sd.report.records import Damages
from w2sd.report.sections import HEADS
from w2sd.report.sections import throughput_table as table
from w2sd.report.verdicts import rule

EVIL = "</td><script>alert(1)</script>\n & more [1, 2]\x00"
TITLE = "What the models say"
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


def say(fake: Any, job: dict[str, Any], **answers: list[str]) -> dict[str, str]:
    """Give a job samples: the answers of each role to the prompts `prompt <0>`, `prompt <1>`, ...; their keys."""
    place = fake.root / f"artifacts/compare-{job['compare']}"
    spec = read_sealed(place / "spec.json")
    metrics, runtime = (read_json(place / f"{name}.json") for name in ("metrics", "runtime"))
    keys = {}
    for role, texts in answers.items():
        keys[role] = f"{job['compare'][:8]}{role:_<4}"[:12]
        rows = [{"id": str(n), "prompt": f"prompt <{n}>", "text": text} for n, text in enumerate(texts)]
        with Store(fake.root).writing({"kind": "generate", "key": keys[role], "inputs": {}}) as folder:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    inputs = spec["inputs"] | {f"samples_{role}": key for role, key in keys.items()}
    told = {f"generation/{figure}/{role}": 0.5 for figure in ("length", "ended", "repetition") for role in answers}
    fake.artifact({**spec, "inputs": inputs}, metrics={**metrics, **told}, runtime=runtime)
    return keys


def test_the_answers_of_all_models_stand_below_each_prompt(fake: Any, tmp_path: Path) -> None:
    say(fake, fake.add(), student=["S0", "S1"], weak=["W0", "W1"], ceiling=["C0", "C1"])
    reader = read(write_page(fake.root, tmp_path / "out"))
    text = reader.text[reader.text.index(TITLE) :]
    shown = ["prompt <0>", "weakW0", "ceilingC0", "studentS0", "prompt <1>", "weakW1", "ceilingC1", "studentS1"]
    assert [text.index(part) for part in shown] == sorted(text.index(part) for part in shown)
    assert "student0.5000.5000.500–" in text  # of which one was not measured
    assert "baseline" not in text[: text.index("What was run")]


def test_what_models_write_is_escaped(fake: Any, tmp_path: Path) -> None:
    say(fake, fake.add(), student=[EVIL], baseline=["<b>bold</b>"])
    page = write_page(fake.root, tmp_path / "out")
    reader = read(page)
    assert not reader.tags & {"script", "b"}
    assert EVIL.replace("\x00", "\ufffd") in reader.text
    assert "\x00" not in page.read_text(encoding="utf-8")


def test_of_each_conflict_the_first_job_is_heard_and_no_more_than_three(fake: Any, tmp_path: Path) -> None:
    for conflict in ("NoConflict", "Explicit", "Implicit", "MoreData"):
        for seed in (0, 1):
            job = fake.add(seed=seed, conflict=conflict, overrides=[f"conflict={conflict}", f"seed={seed}"])
            if seed == 1 or conflict != "Explicit":  # the first one of which has none
                say(fake, job, student=[f"{conflict} said by {seed}"])
    text = read(write_page(fake.root, tmp_path / "out")).text
    heard = ["NoConflict said by 0", "Explicit said by 1", "Implicit said by 0"]
    assert [part for part in heard if part in text] == heard
    assert text.count(" said by ") == 3


def test_jobs_without_samples_have_no_section(fake: Any, tmp_path: Path) -> None:
    job = fake.add()
    before = write_page(fake.root, tmp_path / "out").read_bytes()
    assert TITLE.encode() not in before
    assert b"pre.prompt" not in before
    keys = say(fake, job, student=["gone"])
    shutil.rmtree(fake.root / f"artifacts/generate-{keys['student']}")
    assert TITLE not in read(write_page(fake.root, tmp_path / "out")).text


def test_samples_that_were_changed_are_not_reported(fake: Any, tmp_path: Path) -> None:
    keys = say(fake, fake.add(), student=["as it was"], weak=["as they were"])
    path = fake.root / f"artifacts/generate-{keys['student']}/samples.jsonl"
    path.write_text(path.read_text().replace("as it was", "otherwise"))
    text = read(write_page(fake.root, tmp_path / "out")).text
    assert f"{path} is damaged" in text
    assert "otherwise" not in text
    assert "as they were" in text


def test_samples_are_no_arms(planted: Any, tmp_path: Path) -> None:
    """Verdicts are those of the same jobs without them."""
    shutil.copytree(planted.root, tmp_path / "store")
    fake = type(planted)(tmp_path / "store")

    def verdicts() -> list[Any]:
        return [(ruling.verdict, ruling.group.inputs) for ruling in rule(results.load(fake.root), fake.root)]

    before = verdicts()
    for path in sorted((fake.root / "jobs").glob("*.json")):
        say(fake, read_json(path), student=["x"], baseline=["y"], weak=["z"])
    assert len(before) == 2
    assert verdicts() == before


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
    assert table(results.stages(fake.root, job["id"], damages=Damages())) is None
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
