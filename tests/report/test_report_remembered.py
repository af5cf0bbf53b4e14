"""A verdict is reached once for the same predictions, rule and code, and again where any of these changed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import w2sd
from w2sd.metrics.verdict import Verdict
from w2sd.pipeline.store import Store
from w2sd.report import remembered, results, verdicts

FOUND = Verdict("shown", "because", excess_flips=1 / 3, p=0.01, nulls={"twins": -0.1, "more_data": 2.0}, n_seeds=4)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in place of ours, older than this process."""
    source = tmp_path / "package/metrics/rule.py"
    source.parent.mkdir(parents=True)
    source.write_text("FLOOR = 1\n")
    monkeypatch.setattr(w2sd, "__path__", [str(tmp_path / "package")])
    monkeypatch.setattr(w2sd, "BEGAN", math.inf)
    remembered._rule.cache_clear()
    yield source
    remembered._rule.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store")


class Judge:
    """Reaches a verdict, and counts how often it had to."""

    n = 0

    def __call__(self, *_: Any) -> Verdict:
        self.n += 1
        return FOUND


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge()
    monkeypatch.setattr(verdicts, "judge", judge)
    return judge


def test_a_verdict_comes_back_as_it_was(store: Store) -> None:
    judge = Judge()
    first = remembered.remembered(store, ["a"], judge)
    assert first == remembered.remembered(store, ["a"], judge) == FOUND
    assert judge.n == 1
    assert remembered.remembered(store, ["b"], judge) == FOUND
    assert judge.n == 2


def test_other_code_or_another_numpy_judges_again(store: Store, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge()
    remembered.remembered(store, ["a"], judge)
    package.write_text("FLOOR = 2\n")
    remembered._rule.cache_clear()
    remembered.remembered(store, ["a"], judge)
    assert judge.n == 2
    monkeypatch.setattr("numpy.__version__", "9.9.9")
    remembered._rule.cache_clear()
    remembered.remembered(store, ["a"], judge)
    assert judge.n == 3


def test_code_that_changed_under_a_process_is_not_trusted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge()
    monkeypatch.setattr(w2sd, "BEGAN", 0.0)
    for _ in range(2):
        remembered.remembered(store, ["a"], judge)
    assert judge.n == 2
    assert not (store.root / "verdicts").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"result": "shown"}', '{"other": 1}'])
def test_a_verdict_that_cannot_be_read_back_is_reached_again(store: Store, content: str) -> None:
    judge = Judge()
    remembered.remembered(store, ["a"], judge)
    (kept,) = (store.root / "verdicts").iterdir()
    kept.write_text(content)
    assert remembered.remembered(store, ["a"], judge) == FOUND
    assert (judge.n, [kept]) == (2, list((store.root / "verdicts").iterdir()))
    assert remembered.remembered(store, ["a"], judge) == FOUND
    assert judge.n == 2


def test_a_store_that_can_only_be_read_keeps_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert remembered.remembered(store, ["a"], Judge()) == FOUND


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
    twin, other = (store.path("evaluate", inputs[f"twin_{n}"]) for n in (1, 2))
    shutil.rmtree(twin)
    shutil.copytree(other, twin)
    verdicts.rule(results.load(fake.root), fake.root)
    assert judge.n == 2
