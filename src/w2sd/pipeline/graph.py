"""The stages of a run, by kind: what each is asked, and which stages it is made from.

Who is trained and who is compared with whom is not said here but in `plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from w2sd.config import RunConfig
from w2sd.conflicts.base import adds_rows
from w2sd.errors import within
from w2sd.pipeline.stage import FACETS, Reading, Stage

MAX_NEW_TOKENS = 64  # of an answer that a person is to read
STUDENT = "student"  # the stream of what arms of a seed share: what they are fine-tuned from, and taught by on the way
TWIN = "twin"  # and of the no-conflict students that the others are measured against
OF_SFT = ("data", "split", "part", "model", "adapter", "supervision", "stream", "seed", "append_eos")  # as the training
EVERY = tuple(FACETS)

# The kinds of stages. To add one: a class here, a method of `Graph` that names it, and `stages/<kind>.py` that runs it.


class Pretrain(Stage, kind="pretrain", version=1, is_shared=True, trains=True, reads_language=True):
    """A small model on the documents of its ladder."""

    def reading(self) -> Reading:
        rows, length = getattr(self.params["text"], "extent", (None, None))
        return Reading(rows, length, self.params["model"].fit().epochs)


class Generative(
    Stage, kind="generative", version=1, is_shared=True, trains=True, reads_language=True, reads_parts=True
):
    """A model as a language model on the texts of the task, without labels."""


class Sft(Stage, kind="sft", version=3, is_shared=True, trains=True, reads_language=True, texts=1):
    """A policy on preferred answers, before its objective."""


class Reference(
    Stage, kind="reference", version=2, is_shared=True, reads_language=True, reads_parts=True, facets_of=EVERY
):
    """What a policy says of every row before it is trained."""


class Features(Stage, kind="features", version=2, is_shared=True, reads_parts=True, facets_of=EVERY):
    """The hidden states of a model for every row before it is trained."""


class ZeroShot(Stage, kind="zero_shot", version=1):
    """A classifier whose head is made of words, untrained."""

    def reading(self) -> Reading:
        return Reading(0, 0)


class Train(Stage, kind="train", version=2, is_shared=True, trains=True):
    """A weak model, a ceiling or a student on labels."""


class Label(Stage, kind="label", version=1, is_shared=True, reads_parts=True, facets_of=EVERY):
    """What a model thinks of every row of w2s."""


class Refine(Stage, kind="refine", version=2, reads_language=True, reads_parts=True):
    """Weak labels anew, by the strong model in context."""

    def reading(self) -> Reading:
        return super().reading()._replace(length=None)  # its prompts hold other rows


class Evaluate(Stage, kind="evaluate", version=2, is_shared=True, facets_of=("test",)):
    """The predictions of a model on a split, and its metrics."""


class Generate(Stage, kind="generate", version=1):
    """What a policy writes after a few prompts."""

    def reading(self) -> Reading:
        return Reading(self.params["prompts"], self.params["data"].max_tokens + self.params["max_new_tokens"])


class Compare(Stage, kind="compare", version=5, asks_model=False):
    """The measurement: every model of the run beside the others."""


class Graph:
    """The stages that were named so far. Each method names one more, after what it is made from."""

    def __init__(self, run: RunConfig) -> None:
        self.run = run
        self.stages: dict[str, Stage] = {}

    def add(self, role: str, kind: type[Stage], params: Mapping[str, Any], inputs: Mapping[str, Stage]) -> Stage:
        stage = self.stages[f"{kind.kind}/{role}"] = kind(params, inputs)
        return stage

    def rows_of(self, split: str) -> Any:
        """The data as a stage sees them that reads one split. Rows of a file depend on all files, through leaks."""
        return self.run.data.focus(split) if hasattr(self.run.data, "focus") else self.run.data

    def begin(self, role: str, model: Any, knob: str, is_teacher: bool = False) -> dict[str, Any]:
        """What a model is before it sees a label, as an input; nothing where it is loaded from elsewhere as it is."""
        with within(knob):
            text = model.text(self.run.data)
        inputs = {} if text is None else {"base": self.add(role, Pretrain, {"model": model, "text": text}, {})}
        if self.run.generative is None:
            return inputs
        generative = self.run.generative.suited(model)
        if is_teacher and not generative.teacher:
            return inputs
        reads = {"data": self.rows_of("w2s"), "split": "w2s", "model": model, "fit": generative.fit}
        reads["seed"] = self.run.settings.teacher_seed
        if self.run.objective.student == "policy":
            reads["append_eos"] = self.run.data.append_eos
        return {"base": self.add(role, Generative, reads, inputs)}

    def train(
        self,
        role: str,
        model: Any,
        *,
        split: str,
        seed: int,
        stream: str = STUDENT,  # of random numbers: models of two streams differ in their draws under one seed
        part: int = 0,
        supervision: Any = None,  # None: the data's own labels, and no conflict either
        conflict: Any = None,
        like: Stage | None = None,  # a student that was pulled at as often as the conflict pulls at this one
        hint: Any = None,  # of the last student, whose `evaluate` then reads the preferences of `weak` as well
        **inputs: Stage,
    ) -> Stage:
        objective = self.run.objective
        if supervision is None:
            objective = getattr(objective, "under_truth", objective)
        params = {
            "data": self.rows_of(split),
            "split": split,
            "part": part,
            "model": model,
            "adapter": self.run.adapter,
            "objective": objective,
            "supervision": supervision,
            "conflict": conflict,
            "fit": self.run.fit,
            "stream": stream,
            "seed": seed,
        }
        weak = self.run.weak if conflict is not None and conflict.needs_blind_spots else None
        optional = {"stopping": self.run.stopping, "head": self.run.head, "hint": hint, "weak": weak}
        params |= {name: part for name, part in optional.items() if part is not None}
        if self.run.objective.student == "policy":
            params["append_eos"] = self.run.data.append_eos
            inputs = self.finetune(role, params, inputs)
            inputs |= self.reference(role, params, inputs, split)
        if self.run.adapter.reads_features:
            inputs["features"] = self.features(role, model, split, self.run.adapter.layer, inputs)
            inputs.pop("base", None)
        if like is not None:
            inputs["like"] = like
        return self.add(role, Train, params, inputs)

    def features(self, role: str, model: Any, split: str, layer: str, inputs: Mapping[str, Stage]) -> Stage:
        """What a model makes of every row of a split before it is trained on any: all arms share it."""
        reads = {"data": self.rows_of(split), "split": split, "model": model, "layer": layer}
        reads["precision"] = self.run.fit.precision
        return self.add(f"{role}_{split}_{layer}", Features, reads, _base(inputs))

    def finetune(self, role: str, params: Mapping[str, Any], inputs: dict[str, Stage]) -> dict[str, Stage]:
        """The inputs of a policy's training: its base is the model that was fine-tuned.

        What a fine-tuning depends on is the same for all arms of a seed, unless it is to see their conflicts: so is the
        stream of its random numbers, but for twins.
        """
        if self.run.sft is None:
            return inputs
        conflict = params["conflict"] if self.run.sft.on_conflict and adds_rows(params["conflict"]) else None
        own = {"fit": self.run.sft.fit, "conflict": conflict}
        if conflict is not None:
            own |= {name: params[name] for name in ("weak",) if name in params}
        elif params["supervision"] is not None:
            own["stream"] = TWIN if params["stream"] == TWIN else STUDENT
        return inputs | {"base": self.add(role, Sft, {name: params[name] for name in OF_SFT} | own, inputs)}

    def reference(
        self, role: str, params: Mapping[str, Any], inputs: Mapping[str, Stage], split: str
    ) -> dict[str, Stage]:
        """What a policy that is trained with these parameters and inputs was before, asked about every row of a split.

        A training that has no use for it has none.
        """
        if not self.run.objective.needs_reference:
            return {}
        reads = {"data": self.rows_of(split), "split": split, "precision": self.run.fit.precision}
        reads |= {name: params[name] for name in ("model", "append_eos")}
        return {"reference": self.add(f"{role}_{split}", Reference, reads, _base(inputs))}

    def zero_shot(self, model: Any, inputs: Mapping[str, Stage]) -> Stage:
        """A model as a classifier that nobody has trained: its head is made of words."""
        reads = {name: getattr(self.run, name) for name in ("head", "objective", "adapter", "fit")}
        reads |= {"model": model, "data": self.rows_of("test"), "seed": self.run.settings.teacher_seed}
        return self.add("strong", ZeroShot, reads, inputs)

    def label(self, role: str, teacher: Stage) -> Stage:
        """What a model thinks of every w2s row, of whatever facet and part: all arms then share one artifact."""
        inputs = {"model": teacher, **self.read_before(role, teacher, "w2s")}
        return self.add(role, Label, self.scored("w2s", self.run.objective.labelled_by), inputs)

    def refine(self, role: str, labels: Stage, inputs: Mapping[str, Stage]) -> Stage:
        """The labels that the last student is taught: its teacher's, or what its own model makes of them."""
        if self.run.refinement is None:
            return labels
        reads = {"data": self.rows_of("w2s"), "split": "w2s", "model": self.run.strong}
        reads |= {"refinement": self.run.refinement, "context": self.run.data.max_tokens}
        if self.run.stopping is not None:
            reads["holdout"] = self.run.stopping.holdout
        return self.add(role, Refine, reads, {**_base(inputs), "labels": labels})

    def evaluate(self, role: str, trained: Stage, *, split: str = "test", **references: Stage) -> Stage:
        inputs = {"model": trained, **self.read_before(role, trained, split), **references}
        return self.add(role, Evaluate, self.scored(split, self.run.objective.measured_by), inputs)

    def read_before(self, role: str, trained: Stage, split: str) -> dict[str, Stage]:
        """What a trained model has to be told of a split: what its reference says, or the features that it reads."""
        if self.run.adapter.reads_features:
            model, seen = trained.params["model"], trained.inputs["features"]
            return {"features": self.features(role, model, split, seen.params["layer"], seen.inputs)}
        return self.reference(role, trained.params, trained.inputs, split)

    def scored(self, split: str, reading: str) -> dict[str, Any]:
        """Whose rows a model is asked about and which of its margins is heard; a reward model has only one."""
        reads = {"data": self.rows_of(split), "split": split}
        return reads | ({"reading": reading} if self.run.objective.student == "policy" else {})

    def generate(self, role: str) -> Stage:
        """What a policy writes after the first few prompts of the test split."""
        trained = self.stages[f"train/{role}"]
        how = {"prompts": self.run.settings.samples, "max_new_tokens": MAX_NEW_TOKENS, "seed": trained.params["seed"]}
        return self.add(role, Generate, {"data": self.rows_of("test"), "split": "test", **how}, {"model": trained})


def _base(inputs: Mapping[str, Stage]) -> dict[str, Stage]:
    """Of a training's inputs, what its model was before; nothing where it is loaded from elsewhere."""
    return {role: stage for role, stage in inputs.items() if role == "base"}
