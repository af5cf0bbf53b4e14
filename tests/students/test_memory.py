"""A budget that the memory does not have is found out, and costs a step that is repeated, and nothing else."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from w2sd.conflicts.placebo import RandomMask
from w2sd.data.batch import AnswerRows, PairRows
from w2sd.data.loader import Loader, in_length_order
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.models.heads import PolicyModel, RewardModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.fit import Fit
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.language import DocumentRows, LanguageLearner, SftLearner
from w2sd.students.learner import Learner
from w2sd.students.student import Examination, RewardStudent

N, VOCABULARY, LENGTH = 22, 31, 6
BATCHES = [list(range(8)), list(range(8, 16)), list(range(16, 22))]
FIT = Fit(lr=1e-3, clip=0.5, warmup=0.3)
PLENTY = 10**6
NOTICE = "trainer.micro_tokens: "


def encoded(longest: int = 8) -> Encoded:
    rng = np.random.default_rng(0)
    prompts, chosen, rejected = (
        [rng.integers(0, VOCABULARY, rng.integers(1, longest)) for _ in range(N)] for _ in range(3)
    )
    return Encoded(prompts, chosen, rejected, list(range(N)), 0, 0, 0)


def config() -> GPT2Config:
    return GPT2Config(
        n_embd=8, n_layer=1, n_head=2, n_positions=16, vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None
    )


class Memory:
    """Room for so many tokens; a transformer that needs more fails as on a GPU, forwards or only on its way back."""

    def __init__(self, room: int, backwards: bool) -> None:
        self.room, self.backwards, self.failures = room, backwards, 0

    def limits(self, transformer: nn.Module) -> None:
        transformer.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, args: Any, output: Any) -> None:
        hidden_BTD = output.last_hidden_state
        if hidden_BTD[..., 0].numel() > self.room:
            if self.backwards:
                hidden_BTD.register_hook(self._fail)
            else:
                self._fail()

    def _fail(self, grad: Tensor | None = None) -> None:
        self.failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of this")


def reward(memory: Memory, micro_tokens: int) -> tuple[Learner, Any]:
    torch.manual_seed(0)
    model = RewardModel(GPT2Model(config()))
    silence_dropout(model.backbone)
    memory.limits(model.backbone)
    rng = np.random.default_rng(1)
    rows = PairRows(encoded(), rng.random(N) < 0.5, micro_tokens, targets=rng.random(N), draws=rng.random(N))
    return RewardStudent(model.double(), RewardBCE(), RandomMask(rate=0.5), FIT, 3), rows


def sft(memory: Memory, micro_tokens: int) -> tuple[Learner, Any]:
    torch.manual_seed(0)
    model = PolicyModel(GPT2LMHeadModel(config()))
    silence_dropout(model.lm)
    memory.limits(model.backbone)
    return SftLearner(model.double(), FIT, 3, 1), AnswerRows(encoded().prompts, encoded().chosen, micro_tokens)


def language(memory: Memory, micro_tokens: int) -> tuple[Learner, Any]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config())
    silence_dropout(model)
    memory.limits(model.transformer)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, size=(N, LENGTH)).astype(np.int32)
    rows = DocumentRows(tokens, np.ones(tokens.shape, np.float32), micro_tokens)
    return LanguageLearner(model.double(), FIT, 3, 1), rows


Make = Callable[[Memory, int], tuple[Learner, Any]]
ROOM: dict[Make, int] = {reward: 122, sft: 61, language: 30}  # less than a batch, and PLENTY halved some times


def losses(at: Task) -> list[float]:
    with (at.logs / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("make", ROOM)
def test_a_budget_that_is_too_large_trains_what_a_small_one_does(
    make: Make, backwards: bool, task: Callable[[str], Task], caplog: pytest.LogCaptureFixture
) -> None:
    """One step of three is repeated, once: the budget stays where it fits."""
    memory = Memory(ROOM[make], backwards)
    learner, rows = make(memory, PLENTY)
    engine.train(large := task("large"), learner, Loader(rows, BATCHES))
    [notice] = notices(caplog)
    budget = rows.micro_tokens
    assert notice == f"{NOTICE}{PLENTY} → {budget}; more did not fit the memory"
    assert memory.failures == 1
    assert learner.global_step == 3

    expected, again = make(untouched := Memory(ROOM[make], backwards), budget)
    engine.train(small := task("small"), expected, Loader(again, BATCHES))
    assert untouched.failures == 0
    assert losses(large) == pytest.approx(losses(small), rel=1e-12)
    assert learner.pulled == expected.pulled
    for one, other in zip(learner.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_gradient_of_a_step_that_failed_is_gone(task: Callable[[str], Task]) -> None:
    """Some pieces have left theirs before a longer one fails."""
    memory = Memory(room=30, backwards=True)
    learner, rows = reward(memory, 40)
    before = [len(rows.pieces(batch)) for batch in BATCHES]
    engine.train(task("large"), learner, Loader(rows, BATCHES))
    assert min(before) > 1
    assert memory.failures >= 1
    expected, again = reward(Memory(PLENTY, False), PLENTY)
    engine.train(task("whole"), expected, Loader(again, BATCHES))
    for one, other in zip(learner.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_budget_falls_until_the_piece_that_failed_is_cut_up(task: Callable[[str], Task]) -> None:
    """And no further than the memory asks for: the next larger one of the same series fails."""
    memory = Memory(room=17, backwards=False)
    learner, rows = language(memory, 4096)
    engine.train(task("a"), learner, Loader(rows, BATCHES))
    assert rows.micro_tokens == 16  # two documents of six tokens; of 32, five
    assert memory.failures == 2  # whole batches of 48 (of any budget from 64 on), then 32


@pytest.mark.parametrize(
    ("make", "unit"),
    [(reward, "pair"), (sft, "answer"), (language, "document")],
)
def test_what_does_not_fit_alone_is_said_in_one_line(
    make: Make, unit: str, task: Callable[[str], Task], caplog: pytest.LogCaptureFixture
) -> None:
    learner, rows = make(Memory(room=5, backwards=False), 64)
    with pytest.raises(StageFailed) as stopped:
        engine.train(task("a"), learner, Loader(rows, BATCHES))
    message = str(stopped.value)
    assert any(re.search(rf"\b{unit}\b.*\b{length}\b", message) for length in rows.lengths[BATCHES[0]])
    assert "data.max_tokens" in message
    assert "trainer.checkpointing=true" in message
    assert all(notice.startswith(NOTICE) for notice in notices(caplog))


def test_a_group_is_told_the_knob(task: Callable[[str], Task], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other processes of it would wait for ever for the step that one repeats."""
    learner, rows = reward(Memory(room=48, backwards=False), PLENTY)
    monkeypatch.setattr("w2sd.students.learner.dist.is_initialized", lambda: True)
    with pytest.raises(StageFailed, match=r"trainer\.micro_tokens\b.*\b1000000\b"):
        engine.train(task("a"), learner, Loader(rows, BATCHES))
    assert rows.micro_tokens == PLENTY


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every pair that the metrics are told of, which would themselves forgive one that comes twice."""
    pairs: list[int] = []
    update = MetricCollection.update

    def noted(metrics: MetricCollection, **columns: Tensor) -> None:
        pairs.extend(columns["uid"].tolist())
        update(metrics, **columns)

    monkeypatch.setattr(MetricCollection, "update", noted)
    return pairs


@pytest.mark.parametrize("measured", [True, False], ids=["test", "predict"])
def test_scoring_is_complete_and_counts_every_pair_once(
    measured: bool, task: Callable[[str], Task], counted: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(4)
    references = {"weak": torch.from_numpy(rng.beta(1, 1.2, N)), "ceiling": torch.from_numpy(rng.beta(9, 1, N))}
    found = []
    for name, room, micro_tokens in [("large", 100, 200), ("small", PLENTY, 100)]:
        student, rows = reward(memory := Memory(room, backwards=False), micro_tokens)
        student.requires_grad_(False)
        student.examine(Examination(torch.arange(N), torch.arange(N), torch.arange(N) % 3 == 0, references))
        counted.clear()
        loader = Loader(rows, in_length_order(rows.lengths, 9))
        logged = (engine.test if measured else engine.predict)(task(name), student, loader)
        assert memory.failures == (name == "large")
        assert sorted(counted) == (list(range(N)) if measured else [])
        found.append((logged, student.predictions["margin"], student.predictions["p_correct"]))
    assert len(notices(caplog)) == 1
    (logged, *large), (expected, *small) = found
    assert logged == expected
    np.testing.assert_allclose(large, small, rtol=0, atol=1e-12)
    assert np.isfinite(large).all()
