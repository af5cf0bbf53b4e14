"""Trainings and scorings as several processes do them together, and as one does them alone.

    python -m torch.distributed.run --nproc-per-node 2 group.py FOLDER

does them in two gloo processes, one group for all of them. Run by test_devices.py, which imports the rest for the one.
FOLDER/alone has what one process left there, for the group to go on from, FOLDER/jobs.json stages of a real run, and
FOLDER/rows.json predictions to measure.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from tests.metrics import one_of_two
from w2sd import worker
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import AnswerRows, ItemRows, PairRows
from w2sd.data.loader import Loader, Shuffled, in_length_order
from w2sd.data.text import Encoded
from w2sd.logger import Csv
from w2sd.models import packing
from w2sd.models.heads import HeadedModel, PolicyModel, RewardModel
from w2sd.models.packing import pack
from w2sd.models.prepare import checkpoint_layers, silence_dropout
from w2sd.objectives.logconf import LogConf
from w2sd.objectives.preference import DPO
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.adapter import HeadOnly
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline import graph
from w2sd.pipeline.stage import Stretch, Task
from w2sd.pipeline.store import Store
from w2sd.stages import engine
from w2sd.stages.encoding import can_pack
from w2sd.students.language import DocumentRows, LanguageLearner, SftLearner
from w2sd.students.learner import Learner
from w2sd.students.student import ClassStudent, Examination, PolicyStudent, RewardStudent, Student

N = 25  # four steps an epoch, the last of them on one row, which leaves a process without any
STOP = 6  # the step in which trainings are stopped that are to go on elsewhere
FIT = Fit(lr=3e-3, epochs=6, batch=8, clip=0.5, weight_decay=0.01, warmup=0.2)
SHAPE = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 13}
STRATEGIES = ("ddp", "fsdp2")
RNG = np.random.default_rng(0)
PROMPTS, CHOSEN, REJECTED = ([RNG.integers(0, 13, RNG.integers(1, 6)) for _ in range(N)] for _ in range(3))
ENCODED = Encoded(PROMPTS, CHOSEN, REJECTED, list(range(N)), 0, 0, 0)
SWAPPED, TARGETS, SAID = RNG.random(N) < 0.5, RNG.random(N), RNG.uniform(-9, -1, (N, 2))
SURE = {"weak": RNG.random(N) ** 2, "ceiling": RNG.random(N) ** 0.5}  # confidences: PGR is defined
WEIGHTS = RNG.random((N, 6)).astype(np.float32)
PAIRS, PACKED = (
    PairRows(ENCODED, SWAPPED, 60, targets=TARGETS, references=SAID, is_packed=packed) for packed in (False, True)
)
ITEMS = ItemRows(PROMPTS, 20, targets_NC=np.random.default_rng(1).dirichlet(np.ones(3), N), is_packed=True)
LONGEST = 10  # tokens of a prompt and an answer


class Killed(BaseException):
    """What ends a run from outside."""


class Case(NamedTuple):
    learner: Learner
    rows: Any
    n_steps: int


def lm(dropout: bool = False, tied: bool = True) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SHAPE, bos_token_id=None, eos_token_id=None, tie_word_embeddings=tied))
    if not dropout:
        silence_dropout(model)
    return model


def reward(n_steps: int = 24) -> Case:
    """In double precision: where the loss is flat (a constant added to all rewards), Adam follows rounding errors."""
    torch.manual_seed(0)
    backbone = GPT2Model(GPT2Config(**SHAPE, bos_token_id=None, eos_token_id=None))
    silence_dropout(backbone)
    model = RewardModel(backbone).double()
    return Case(RewardStudent(model, RewardBCE(), NoConflict(), FIT, n_steps), PAIRS, n_steps)


def confident() -> Case:
    """A threshold of the whole batch; the last one of an epoch has a row, and no threshold."""
    case = reward(8)
    case.learner.objective = LogConf(min_rows=2)
    return case


def items() -> Case:
    """Three classes on packed rows, with a threshold for each of the whole batch."""
    torch.manual_seed(0)
    backbone = GPT2Model(GPT2Config(**SHAPE, bos_token_id=None, eos_token_id=None))
    silence_dropout(backbone)
    model = HeadedModel(backbone, n_outputs=3).double()
    assert pack(model, LONGEST)
    return Case(ClassStudent(model, LogConf(min_rows=2), NoConflict(), FIT, 8), ITEMS, 8)


def padded(n_steps: int = 24) -> Case:
    return Case(PolicyStudent(PolicyModel(lm()), DPO(), NoConflict(), FIT, n_steps), PAIRS, n_steps)


def policy(n_steps: int = 24) -> Case:
    """On packed rows."""
    case = padded(n_steps)
    assert pack(case.learner.model, LONGEST)
    return case._replace(rows=PACKED)


def thrifty() -> Case:
    """With an output embedding of its own, on layers that are computed again on the way back."""
    model = PolicyModel(lm(tied=False))
    checkpoint_layers(model.backbone)
    assert pack(model, LONGEST)
    return Case(PolicyStudent(model.train(), DPO(), NoConflict(), FIT, 8), PACKED, 8)


def sft() -> Case:
    model = PolicyModel(lm())
    assert pack(model, LONGEST)
    return Case(SftLearner(model, FIT, 8, 1), AnswerRows(PROMPTS, CHOSEN, micro_tokens=30, is_packed=True), 8)


def language() -> Case:
    tokens = np.random.default_rng(0).integers(0, 13, size=(N, 6)).astype(np.int32)
    return Case(LanguageLearner(lm(), FIT, 8, 1), DocumentRows(tokens, WEIGHTS, micro_tokens=20), 8)


def head_only() -> Case:
    case = reward(8)
    HeadOnly().apply(case.learner.model)
    return case


def few_weights() -> Case:
    """Frozen ones before and between those that are trained, as with low-rank additions."""
    case = policy(14)
    for name, weights in case.learner.named_parameters():
        weights.requires_grad_("c_attn" in name)
    return case


def tied() -> Case:
    return policy(14)


def noisy() -> Case:
    return Case(SftLearner(PolicyModel(lm(dropout=True)), FIT, 8, 1), AnswerRows(PROMPTS, CHOSEN, micro_tokens=30), 8)


Build = Callable[[], Case]
WHOLE: tuple[Build, ...] = (reward, confident, items, policy, sft, language, head_only, thrifty)
RESUMED: tuple[Build, ...] = (tied, few_weights)
SCORED: tuple[Build, ...] = (reward, items, policy)


def task(folder: Path, trainer: Trainer, rank: int, advance: Callable[[int, int], None]) -> Task:
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    place = (folder / "out", folder / "work", trainer, Csv(), "test", folder / "logs")
    return Task("0" * 12, "train", {"seed": 7}, {}, *place, advance, rank=rank)


def train(build: Build, folder: Path, trainer: Trainer, rank: int = 0, stop: int = 0) -> None:
    """Train in `folder`: the loss of every step is in its log, the weights in `weights.safetensors`."""

    def advance(done: int, total: int) -> None:
        if done == stop:
            raise Killed

    learner, rows, _ = build()
    job = task(folder, replace(trainer, save_every_s=1e-9 if stop else 1e9), rank, advance)
    with suppress(Killed):
        engine.train(job, learner, Loader(rows, Shuffled(N, FIT.batch, seed=3)))
        if rank == 0:
            weights = {name: tensor.detach().clone() for name, tensor in learner.whole.named_parameters()}
            save_file(weights, folder / "weights.safetensors")


def losses(folder: Path) -> dict[int, float]:
    """What was logged, by step."""
    with (folder / "logs" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file)}


def score(build: Build, folder: Path, trainer: Trainer, rank: int = 0) -> dict[str, Any]:
    """What evaluation logs, the columns of the predictions that it would write, and how much it read."""
    student, rows, _ = build()
    assert isinstance(student, Student)
    student.requires_grad_(False)
    references = {role: torch.from_numpy(SURE[role]) for role in SURE}
    student.examine(
        Examination(torch.arange(N), torch.arange(N), torch.from_numpy(SWAPPED.astype(np.int64)), references)
    )
    loader = Loader(rows, in_length_order(rows.lengths, 6))  # the last batch has one row
    took: list[Stretch] = []
    job = task(folder, trainer, rank, lambda *_: None)._replace(measured=lambda stretch: took.append(stretch) or {})
    logged = engine.test(job, student, loader)
    read = [took[0].seen.examples, took[0].seen.tokens, took[0].timed.examples]
    return {"logged": logged, "read": read, **{name: column.tolist() for name, column in student.predictions.items()}}


def decide(folder: Path, rank: int, stubborn: bool) -> dict[str, Any]:
    """What a process decides about packed rows where the last of two may not be able to read them, and what it says."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    model = PolicyModel(lm())
    if stubborn and rank == 1:
        model.backbone._can_set_attn_implementation = lambda: False  # type: ignore[method-assign]
    job = task(folder, Trainer(devices=2, strategy="ddp"), rank, lambda *_: None)
    logging.getLogger(packing.__name__).addHandler(handler)
    is_packed = can_pack(job, model, ENCODED, "32-true")
    logging.getLogger(packing.__name__).removeHandler(handler)
    return {"packed": is_packed, "attention": model.backbone.config._attn_implementation, "said": said}


SHARED = {cls.kind for cls in graph.Stage.__subclasses__() if cls.is_shared}


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    decided = [decide(folder / "decided", rank, stubborn) for stubborn in (False, True)]
    (folder / f"decided_{rank}.json").write_text(json.dumps(decided))
    scored = {}
    for strategy in STRATEGIES:
        trainer = Trainer(devices=2, strategy=strategy, log_every=1)
        for build in WHOLE if strategy == "fsdp2" else (*WHOLE, noisy):
            train(build, folder / strategy / build.__name__, trainer, rank)
        for build in SCORED:
            scored[f"{strategy}/{build.__name__}"] = score(build, folder / strategy / "scored", trainer, rank)
        for build in RESUMED if strategy == "fsdp2" else (*RESUMED, noisy):
            train(build, folder / strategy / "stopped" / build.__name__, trainer, rank, stop=STOP)
            for origin in ("alone", "ddp") if strategy == "fsdp2" else ("ddp",) if build is noisy else ("alone",):
                again = folder / strategy / f"after_{origin}" / build.__name__
                if rank == 0:
                    move(folder / origin / "stopped" / build.__name__, again)
                dist.barrier()
                train(build, again, trainer, rank)
    (folder / f"scored_{rank}.json").write_text(json.dumps(scored))
    measured = one_of_two.measure(rank, json.loads((folder / "rows.json").read_text()))
    (folder / f"measured_{rank}.json").write_text(json.dumps(measured))
    for job in json.loads((folder / "jobs.json").read_text()):
        if rank == 0 or job["stage"]["kind"] in SHARED:  # others have one process, whatever the devices
            worker.execute(job["stage"], job["runtime"], Store(job["store"]), lambda *_: None, rank)
        dist.barrier()  # the next one reads what the first process has committed
    dist.destroy_process_group()


def move(stopped: Path, again: Path) -> None:
    """Give a run what another one was stopped with."""
    shutil.copytree(stopped / "work", again / "work")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
