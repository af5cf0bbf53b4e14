"""A verdict is an artifact: judged once for the same evaluations, parameters and rule, and again where any changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w2sd.metrics.verdict import Verdict
from w2sd.pipeline.store import Store
from w2sd.report import results, verdicts
from w2sd.report.cli import main
from w2sd.report.verdicts import cached

FOUND = Verdict("shown", "because", effect=1 / 3, p=0.02, p_values={"none": 0.01, "x": 0.02}, losses={"x": -0.1})
RULE = {"threshold": 0.75}


class Judge:
    """Reaches a verdict, and counts how often it had to."""

    n = 0

    def __call__(self, *_: Any, **__: Any) -> Verdict:
        self.n += 1
        return FOUND


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge()
    monkeypatch.setattr(verdicts, "judge", judge)
    return judge


def artifacts(store: Store) -> list[Path]:
    return sorted((store.root / "artifacts").glob("verdict-*"))


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    store, judge = Store(tmp_path), Judge()
    assert [cached(store, RULE, {}, judge) for _ in range(2)] == [FOUND, FOUND]
    assert (judge.n, len(artifacts(store))) == (1, 1)


def test_another_rule_parameter_or_input_is_judged_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, judge = Store(tmp_path), Judge()
    cached(store, RULE, {}, judge)
    cached(store, {"threshold": 0.8}, {}, judge)
    cached(store, RULE, {"0/weak": "0a1b2c3d4e5f"}, judge)
    monkeypatch.setattr(verdicts, "VERSION", 0)
    cached(store, RULE, {}, judge)
    assert (judge.n, len(artifacts(store))) == (4, 4)


@pytest.mark.parametrize("file", [verdicts.FILE, "spec.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"result": "shown"}', None])
def test_a_damaged_verdict_is_judged_anew_and_replaced(tmp_path: Path, file: str, content: str | None) -> None:
    store, judge = Store(tmp_path), Judge()
    cached(store, RULE, {}, judge)
    (folder,) = artifacts(store)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    assert [cached(store, RULE, {}, judge) for _ in range(2)] == [FOUND, FOUND]
    assert (judge.n, artifacts(store)) == (2, [folder])


def test_a_store_that_can_only_be_read_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cached(Store(tmp_path), RULE, {}, Judge()) == FOUND


def test_gc_keeps_the_verdicts_on_jobs_that_are_there(
    fake: Any, judge: Judge, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    jobs, store = [fake.add_conflict(seed) for seed in range(2)], Store(fake.root)
    verdicts.rule(results.load(fake.root), fake.root)
    main(["gc", "--store", str(fake.root), "--yes"])
    assert len(artifacts(store)) == 1
    verdicts.rule(results.load(fake.root, jobs=[jobs[0]["id"]]), fake.root)
    (fake.root / "jobs" / f"{jobs[1]['id']}.json").unlink()  # half of the first verdict's jobs
    main(["gc", "--store", str(fake.root), "--yes"])
    assert len(artifacts(store)) == 1
    verdicts.rule(results.load(fake.root), fake.root)
    assert judge.n == 2
    monkeypatch.setattr("w2sd.report.garbage.VERSION", 0)
    main(["gc", "--store", str(fake.root), "--yes"])
    assert artifacts(store) == []


def test_a_group_is_judged_once_whatever_the_order_of_its_jobs(fake: Any, judge: Judge) -> None:
    jobs = [fake.add_conflict(seed) for seed in range(2)]
    frame = results.load(fake.root)
    assert [ruling.verdict for ruling in verdicts.rule(frame, fake.root)] == [FOUND]
    assert [ruling.verdict for ruling in verdicts.rule(frame.iloc[::-1], fake.root)] == [FOUND]
    assert judge.n == 1
    verdicts.rule(results.load(fake.root, jobs=[jobs[0]["id"]]), fake.root)
    assert judge.n == 2


def test_new_predictions_under_an_old_key_are_judged_again(fake: Any, judge: Judge) -> None:
    job = fake.add_conflict()
    verdicts.rule(results.load(fake.root), fake.root)
    store = Store(fake.root)
    inputs = store.spec("compare", job["compare"])["inputs"]  # type: ignore[index]
    twin, other = (inputs[f"twin_{n}"] for n in (1, 2))
    predictions = store.file("evaluate", other, "predictions.parquet").read_bytes()
    with store.writing({"kind": "evaluate", "key": twin, "inputs": {}}) as folder:
        (folder / "predictions.parquet").write_bytes(predictions)
    verdicts.rule(results.load(fake.root), fake.root)
    assert judge.n == 2
