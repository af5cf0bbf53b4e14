"""One measurement of w2sd in a process of its own: `python ours.py FOLDER OBJECTIVE [--check N]` prints a line of JSON.

What runs is what a stage runs: a student under `stages.lightning.train`, and `lightning.test` and `predict` after it.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import work
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import PairRows
from w2sd.data.loader import Loader, Shuffled, in_length_order
from w2sd.data.pairs import Pair
from w2sd.data.text import Encoded, encode_rows, gather
from w2sd.logger import Csv
from w2sd.models.heads import PolicyModel, RewardModel
from w2sd.models.hub import load_backbone, load_language_model, load_tokenizer
from w2sd.models.packing import pack
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.preference import DPO, SFT, SimPO
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.stages import engine
from w2sd.students.student import LOGP, Examination, PolicyStudent, RewardStudent, Student

OBJECTIVES = {"reward": RewardBCE(), "simpo": SimPO(beta=2.0, gamma=1.0), "dpo": DPO(beta=0.1)}


class Started(Loader):
    """A loader that remembers when its first batch was asked for."""

    at: float

    def __iter__(self) -> Iterator[Any]:
        self.at = time.process_time()
        return super().__iter__()


class Clock:
    """Is told of every step, and remembers when the last one ended."""

    at: float

    def __call__(self, done: int, total: int) -> None:
        self.at = time.process_time()


def task_for(scratch: Path, log_every: int = 10) -> Task:
    """A stage's surroundings, with the presets of `trainer=cpu`; nothing in `scratch` may be left of another run."""
    trainer = Trainer(log_every=log_every)
    places = [Path(tempfile.mkdtemp(dir=scratch)) for _ in ("artifact", "work", "logs")]
    return Task("bench", "train", {"seed": 0}, {}, *places[:2], trainer, Csv(), "bench", places[2] / "train", Clock())


def student_for(
    given: work.Work, objective: str, fit: Fit, n_steps: int, log_every: int, is_packed: bool = True
) -> Student:
    """A student with the first weights."""
    if objective == "reward":
        model: Any = RewardModel(load_backbone(given.folder / "model"))
        with torch.no_grad():
            model.head.weight.copy_(work.first_head(model.head.in_features))
        kind: Any = RewardStudent
    else:
        model, kind = PolicyModel(load_language_model(given.folder / "model")), PolicyStudent
    silence_dropout(model.backbone)
    if is_packed:
        ready(model)
    return kind(model, OBJECTIVES[objective], NoConflict(), fit, n_steps, log_every)


def ready(model: RewardModel | PolicyModel) -> None:
    """For packed rows, as every stage makes its model ready."""
    if not pack(model, work.CONTEXT):
        raise SystemExit("this model is given a row for every answer: nothing here is measured with that")


def encode_all(given: work.Work, n: int) -> Encoded:
    """The first `n` pairs; reward models read the end token too, because the other side's do."""
    tokenizer = load_tokenizer(given.folder / "model")
    pairs = [Pair(str(i), str(i), "gt", "harmless", **pair) for i, pair in enumerate(given.pairs[:n])]
    end = tokenizer.eos_token_id
    return gather(encode_rows(pairs, tokenizer, work.CONTEXT, len(tokenizer), continued=True, end=end))


def rows_of(encoded: Encoded, task: Task, references: np.ndarray | None) -> PairRows:
    """All pairs with the better answer in the first slot, and a target that says so."""
    n = len(encoded.kept)
    return PairRows(
        encoded,
        np.zeros(n, bool),
        task.trainer.micro_tokens,
        targets=np.ones(n),
        references=references,
        is_packed=task.trainer.packed,
    )


def examine(student: Student, n: int) -> Student:
    """Make ready to be scored on `n` pairs."""
    student.examine(Examination(torch.arange(n), torch.arange(n), torch.zeros(n, dtype=torch.bool), {}))
    return student.requires_grad_(False)


def score(task: Task, student: Student, encoded: Encoded, references: np.ndarray | None, how: Any) -> float:
    """CPU-seconds of scoring every pair."""
    rows = rows_of(encoded, task, references)
    examine(student, len(rows))
    began = time.process_time()
    how(task, student, Loader(rows, in_length_order(rows.lengths)))
    return time.process_time() - began


def ask_reference(task: Task, given: work.Work, encoded: Encoded) -> tuple[np.ndarray, float]:
    """What the first weights say of every answer, as the stage `reference` asks them; CPU-seconds of it."""
    model = PolicyModel(load_language_model(given.folder / "model"))
    ready(model)
    origin = PolicyStudent(model, SFT(), NoConflict(), Fit())
    seconds = score(task, origin, encoded, None, engine.predict)
    return np.column_stack([origin.predictions[name] for name in LOGP]), seconds


def run_once(given: work.Work, objective: str, n: int, scratch: Path) -> dict[str, Any]:
    """Reference, training and evaluation on the first `n` pairs: CPU-seconds of each."""
    task, encoded, said, seconds = task_for(scratch), encode_all(given, n), None, {}
    if objective == "dpo":
        said, seconds["reference"] = ask_reference(task, given, encoded)
    rows, fit = rows_of(encoded, task, said), Fit(lr=1e-5, batch=work.BATCH, schedule="constant")
    loader = Started(rows, Shuffled(n, work.BATCH, seed=0))
    student = student_for(given, objective, fit, len(loader), task.trainer.log_every)
    engine.train(task, student, loader)
    seconds["train"] = task.advance.at - loader.at
    seconds["evaluate"] = score(task, student, encoded, said, engine.test)
    tokens = sum(2 * len(p) + len(c) + len(r) for p, c, r in zip(*encoded[:3], strict=True))
    return {"pairs": n, "tokens": tokens, "seconds": seconds}


def first_losses(given: work.Work, objective: str, scratch: Path, n_steps: int) -> list[float]:
    """The loss of each of the first steps, on pairs in their order, at a rate that moves them."""
    n = n_steps * work.BATCH
    task, encoded = task_for(scratch, log_every=1), encode_all(given, n)
    said = ask_reference(task, given, encoded)[0] if objective == "dpo" else None
    fit = Fit(lr=1e-3, batch=work.BATCH, schedule="constant")
    in_order = [list(range(start, start + work.BATCH)) for start in range(0, n, work.BATCH)]
    student = student_for(given, objective, fit, n_steps, 1)
    engine.train(task, student, Loader(rows_of(encoded, task, said), in_order))
    with open(task.logs / "metrics.csv", encoding="utf-8") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def profiled(given: work.Work, objective: str, scratch: Path) -> str:
    """Which share of the time of eight steps each operator takes, of those that take most."""
    first_losses(given, objective, scratch, 2)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        first_losses(given, objective, scratch, 8)
    cost = {one.key: one.self_cpu_time_total for one in seen.key_averages()}
    dear = sorted(cost, key=lambda name: -cost[name])[:10]
    return ", ".join(f"{name.removeprefix('aten::')} {cost[name] / sum(cost.values()):.0%}" for name in dear)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("objective", choices=OBJECTIVES)
    parser.add_argument("--check", type=int, default=0, help="so many first losses, and nothing else")
    parser.add_argument("--profile", action="store_true", help="where the time goes, and nothing else")
    asked = parser.parse_args()
    given = work.load(asked.folder)
    with tempfile.TemporaryDirectory() as scratch:
        if asked.check:
            print(json.dumps(first_losses(given, asked.objective, Path(scratch), asked.check)))
            return
        if asked.profile:
            print(json.dumps(profiled(given, asked.objective, Path(scratch))))
            return
        run_once(given, asked.objective, 2 * work.BATCH, Path(scratch))  # a warm-up
        found = run_once(given, asked.objective, len(given.pairs), Path(scratch))
    print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
