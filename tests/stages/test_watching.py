"""Held-out rows: who is held out, which weights are kept, and that nothing changes where a training is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model

from tests.builders import refused
from w2sd.atomic import read_json
from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import ItemRows
from w2sd.data.loader import Loader, Shuffled
from w2sd.data.pairs import Item
from w2sd.data.text import EncodedItems
from w2sd.errors import StageFailed
from w2sd.identity import digest
from w2sd.logger import Csv
from w2sd.models.heads import HeadedModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import ClassScores, PairScores
from w2sd.parts.fit import Fit
from w2sd.parts.stopping import Look, Stopping
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Task
from w2sd.stages import engine, preflight
from w2sd.stages.callbacks import EarlyStopping
from w2sd.stages.train import Training, hold_out
from w2sd.students.student import ClassStudent, RewardStudent

N, STEPS, EVERY = 40, 10, 2
FIT = Fit(lr=3e-2, epochs=2, batch=8)
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(0, 9, size=RANDOM.integers(1, 5)).astype(np.int32) for _ in range(2 * N)]
RIGHT = np.array([int(ids[-1]) % 2 for ids in TEXTS])
SAID = np.where(RANDOM.random(2 * N) < 0.3, 1 - RIGHT, RIGHT)  # labels that are wrong at random


class Killed(Exception):
    """Stands for what ends a process."""


def backbone() -> GPT2Model:
    return GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=8, vocab_size=9))


def trained(
    folder: Path, by: str, stop: int | None = None, save: bool = False, undecided: int = 0
) -> tuple[ClassStudent, EarlyStopping, Task]:
    """Train on the first half of the texts, watched on the second, whose first labels may be undecided."""
    for name in ("out", "work", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def advance(done: int, total: int) -> None:
        if done == stop:
            raise Killed

    trainer = Trainer(save_every_s=1e-9 if save else 1e9, micro_tokens=16)
    places = {name: folder / name for name in ("out", "work", "logs")}
    task = Task(
        "0" * 12, "train", {"seed": 7}, {}, trainer=trainer, logger=Csv(), name="test", advance=advance, **places
    )
    torch.manual_seed(0)
    silent = backbone()
    silence_dropout(silent)
    student = ClassStudent(HeadedModel(silent, 0, 2), RewardBCE(), NoConflict(), FIT, STEPS)
    rows = ItemRows(TEXTS[:N], 16, targets_NC=np.eye(2)[SAID[:N]])
    soft = np.where(np.eye(2)[SAID[N:]] > 0, 0.7, 0.3)
    soft[:undecided] = 0.5
    watch = EarlyStopping(ItemRows(TEXTS[N:], 16), soft, np.eye(2)[RIGHT[N:]], Stopping(by), EVERY, STEPS)
    with suppress(Killed):
        engine.train(task, student, Loader(rows, Shuffled(N, 8, 0)), [watch])
    return student, watch, task


def shares(student: ClassStudent) -> tuple[float, float]:
    """How often the student prefers what labels say and what is right, of the rows that were held out."""
    rows = ItemRows(TEXTS[N:], 10**6)
    with torch.no_grad():
        [piece] = rows[list(range(N))]
        said = student(piece).logits.argmax(dim=1)[piece.rows.argsort()].numpy()
    return float((said == SAID[N:]).mean()), float((said == RIGHT[N:]).mean())


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ClassStudent, EarlyStopping, Task]]:
    return {by: trained(tmp_path_factory.mktemp(by), by) for by in ("labels", "truth", "nothing")}


def test_looks_are_taken_before_in_between_and_at_the_end(watched: Any) -> None:
    curves = [watch.curve for _, watch, _ in watched.values()]
    assert [look.step for look in curves[0]] == list(range(0, STEPS + 1, EVERY))
    assert curves[0] == curves[1] == curves[2]  # who decides changes nothing before the end


def test_the_weights_that_did_best_are_kept(watched: Any) -> None:
    for by, (student, watch, _) in watched.items():
        assert shares(student) == pytest.approx(watch.best[1:])
        learnt = watch.curve[1:]
        best = {"labels": max(look.labels for look in learnt), "truth": max(look.truth for look in learnt)}
        assert by == "nothing" or getattr(watch.best, by) == best[by]
    assert watched["nothing"][1].best.step == STEPS
    assert {watched[by][1].best.step for by in ("labels", "truth")} != {STEPS}  # or nothing is shown here


def test_what_has_learnt_nothing_is_not_kept(watched: Any) -> None:
    """However well it does: here nothing that comes later does as well."""
    _, watch, _ = watched["labels"]
    worse = [look._replace(labels=1 / (1 + look.step)) for look in watch.curve]
    again = EarlyStopping(watch.rows, np.eye(2), np.eye(2), Stopping("labels"), EVERY, STEPS)
    again.curve = worse
    assert again.best == worse[1]


def test_the_curve_is_written_and_the_look_that_counts_is_told(watched: Any) -> None:
    _, watch, task = watched["labels"]
    told = watch.conclude(task)
    assert told == {
        "stopping/step": watch.best.step,
        "stopping/labels": watch.best.labels,
        "stopping/truth": watch.best.truth,
    }
    assert read_json(task.out / "curve.json") == [look._asdict() for look in watch.curve]


def watch_of(how: Stopping, every: int = 1) -> EarlyStopping:
    return EarlyStopping(ItemRows(TEXTS[N:], 16), np.eye(2)[SAID[N:]], np.eye(2)[RIGHT[N:]], how, every, STEPS)


def test_the_last_step_is_looked_at_wherever_it_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, looks = watch_of(Stopping(), every=4), []
    monkeypatch.setattr(watch, "_look", lambda trainer, student: looks.append(trainer.global_step))
    for step in range(1, STEPS + 1):
        watch.on_train_batch_end(SimpleNamespace(global_step=step), None)  # type: ignore[arg-type]
    assert looks == [4, 8, STEPS]


@pytest.mark.parametrize(("by", "step"), [("labels", 1), ("truth", 2), ("nothing", 4)])
def test_of_equally_good_looks_the_first_counts(by: str, step: int) -> None:
    watch = watch_of(Stopping(by))
    watch.curve = [Look(0, 0.5, 0.5), Look(1, 0.7, 0.6), Look(2, 0.7, 0.8), Look(3, 0.7, 0.8), Look(4, 0.6, 0.8)]
    assert watch.best.step == step


def test_dropout_is_off_in_a_look_and_on_again_after_it() -> None:
    student = ClassStudent(HeadedModel(backbone(), 0, 2), RewardBCE(), NoConflict(), FIT, STEPS).train()
    seen: set[bool] = set()
    student.model.register_forward_hook(lambda model, *_: seen.add(model.training))
    trainer: Any = SimpleNamespace(global_step=0, precision_plugin=SimpleNamespace(forward_context=nullcontext))
    watch_of(Stopping())._look(trainer, student)
    assert seen == {False}
    assert student.model.training


def test_undecided_labels_are_met_half_whatever_the_student_prefers(tmp_path: Path) -> None:
    student, watch, _ = trained(tmp_path, "nothing", undecided=10)
    rows = ItemRows(TEXTS[N:], 10**6)
    with torch.no_grad():
        [piece] = rows[list(range(N))]
        said = student(piece).logits.argmax(dim=1)[piece.rows.argsort()].numpy()
    expected = (10 / 2 + (said[10:] == SAID[N + 10 :]).sum()) / N
    assert len(set(said[:10].tolist())) == 2  # neither option is taken for the label
    assert watch.best.labels == pytest.approx(expected)


def test_ties_are_shared_by_the_options_that_are_tied() -> None:
    three = ClassScores(torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]]))
    student: Any = SimpleNamespace(objective=RewardBCE())
    assert torch.allclose(
        ClassStudent.prefers(student, three),
        torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64),
    )
    pairs = PairScores(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.0]))
    assert RewardStudent.prefers(student, pairs).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_an_interrupted_training_keeps_the_same_weights_and_the_same_curve(
    watched: Any, tmp_path: Path, stop: int
) -> None:
    whole, watch, _ = watched["labels"]
    trained(tmp_path, "labels", stop=stop + 1, save=True)
    resumed, again, _ = trained(tmp_path, "labels")
    assert again.curve == watch.curve
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def training(n: int, n_own: int) -> Training:
    items = [Item(digest(str(k)), digest(str(k)), "w2s", str(k), 0) for k in range(n)]
    encoded = EncodedItems([np.array([k % 9], dtype=np.int32) for k in range(n)], list(range(n)), 0)
    nothing: Any = None
    return Training(nothing, None, NoConflict(), items, np.eye(2)[RIGHT[:n]], encoded, False, n_own, FIT)


def test_rows_are_held_out_by_their_ids_and_only_a_student_s_own() -> None:
    whole = training(80, n_own=60)
    kept, held = hold_out(whole, Stopping(holdout=0.25), "w2s")
    ids = [{item.id for item in part.examples} for part in (kept, held)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {item.id for item in whole.examples}
    assert 5 < len(held.examples) < 30
    assert not ids[1] & {item.id for item in whole.examples[60:]}
    assert kept.n_own == len(kept.examples) - 20
    assert kept.n_steps == 2 * -(-len(kept.examples) // 8)
    for part in (kept, held):
        assert [int(item.text) % 9 for item in part.examples] == [int(ids[0]) for ids in part.encoded.texts]
        assert np.array_equal(part.targets_NK, np.eye(2)[[RIGHT[int(item.text)] for item in part.examples]])
    assert ids[1] <= {
        item.id for item in hold_out(whole, Stopping(holdout=0.5), "w2s")[1].examples
    }  # a larger share has the smaller one
    with pytest.raises(StageFailed, match=r"^stopping\.holdout: 1e-09 .*\b80\b.* 0$"):
        hold_out(whole, Stopping(holdout=1e-9), "w2s")
    with pytest.raises(StageFailed, match=r"^stopping\.holdout: 0\.9+ .*\b20\b.* 20$"):
        hold_out(training(20, n_own=20), Stopping(holdout=1 - 1e-9), "w2s")


def test_what_belongs_together_is_held_out_together() -> None:
    whole = training(80, n_own=80)
    examples = [item._replace(cluster=digest(str(int(item.text) // 2))) for item in whole.examples]
    kept, held = hold_out(whole._replace(examples=examples), Stopping(holdout=0.25), "w2s")
    clusters = [{item.cluster for item in part.examples} for part in (kept, held)]
    assert not clusters[0] & clusters[1]


def test_only_what_is_watched_gets_another_key(asked: Callable[..., RunConfig]) -> None:
    usual, watched = plan(asked()), plan(asked("stopping=labels"))
    assert "stopping" not in usual["train/student"].params
    changed = {name for name in usual if usual[name].key != watched[name].key}
    assert changed == {name for name in usual if not name.startswith("pretrain")}


def test_shards_are_not_watched(asked: Callable[..., RunConfig]) -> None:
    run = asked("stopping=labels", "trainer=fsdp2", "trainer.accelerator=cpu")
    with refused("stopping", accepted="stopping=none trainer.strategy=fsdp2"):
        preflight.check(run)


@pytest.mark.parametrize(("knob", "value"), [("by", "label"), ("holdout", 0.0), ("holdout", 1.0), ("every", 0.0)])
def test_impossible_looks_are_refused(knob: str, value: Any) -> None:
    with refused(knob, value, nearest=ANY):
        Stopping(**{knob: value})


def test_a_look_that_never_comes_is_refused_with_the_limit() -> None:
    assert Stopping(every=1000.0).every == 1000
    with refused("every", 1000.5, "0 1000"):
        Stopping(every=1000.5)
