"""Rates: of what there is to be read, from the end of the first batch to the end of the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.group import CHOSEN, PROMPTS, REJECTED, SWAPPED, Build, N, language, policy, reward, sft, task
from w2sd.data.loader import Batch, Filler, Loader, Shuffled, in_length_order
from w2sd.data.tally import Tally
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Stretch
from w2sd.stages import callbacks, engine
from w2sd.students.student import Examination, Student
from w2sd.worker import memory, reset_peak, throughput

EPOCHS = 2
STEPS = EPOCHS * 4
ROWS = {
    reward: [[p, a] for p, c, r in zip(PROMPTS, CHOSEN, REJECTED, strict=True) for a in (c, r)],
    sft: [[p, a] for p, a in zip(PROMPTS, CHOSEN, strict=True)],
    language: [[np.zeros(0), np.zeros(6)]] * N,
}
ROWS[policy] = ROWS[reward]


class Clock:
    """A clock that only `pass_` moves; the processor works half of the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return 0.0  # no checkpoint is due

    def process_time(self) -> float:
        return self.now / 2


class Slow:
    """Rows of which the first batch takes so long to make, and every other one a second."""

    def __init__(self, rows: Any, clock: Clock, first: float) -> None:
        self.rows, self.clock, self.seconds, self.is_packed = rows, clock, first, rows.is_packed

    def __getitem__(self, batch: list[int]) -> list[Any]:
        self.clock.pass_(self.seconds)
        self.seconds = 1.0
        return self.rows[batch]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(callbacks, "time", clock)
    return clock


def train(build: Build, place: Path, slow: Callable[[Any], Any] = lambda rows: rows) -> Stretch:
    learner, rows, _ = build()
    learner.n_steps = STEPS
    took: list[Stretch] = []
    job = task(place, Trainer(), 0, lambda *_: None)._replace(measured=lambda stretch: took.append(stretch) or {})
    engine.train(job, learner, Loader(slow(rows), Shuffled(N, 8, seed=3)))
    [stretch] = took
    return stretch


def score(place: Path, batch: int) -> Stretch:
    student, rows, _ = reward()
    assert isinstance(student, Student)
    student.requires_grad_(False)
    student.examine(Examination(torch.arange(N), torch.arange(N), torch.from_numpy(SWAPPED), {}))
    took: list[Stretch] = []
    job = task(place, Trainer(), 0, lambda *_: None)._replace(measured=lambda stretch: took.append(stretch) or {})
    engine.predict(job, student, Loader(rows, in_length_order(rows.lengths, batch)))
    [stretch] = took
    return stretch


@pytest.mark.parametrize("build", ROWS)
def test_what_was_read_adds_up_to_the_data(build: Build, tmp_path: Path) -> None:
    stretch = train(build, tmp_path)
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in ROWS[build]])
    once = np.array([len(prompt) for prompt in PROMPTS]) * (build is policy)  # packed: read once for both answers
    seen = stretch.seen
    assert seen.examples == EPOCHS * N
    assert seen.tokens == EPOCHS * (lengths.sum() - once.sum())
    assert stretch.timed.examples == EPOCHS * N - 8
    padding, is_packed = (throughput([stretch])[f"throughput/{name}"] for name in ("padding", "packed"))
    assert is_packed == (build in (policy, sft))
    assert 0 < padding < 1 if build is reward else padding == 0  # type: ignore[operator]


def test_padding_is_the_share_of_places_that_no_token_fills(tmp_path: Path) -> None:
    """One row to a piece leaves only what the shorter answer of a pair lacks."""
    student, rows, _ = reward()
    rows.micro_tokens = 1
    seen = train(lambda: reward()._replace(learner=student, rows=rows), tmp_path).seen
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in ROWS[reward]]).reshape(-1, 2)
    assert seen.places == EPOCHS * 2 * lengths.max(axis=1).sum()
    share = 1 - lengths.sum() / (2 * lengths.max(axis=1).sum())
    assert 1 - seen.tokens / seen.places == pytest.approx(share)


def test_set_up_and_a_slow_first_batch_change_no_rate(clock: Clock, tmp_path: Path) -> None:
    started = clock.now
    clock.pass_(30)
    quick = train(reward, tmp_path / "quick", lambda rows: Slow(rows, clock, 1.0))
    told, again = throughput([quick], started), clock.now
    slow = train(reward, tmp_path / "slow", lambda rows: Slow(rows, clock, 500.0))
    assert throughput([slow], again) == told | {"throughput/setup_seconds": 500}
    assert told["throughput/setup_seconds"] == 31
    assert told["throughput/seconds"] == STEPS - 1
    pairs = EPOCHS * N - 8
    assert told["throughput/pairs_per_s"] == pytest.approx(pairs / (STEPS - 1), rel=1e-3)
    assert told["throughput/pairs_per_cpu_s"] == pytest.approx(2 * pairs / (STEPS - 1), rel=1e-3)


def test_of_one_batch_there_is_no_rate(tmp_path: Path) -> None:
    told = throughput([score(tmp_path, batch=N)], started=0.0)
    undefined = {name.partition("/")[2] for name, value in told.items() if value is None}
    assert undefined == {"pairs_per_s", "pairs_per_cpu_s", "tokens_per_s"}


def test_scoring_reads_every_pair_once(tmp_path: Path) -> None:
    stretch = score(tmp_path, batch=6)
    assert (stretch.seen.examples, stretch.timed.examples) == (N, N - 6)
    assert stretch.seconds > 0


def test_two_passes_of_a_stage_are_one_rate() -> None:
    """Evaluation reads the test split, and then held-out pairs that may fit in one batch."""
    first = Stretch(5.0, 2.0, 4.0, Tally(30, 300, 400), Tally(20, 200, 250), True)
    other = Stretch(9.0, 0.0, 0.0, Tally(10, 100, 100), Tally(0, 0, 0), True)
    assert throughput([first, other], started=1.0) == {
        "throughput/pairs_per_s": 10,
        "throughput/pairs_per_cpu_s": 5,
        "throughput/tokens_per_s": 100,
        "throughput/padding": 0.2,
        "throughput/seconds": 2,
        "throughput/setup_seconds": 4,
        "throughput/packed": True,
    }
    assert throughput([first, other._replace(is_packed=False)])["throughput/packed"] is None


def test_what_is_read_only_to_keep_step_with_others_is_not_counted() -> None:
    [piece] = reward().rows[[3]]
    meter = callbacks.Throughput(SimpleNamespace(measured=None), False)  # type: ignore[arg-type]
    meter.seen, meter.first = Tally(), None
    batch = Batch([piece, Filler(piece)], reward().rows, [3])
    meter.on_train_batch_end(None, None, None, batch, 0)  # type: ignore[arg-type]
    assert meter.seen == piece.tally()


def test_the_peak_of_a_stage_on_the_gpu_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's counter without its device: an earlier stage of the process had more."""
    peak = 99 * 2**20

    def reset() -> None:
        nonlocal peak
        peak = 0

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    reset_peak()
    peak = max(peak, 50 * 2**20)
    assert memory(Trainer(accelerator="gpu"))["memory/peak_gpu_mb"] == 50
    assert memory(Trainer())["memory/peak_gpu_mb"] is None
