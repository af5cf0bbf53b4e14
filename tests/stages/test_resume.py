"""A training that was stopped goes on from its checkpoint and ends with the same weights, to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from w2sd.conflicts.base import NoConflict
from w2sd.conflicts.placebo import RandomMask
from w2sd.data.batch import AnswerRows, PairRows
from w2sd.data.loader import Loader, Shuffled
from w2sd.data.text import Encoded
from w2sd.logger import Csv
from w2sd.models.heads import PolicyModel, RewardModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.preference import DPO
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.stages import callbacks, engine
from w2sd.students.language import DocumentRows, LanguageLearner, SftLearner
from w2sd.students.learner import Learner
from w2sd.students.student import PolicyStudent, RewardStudent

N, EPOCHS, STEPS = 22, 3, 9  # three steps an epoch, the last of them on fewer rows
FIT = Fit(lr=1e-2, epochs=EPOCHS, batch=8, clip=0.5, weight_decay=0.01, warmup=0.2)
SHAPE = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 13}
DROPOUT = {"attn_pdrop": 0.3, "embd_pdrop": 0.3, "resid_pdrop": 0.3}
SAVES_EVERY_STEP, NEVER_SAVES = 1e-9, 1e9


class Killed(BaseException):
    """What ends a run from outside."""


class Result(NamedTuple):
    weights: dict[str, Tensor]
    steps: list[int]  # the numbers of the steps that were taken, from 1
    pulled: float | None = None


def config() -> GPT2Config:
    return GPT2Config(**SHAPE, **DROPOUT, bos_token_id=None, eos_token_id=None)


def encoded() -> Encoded:
    rng = np.random.default_rng(0)
    prompts, chosen, rejected = ([rng.integers(0, 13, rng.integers(1, 5)) for _ in range(N)] for _ in range(3))
    return Encoded(prompts, chosen, rejected, list(range(N)), 0, 0, 0)


def reward_student(dropout: bool) -> tuple[Learner, Loader]:
    torch.manual_seed(0)
    backbone = GPT2Model(config())
    if not dropout:
        silence_dropout(backbone)
    rng = np.random.default_rng(1)
    rows = PairRows(encoded(), rng.random(N) < 0.5, 60, targets=rng.random(N))
    loader = Loader(rows, Shuffled(N, FIT.batch, seed=3))
    return RewardStudent(RewardModel(backbone), RewardBCE(), NoConflict(), FIT, STEPS), loader


def language_learner(dropout: bool) -> tuple[Learner, Loader]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config())
    if not dropout:
        silence_dropout(model)
    tokens = np.random.default_rng(0).integers(0, 13, size=(N, 6)).astype(np.int32)
    rows = DocumentRows(tokens, np.ones_like(tokens, dtype=np.float32), micro_tokens=20)
    return LanguageLearner(model, FIT, STEPS, 1), Loader(rows, Shuffled(N, FIT.batch, seed=3))


def policy_student(dropout: bool) -> tuple[Learner, Loader]:
    rng = np.random.default_rng(1)
    said = rng.uniform(-9, -1, (N, 2))
    known = {"targets": rng.random(N), "draws": rng.random(N)}
    rows = PairRows(encoded(), rng.random(N) < 0.5, 60, references=said, **known)
    student = PolicyStudent(policy(dropout), DPO(), RandomMask(rate=0.5), FIT, STEPS)
    return student, Loader(rows, Shuffled(N, FIT.batch, seed=3))


def sft_learner(dropout: bool) -> tuple[Learner, Loader]:
    rows = AnswerRows(encoded().prompts, encoded().chosen, micro_tokens=30)
    return SftLearner(policy(dropout), FIT, STEPS, 1), Loader(rows, Shuffled(N, FIT.batch, seed=3))


def policy(dropout: bool) -> PolicyModel:
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(config())
    if not dropout:
        silence_dropout(lm)
    return PolicyModel(lm)


Build = Callable[[bool], tuple[Learner, Loader]]
OTHERS: list[Build] = [language_learner, policy_student, sft_learner]


def run(
    folder: Path,
    dropout: bool,
    stop: int | None = None,
    every_s: float = NEVER_SAVES,
    build: Build = reward_student,
    n_steps: int = STEPS,
    on_step: Callable[[int], None] = lambda done: None,
) -> Result:
    """Train a new model, as a new process has it, in `folder`; killed in step `stop`, before that one is saved."""
    steps = []

    def advance(done: int, total: int) -> None:
        assert total == n_steps
        steps.append(done)
        on_step(done)
        if done == stop:
            raise Killed

    for name in ("out", "work", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    task = Task(
        "0" * 12, "train", {"seed": 7}, {}, folder / "out", folder / "work", Trainer(save_every_s=every_s), Csv(),
        "test", folder / "logs", advance,
    )  # fmt: skip
    learner, loader = build(dropout)
    learner.n_steps = n_steps
    torch.seed()  # no process finds the random state of another
    with suppress(Killed):
        engine.train(task, learner, loader)
    return Result({name: weights.clone() for name, weights in learner.state_dict().items()}, steps, learner.pulled)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Build, bool], Result]:
    """Runs from beginning to end."""
    cases = [(reward_student, False), (reward_student, True), *((build, True) for build in OTHERS)]
    return {(build, dropout): run(tmp_path_factory.mktemp("whole"), dropout, build=build) for build, dropout in cases}


def assert_same(one: Result, other: Result) -> None:
    assert one.pulled == other.pulled
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(weights, other.weights[name]) for name, weights in one.weights.items())


def test_an_undisturbed_run_takes_every_step_and_repeats(undisturbed: Any, tmp_path: Path) -> None:
    for (build, dropout), whole in undisturbed.items():
        assert whole.steps == list(range(1, STEPS + 1))
        assert (whole.pulled is not None) == (build is policy_student)
        assert_same(run(tmp_path / f"{build.__name__}{dropout}", dropout, build=build), whole)


def test_dropout_and_saving_are_what_they_seem(undisturbed: Any, tmp_path: Path) -> None:
    silent, noisy = undisturbed[reward_student, False], undisturbed[reward_student, True]
    assert any(not torch.equal(weights, noisy.weights[name]) for name, weights in silent.weights.items())
    assert_same(run(tmp_path, True, every_s=SAVES_EVERY_STEP), noisy)  # saving changes nothing


def test_without_a_checkpoint_a_run_begins_again(undisturbed: Any, tmp_path: Path) -> None:
    assert run(tmp_path, True, stop=5).steps == [1, 2, 3, 4, 5]
    assert not list((tmp_path / "work").iterdir())
    again = run(tmp_path, True)
    assert again.steps == list(range(1, STEPS + 1))
    assert_same(again, undisturbed[reward_student, True])


@pytest.mark.parametrize(("saved", "dropout"), [*((n, True) for n in range(1, STEPS)), (2, False), (3, False)])
def test_a_stopped_run_goes_on_to_the_same_bits(undisturbed: Any, saved: int, dropout: bool, tmp_path: Path) -> None:
    """From the middle of an epoch, and from its end (3 and 6)."""
    stopped = run(tmp_path, dropout, stop=saved + 1, every_s=SAVES_EVERY_STEP)
    assert stopped.steps == list(range(1, saved + 2))
    assert (tmp_path / "work" / "last.ckpt").is_file()
    resumed = run(tmp_path, dropout)
    assert resumed.steps == list(range(saved + 1, STEPS + 1))  # from the checkpoint, not from the beginning
    assert_same(resumed, undisturbed[reward_student, dropout])


@pytest.mark.parametrize("n_steps", [2, 3, 5, 6, 7])
def test_a_run_of_fewer_steps_than_its_epochs_have_ends_there_wherever_it_was_stopped(
    n_steps: int, tmp_path: Path
) -> None:
    """As an arm with extra rows does whose steps are those of its baseline."""
    whole = run(tmp_path / "whole", True, n_steps=n_steps)
    assert whole.steps == list(range(1, n_steps + 1))
    for saved in range(1, n_steps):
        folder = tmp_path / f"{saved}"
        run(folder, True, stop=saved + 1, every_s=SAVES_EVERY_STEP, n_steps=n_steps)
        resumed = run(folder, True, n_steps=n_steps)
        assert resumed.steps == list(range(saved + 1, n_steps + 1))
        assert_same(resumed, whole)
    ended = run(tmp_path / "ended", True, every_s=SAVES_EVERY_STEP, n_steps=n_steps)
    again = run(tmp_path / "ended", True, n_steps=n_steps)  # stopped between its last step and the artifact
    assert again.steps == []
    assert_same(again, ended)


@pytest.mark.parametrize("build", OTHERS)
@pytest.mark.parametrize("saved", [2, 3])
def test_pretraining_policies_and_their_fine_tuning_go_on_too(
    undisturbed: Any, saved: int, build: Build, tmp_path: Path
) -> None:
    run(tmp_path, True, stop=saved + 1, every_s=SAVES_EVERY_STEP, build=build)
    resumed = run(tmp_path, True, build=build)
    assert resumed.steps == list(range(saved + 1, STEPS + 1))
    assert_same(resumed, undisturbed[build, True])


def test_a_run_that_is_stopped_again_and_again_arrives(undisturbed: Any, tmp_path: Path) -> None:
    run(tmp_path, True, stop=2, every_s=SAVES_EVERY_STEP)
    for saved in range(1, STEPS - 1):  # one more step is saved each time
        assert run(tmp_path, True, stop=saved + 2, every_s=SAVES_EVERY_STEP).steps == [saved + 1, saved + 2]
    last = run(tmp_path, True)
    assert last.steps == [STEPS]
    assert_same(last, undisturbed[reward_student, True])


@pytest.mark.parametrize("saved", [(1, 3), (2, 6), (3, 4), (3, 6), (4, 5), (6, 7), (6, 9)])
def test_a_run_that_is_stopped_twice_arrives(undisturbed: Any, saved: tuple[int, int], tmp_path: Path) -> None:
    """Also where it went on from the end of an epoch and was stopped in the next."""
    run(tmp_path, True, stop=saved[0] + 1, every_s=SAVES_EVERY_STEP)
    run(tmp_path, True, stop=saved[1] + 1, every_s=SAVES_EVERY_STEP)
    last = run(tmp_path, True)
    assert last.steps == list(range(saved[1] + 1, STEPS + 1))
    assert_same(last, undisturbed[reward_student, True])


def test_killed_between_the_last_step_of_an_epoch_and_its_end(
    undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning cannot go on from there without miscounting later, so nothing is saved there."""
    monkeypatch.setattr(callbacks.Checkpoints, "on_train_epoch_end", lambda *at: None)
    run(tmp_path, True, stop=4, every_s=SAVES_EVERY_STEP)
    assert run(tmp_path, True, stop=5, every_s=SAVES_EVERY_STEP).steps == [3, 4, 5]
    last = run(tmp_path, True)
    assert last.steps == [5, 6, 7, 8, 9]
    assert_same(last, undisturbed[reward_student, True])


def test_stopped_twice_at_the_same_place(undisturbed: Any, tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path, True, stop=5, every_s=SAVES_EVERY_STEP)
    resumed = run(tmp_path, True)
    assert resumed.steps == [5, 6, 7, 8, 9]
    assert_same(resumed, undisturbed[reward_student, True])


def test_stopped_between_the_last_step_and_the_artifact(undisturbed: Any, tmp_path: Path) -> None:
    run(tmp_path, True, every_s=SAVES_EVERY_STEP)
    resumed = run(tmp_path, True)
    assert resumed.steps == []
    assert_same(resumed, undisturbed[reward_student, True])


def test_a_checkpoint_holds_tensors_and_plain_values_alone(tmp_path: Path) -> None:
    run(tmp_path, True, stop=5, every_s=SAVES_EVERY_STEP)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["last.ckpt"]
    checkpoint = torch.load(tmp_path / "work" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert {"state_dict", "optimizer_states", "lr_schedulers", "loops"} <= checkpoint.keys()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(b"\0" * 5000)


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:400] = b"?" * 200
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_words(path: Path) -> None:
    path.write_text("no checkpoint")


def put_another(path: Path) -> None:
    torch.save({"epoch": 0}, path)


def forget(path: Path) -> None:
    """As checkpoints were before what is pulled at was counted."""
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["pulled"]
    torch.save(checkpoint, path)


@pytest.mark.parametrize("damage", [truncate, overwrite, scramble, empty, put_words, put_another, forget])
def test_a_damaged_checkpoint_is_worth_as_much_as_none(
    undisturbed: Any, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stage begins again: a file that cannot be read must not make it impossible for ever."""
    run(tmp_path, True, stop=5, every_s=SAVES_EVERY_STEP)
    damage(tmp_path / "work" / "last.ckpt")
    again = run(tmp_path, True)
    assert "last.ckpt cannot be read; the stage begins again" in caplog.text
    assert again.steps == list(range(1, STEPS + 1))
    assert_same(again, undisturbed[reward_student, True])


def test_the_curve_of_a_stopped_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    """Each step once, though the steps after the checkpoint were logged before the run was stopped."""
    run(tmp_path / "whole", True)
    run(tmp_path / "stopped", True, stop=3, every_s=SAVES_EVERY_STEP)
    run(tmp_path / "stopped", True, stop=6)
    run(tmp_path / "stopped", True)
    whole, resumed = ((tmp_path / name / "logs" / "metrics.csv").read_text() for name in ("whole", "stopped"))
    assert len(whole.splitlines()) == 1 + STEPS
    assert resumed == whole


@pytest.mark.parametrize("last", [2, 3, 5, 9])
def test_a_run_that_is_told_to_end_saves_the_step_that_it_is_in(undisturbed: Any, last: int, tmp_path: Path) -> None:
    """By SIGTERM, as schedulers do: with a checkpoint that nothing else would have saved, and a code that is not 0."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match=r"^143$"):
        run(tmp_path, True, on_step=lambda done: os.kill(os.getpid(), signal.SIGTERM) if done == last else None)
    assert signal.getsignal(signal.SIGTERM) is before
    resumed = run(tmp_path, True)
    assert resumed.steps == list(range(last + 1, STEPS + 1))
    assert_same(resumed, undisturbed[reward_student, True])


def test_a_run_that_is_told_to_end_after_its_last_step_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning still has things to do then, and would go on as if nothing had been said."""
    told = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr(callbacks.RandomState, "on_train_end", told)
    with pytest.raises(SystemExit, match=r"^143$"):
        run(tmp_path, True)


def test_a_process_is_not_a_task_of_the_job_that_it_runs_in(
    undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several that a job of SLURM's starts, each for itself: Lightning takes the job's tasks for its group."""
    job = {"NTASKS": 4, "PROCID": 3, "LOCALID": 3, "NODEID": 0, "JOB_ID": 7, "JOB_NAME": "x"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as it is where Lightning is imported in such a process
    assert_same(run(tmp_path, True), undisturbed[reward_student, True])
    assert (tmp_path / "logs" / "metrics.csv").is_file()


def test_a_checkpoint_that_was_not_finished_is_not_seen(undisturbed: Any, tmp_path: Path) -> None:
    """Killed while saving: the last whole one counts."""
    run(tmp_path, True, stop=4, every_s=SAVES_EVERY_STEP)
    part = tmp_path / "work" / "last.ckpt.0123.part"
    part.write_bytes(b"half of")
    resumed = run(tmp_path, True, every_s=SAVES_EVERY_STEP)
    assert not part.exists()
    assert resumed.steps == list(range(4, STEPS + 1))
    assert_same(resumed, undisturbed[reward_student, True])
