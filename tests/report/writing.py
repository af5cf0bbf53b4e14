"""Stores as the pipeline leaves them, written by hand without a single training step; pages over them, and a reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from w2sd.metrics.measurement import measure_deception
from w2sd.pipeline.store import Store
from w2sd.predictions import Predictions, join, write_predictions
from w2sd.report import page, results, verdicts

CREATED = "2031-04-05T06:07:{:02d}+00:00"
STAGES = {
    "pretrain/weak": [],
    "pretrain/strong": [],
    "train/weak": ["pretrain/weak"],
    "train/ceiling": ["pretrain/strong"],
    "label/weak": ["train/weak"],
    "train/student": ["pretrain/strong", "label/weak"],
    "evaluate/weak": ["train/weak"],
    "evaluate/ceiling": ["train/ceiling"],
    "evaluate/student": ["train/student", "evaluate/weak", "evaluate/ceiling"],
    "compare": ["evaluate/weak", "evaluate/student", "evaluate/ceiling"],
}
VOID = {"meta", "br", "hr", "img", "input", "link"}
N_PAIRS = 800
MEASURED: dict[str, Any] = {
    "accuracy/weak": 0.787,
    "accuracy/weak_lo": 0.774,
    "accuracy/weak_hi": 0.8,
    "accuracy/weak_se": 0.0066,
    "accuracy/student": 0.9166,
    "accuracy/student_lo": 0.908,
    "accuracy/student_hi": 0.925,
    "accuracy/student_se": 0.0044,
    "accuracy/ceiling": 0.996,
    "accuracy/ceiling_lo": 0.993,
    "accuracy/ceiling_hi": 0.998,
    "accuracy/ceiling_se": 0.001,
    "gain": 0.1296,
    "gain_lo": 0.115,
    "gain_hi": 0.144,
    "gain_mcnemar_p": 1e-40,
    "pgr_gap": 0.209,
    "pgr_gap_lo": 0.196,
    "pgr_gap_hi": 0.222,
    "pgr_gap_se": 0.0066,
    "pgr": 0.62,
    "pgr_lo": 0.551,
    "pgr_hi": 0.7,
    "pgr_n_undefined": 0,
    "n/test": 4000,
    "n/clusters": 3915,
    "n/ties": 0,
    "data/n_gt": 4000,
    "data/n_w2s": 4000,
    "data/n_test": 4000,
    "data/dropped_duplicates": 12,
    "data/dropped_equal_sides": 3,
}


class FakeStore:
    """A store to which jobs are added one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.n = 0

    def add(
        self,
        name: str = "demo",
        *,
        seed: int = 0,
        conflict: str = "NoConflict",
        overrides: list[str] | None = None,
        sweep: str | None = None,
        knobs: dict[str, Any] | None = None,
        oracles: Sequence[str] = (),
        arms: Mapping[str, Predictions] = MappingProxyType({}),
        trained: Mapping[str, dict[str, Any]] = MappingProxyType({}),
        **metrics: Any,
    ) -> dict[str, Any]:
        """One finished job; `metrics` change or add measurements (`accuracy__weak` is `accuracy/weak`).

        `oracles` are the groups that read the truth. `arms` are what it compares; without them, that is what
        `STAGES` says. `trained` has what the stages `train/<role>` leave: `metrics`, and a `curve` where there is one.
        """
        config = self._config(name, seed, conflict, knobs or {})
        keys = {stage: self._key(stage, config) for stage in STAGES}
        measured = {**MEASURED, **{key.replace("__", "/"): value for key, value in metrics.items()}}
        for stage, names in STAGES.items():
            inputs = {role: keys[role] for role in names}
            if stage == "compare":
                inputs = self._evaluations(arms, keys[stage]) or inputs
            left = trained.get(stage.removeprefix("train/"), {})
            files = {"metrics": measured if stage == "compare" else {}, **left}
            self._artifact(stage, keys[stage], inputs, files)
        overrides = [f"experiment={name}", f"seed={seed}"] if overrides is None else overrides
        self.n += 1
        job = {
            "id": f"job-{self.n:03d}",
            "name": name,
            "compare": keys["compare"],
            "stages": {stage: {"kind": stage.partition("/")[0], "key": keys[stage]} for stage in sorted(STAGES)},
            "config": config,
            "oracles": [*oracles],
            "overrides": overrides,
            "command": " ".join(["w2sd", *overrides]),
            "sweep": sweep,
            "finished": CREATED.format(self.n),
        }
        Store(self.root).record(job)
        return job

    def add_conflict(
        self,
        seed: int = 0,
        *,
        world: int = 0,
        planted: float = 0.3,
        controls: bool = True,
        steps: tuple[int, int] = (64, 64),
        knobs: dict[str, Any] | None = None,
        **metrics: Any,
    ) -> dict[str, Any]:
        """A job with a conflict: `planted` is the share of flips in ku; it is .08 elsewhere and .04 in controls."""
        knobs = {"data": {"world_seed": world}, **(knobs or {})}
        conflict = metrics.pop("conflict", "Implicit")
        arms = predictions(seed, world, planted, controls=controls)
        told = {f"steps/{role}": n for role, n in zip(("student", "baseline"), steps, strict=True)}
        told |= {"helpful/accuracy/student": 0.6, "helpful/accuracy/baseline": 0.5, "n/test": N_PAIRS}
        found = measure_deception(join(arms), strata=arms["weak"].stratum, n_resamples=50)
        overrides = [f"conflict={conflict.lower()}", f"seed={seed}", f"data.world_seed={world}"]
        metrics = {**found, **told, **metrics}
        return self.add(
            "planted", seed=seed, conflict=conflict, overrides=overrides, knobs=knobs, arms=arms, **metrics
        )  # fmt: skip

    def artifact(self, spec: dict[str, Any], **files: Any) -> None:
        """An artifact as the store commits it, in the place of one that is there."""
        with Store(self.root).writing({"version": 1, "params": {}, "git": "0123abc", **spec}) as folder:
            for name, content in files.items():
                write(folder / f"{name}.json", content)

    def _artifact(self, stage: str, key: str, inputs: dict[str, str], files: dict[str, Any]) -> None:
        kind = stage.partition("/")[0]
        if Store(self.root).has(kind, key):  # shared with an earlier job
            return
        hardware = {"cpu": "Example CPU", "cores": 4, "gpu": None}
        cost = {"seconds": 1.5, "cpu_seconds": 2.25, "memory/peak_rss_mb": 300, "memory/peak_gpu_mb": None}
        runtime = {**cost, "hardware": hardware, "versions": {"numpy": "2.0.0", "w2sd": "0.1.0"}}
        spec = {"kind": kind, "key": key, "inputs": inputs, "created": CREATED.format(0)}
        self.artifact(spec, runtime=runtime, **files)

    def _evaluations(self, arms: Mapping[str, Predictions], compare: str) -> dict[str, str]:
        """The predictions of these arms, as artifacts; their keys by role."""
        inputs = {}
        for role, table in arms.items():
            role = role.replace("/", "_")
            inputs[role] = hashlib.sha256(f"{role} {compare}".encode()).hexdigest()[:12]
            columns = {"id": table.ids, "cluster": table.clusters, "stratum": table.stratum}
            columns |= {"margin": table.margin, "p_correct": table.p_correct}
            with Store(self.root).writing({"kind": "evaluate", "key": inputs[role], "inputs": {}}) as folder:
                write_predictions(folder / "predictions.parquet", columns)
        return inputs

    @staticmethod
    def _key(stage: str, config: dict[str, Any]) -> str:
        last = stage in ("train/student", "evaluate/student", "compare")  # the rest is shared between jobs
        models = {role: config[role] for role in ("weak", "strong") if role in config}
        decisive = {**config, "name": None} if last else models or None
        return hashlib.sha256(json.dumps([stage, decisive]).encode()).hexdigest()[:12]

    @staticmethod
    def _config(name: str, seed: int, conflict: str, knobs: dict[str, Any]) -> dict[str, Any]:
        part: dict[str, Any] = {"_target_": f"w2sd.conflicts.{conflict.lower()}.{conflict}"}
        if conflict == "Explicit":
            part["alpha"] = 0.5
        fit = {"_target_": "w2sd.students.fit.Fit", "lr": 1e-5, "epochs": 2, "betas": [0.9, 0.95]}
        return {"name": name, "seed": seed, "teacher_seed": 0, "conflict": part, "fit": fit, "store": "store", **knobs}


def predictions(seed: int, world: int, planted: float, *, controls: bool) -> dict[str, Predictions]:
    """Arms of known answer: the ceiling knows all pairs, the weak model every other one."""
    even = np.arange(N_PAIRS) % 2 == 0
    belief = np.random.default_rng(world).uniform(1, 4, N_PAIRS)

    def arm(name: str, in_ku: float = 0.04, elsewhere: float = 0.04) -> Predictions:
        rng = np.random.default_rng([world, *name.encode()])
        flips = rng.random(N_PAIRS) < np.where(even, elsewhere, in_ku)
        return table(np.where(flips, -1, 1) * belief + rng.normal(0, 0.1, N_PAIRS))

    def table(margin: Any) -> Predictions:
        ids = [f"{n:04}" for n in range(N_PAIRS)]
        return Predictions(
            ids, ids, 1 / (1 + np.exp(-margin)), margin, stratum=[str(n // 2 % 3) for n in range(N_PAIRS)]
        )

    arms = {"weak": table(np.where(even, 3.0, 0.5)), "ceiling": table(np.full(N_PAIRS, 3.0))}
    arms |= {"baseline": arm(f"none {seed}", 0.0, 0.0), "student": arm(f"conflict {seed}", planted, 0.08)}
    arms |= {f"twin_{n}": arm(f"twin {n}") for n in range(1, 5)}
    if controls:
        arms |= {f"placebo/{name}": arm(f"{name} {seed}") for name in ("more_data", "random_helpful")}
        arms |= {"gold_baseline": arm(f"gold {seed}", 0.0, 0.0), "gold_conflict": arm(f"gold conflict {seed}")}
    return arms


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True))


class Reader(HTMLParser):
    """Checks that every element is closed in turn; collects ids, references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write_page(store: Path, out: Path, job: str | None = None) -> Path:
    """Write the page over a store, or over one of its jobs, as the program does."""
    frame = results.load(store, jobs=None if job is None else [job])
    with page.turn(out):
        return page.write(frame, store, out, by=None, metrics=None, rulings=verdicts.rule(frame, store))


def read(page: Path) -> Reader:
    """What stands on a page that is well-formed."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader
