"""From a run to its graph of stages.

data ──► pairs (splits gt | w2s | test, disjoint by cluster)
             │ gt                     │ w2s                        │ test
[pretrain] ─► train(weak, gt) ──► label(weak, w2s) ──► train(student, weak labels) ──► evaluate ─┐
   └────────► train(strong, gt) = ceiling ──────────────────────────────────────────► evaluate ─┤
                    weak ───────────────────────────────────────────────────────────► evaluate ─┴► compare

With a head of words the strong model is also asked before it is taught: [pretrain] ─► zero_shot ─► evaluate ─► compare.
With `generative` the strong models, and at will the weak one, read the texts of w2s between `pretrain` and all else.

A policy is fine-tuned before it is trained, and where its objective needs a reference, that is what it was until then:

[pretrain] ─► sft ─┬───────────────────► train ─► label, evaluate, generate
                   └─► reference(split) ───┴────────┘

A linear probe reads no rows, but what its model, as it was, makes of them; so does a supervision that asks a probe:

[pretrain] ─► features(split) ─► train ─► label, evaluate

A theory is simulated by one stage, of which none of this is an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from w2sd.config import RunConfig, target
from w2sd.conflicts.base import adds_rows
from w2sd.conflicts.none import NoConflict
from w2sd.data.pairs import classes_of, words_for
from w2sd.errors import Refused, require, within
from w2sd.fit import NoGenerative, NoSft
from w2sd.head import NewHead, WordHead
from w2sd.pipeline.stage import Stage, identity
from w2sd.refinement import InContext, NoRefinement
from w2sd.stopping import NoStopping
from w2sd.supervision import Gold

TRAINING = "training_"  # how roles begin that are about the pairs a student was trained on
SALIENCY = "saliency_"  # how roles begin that are about the features of the pairs a student was trained on
SAMPLES = "samples_"  # how roles begin that are about what a policy writes
SAMPLED = ("weak", "ceiling", "baseline", "student")
MAX_NEW_TOKENS = 64  # of an answer that a person is to read
Plan = dict[str, Stage]  # by name, each stage after its inputs; two names may share one stage
OF_SFT = ("data", "split", "part", "model", "adapter", "supervision", "seed", "append_eos")  # shared with the training


def plan(run: RunConfig) -> Plan:
    """The stages of `run`, named and in an order in which they can be run. Runs nothing, imports no torch.

    The last one holds the results.
    """
    if run.theory is not None:
        return {"simulate": Stage("simulate", {"theory": run.theory, "seed": run.settings.seed})}
    identity(run.data)  # a file that is missing is named before anything that could be wrong with the models
    with within("conflict"):
        run.conflict.check(run.objective)
    if hasattr(run.objective, "check"):
        run.objective.check(run.fit, len(classes_of(run.data) or ()) or None)
    if not run.supervision.needs_teacher:
        _check_no_teacher(run)
    if classes_of(run.data):
        _check_classes(run)
    elif not isinstance(run.refinement, NoRefinement):
        raise Refused("refinement", target(run.refinement), "refinement=none: only items are asked about in a context")
    elif not isinstance(run.head, NewHead):
        raise Refused("head", target(run.head), "head=new: these data are pairs, and only classes have words")
    if run.adapter.reads_features:
        _check_probe(run)
    return _Graph(run).complete()


def _check_no_teacher(run: RunConfig) -> None:
    """Refuse what would be done to a teacher's labels where there are none."""
    accepted = f"none beside supervision={target(run.supervision)}, which asks no teacher"
    require(isinstance(run.refinement, NoRefinement), "refinement", target(run.refinement), accepted)
    require(not run.chain.hops(run.weak, run.strong), "chain", target(run.chain), accepted.replace("none", "direct", 1))


def _check_classes(run: RunConfig) -> None:
    """Refuse what only pairs can have, and words that do not fit the classes."""
    if isinstance(run.refinement, InContext):
        with within("refinement"):
            words_for(run.refinement.words, classes_of(run.data) or ())
    if isinstance(run.head, WordHead):
        with within("head"):
            words_for(run.head.words, classes_of(run.data) or ())
    if not run.objective.reads_classes:
        raise Refused("objective", target(run.objective), "one that reads classes, such as objective=reward_bce")
    if not isinstance(run.conflict, NoConflict):
        raise Refused(
            "conflict", target(run.conflict), "conflict=none: conflicts are about pairs, and these data are items"
        )


def _check_probe(run: RunConfig) -> None:
    """Refuse a linear probe of what writes, or of features that would have to change."""
    accepted = "full, head_only or lora: a policy writes, and no linear probe does"
    require(run.objective.student != "policy", "adapter", "linear_probe", accepted)
    require(isinstance(run.head, NewHead), "head", target(run.head), "head=new with adapter=linear_probe")
    accepted = "false with adapter=linear_probe, whose features are read once and without"
    require(not run.fit.dropout, "fit.dropout", run.fit.dropout, accepted)


class _Graph:
    """The stages that were named so far."""

    def __init__(self, run: RunConfig) -> None:
        self.run = run
        self.stages: Plan = {}
        self.measured: dict[str, Stage] = {}  # what is compared, by role

    def complete(self) -> Plan:
        """All stages of the run."""
        run, settings = self.run, self.run.settings
        weak_base = self.begin("weak", run.weak, "weak", is_teacher=True)
        self.strong_base = self.begin("strong", run.strong, "strong")
        seed = settings.teacher_seed
        self.weak = self.train("weak", run.weak, split="gt", seed=seed, **weak_base)
        self.ceiling = self.train("ceiling", run.strong, split=settings.ceiling_split, seed=seed, **self.strong_base)
        self.measured |= {role: self.evaluate(role, self.stages[f"train/{role}"]) for role in ("weak", "ceiling")}
        if not isinstance(run.head, NewHead):
            self.measured["zero_shot"] = self.evaluate("zero_shot", self.zero_shot())
        if isinstance(run.conflict, NoConflict):
            self.examine("student", seed=settings.seed, conflict=run.conflict)
        else:
            self.oppose()
        if run.objective.student == "policy" and settings.samples:
            self.measured |= {f"{SAMPLES}{role}": self.generate(role) for role in SAMPLED if role in self.measured}
        self.measured |= self.saliency(self.stages["train/student"])
        self.stages["compare"] = Stage("compare", {"data": run.data}, self.measured)
        return self.stages

    def saliency(self, student: Stage) -> dict[str, Stage]:
        """A student's features and weak labels, where it has both: whether the task is plain in them costs no more."""
        features = student.inputs.get("probed", student.inputs.get("features"))
        if features is None or "labels" not in student.inputs:
            return {}
        return {f"{SALIENCY}features": features, f"{SALIENCY}labels": student.inputs["labels"]}

    def zero_shot(self) -> Stage:
        """The strong model as a classifier that nobody has trained."""
        run = self.run
        parts = {"model": run.strong, "head": run.head, "objective": run.objective, "adapter": run.adapter}
        asked = {"data": self.rows_of("test"), "fit": run.fit, "seed": run.settings.teacher_seed}
        return self.add("strong", "zero_shot", parts | asked, self.strong_base)

    def oppose(self) -> None:
        """A conflict, what it is compared with, and its controls."""
        run, settings = self.run, self.run.settings
        self.examine("baseline", seed=settings.seed, conflict=NoConflict())
        self.examine("student", seed=settings.seed, conflict=run.conflict, against="baseline")
        twins = settings.twin_seeds or [seed for seed in range(4) if seed != settings.seed][:3]
        for n, seed in enumerate(twins, start=1):
            self.examine(f"twin_{n}", seed=seed, conflict=NoConflict())
        if settings.controls and not run.conflict.is_placebo:
            for name, placebo in run.conflict.placebos().items():
                self.examine(f"placebo_{name}", seed=settings.seed, conflict=placebo, against="baseline")
            gold: dict[str, Any] = {"seed": settings.seed, "supervision": Gold()}
            self.examine("gold_baseline", **gold, conflict=NoConflict())
            self.examine("gold_conflict", **gold, conflict=run.conflict, against="gold_baseline")
        if settings.training_pairs:
            self.measured[f"{TRAINING}weak"] = self.label("weak", self.weak)
            for role in ("baseline", "student"):
                named = f"{TRAINING}{role}"
                self.measured[named] = self.evaluate(named, self.stages[f"train/{role}"], split="w2s")

    def examine(self, role: str, *, against: str | None = None, **how: Any) -> None:
        """Train an arm and score it on the test split, beside weak model, ceiling and the arm that it departs from."""
        references: dict[str, Any] = {other: self.measured[other] for other in ("weak", "ceiling")}
        if against is not None:
            references["baseline"] = self.measured[against]
        self.measured[role] = self.evaluate(role, self.arm(role, **how), **references)

    def arm(self, role: str, *, seed: int, conflict: Any, supervision: Any = None) -> Stage:
        """The last student of the chain: a fold over the models between weak and strong."""
        run = self.run
        supervision = supervision or run.supervision
        teacher_role, teacher = "weak", self.weak
        on_the_way = supervision.first_stage or supervision  # only the last student has a first one before it
        hops = run.chain.hops(run.weak, run.strong) if supervision.needs_teacher else {}
        for hop, (name, model) in enumerate(hops.items(), start=1):
            taught_by, teacher_role = teacher_role, f"{role}_hop_{hop}"
            base = self.begin(f"hop_{hop}", model, f"chain.between.{name}")
            if supervision.needs_ceiling:
                base["ceiling_labels"] = self.label("ceiling", self.ceiling)
            if supervision.needs_features:
                base["probed"] = self.features(teacher_role, model, "w2s", supervision.layer, base)
            teacher = self.train(
                teacher_role,
                model,
                split="w2s",
                part=0 if run.chain.reuse_prompts else hop,
                seed=seed,
                supervision=on_the_way,
                conflict=conflict if run.chain.conflict_everywhere else NoConflict(),
                labels=self.label(taught_by, teacher),
                **base,
            )
        inputs = dict(self.strong_base)
        if supervision.needs_teacher:
            inputs["labels"] = self.refine(role, self.label(teacher_role, teacher))
        if supervision.first_stage is not None:
            first = {"supervision": supervision.first_stage, "conflict": NoConflict()}
            student = self.train(f"{role}_first", run.strong, split="w2s", seed=seed, **first, **inputs)
            inputs["second_labels"] = self.label(f"{role}_first", student)
        if supervision.needs_ceiling:
            inputs["ceiling_labels"] = self.label("ceiling", self.ceiling)
        if supervision.needs_features:
            inputs["probed"] = self.features(role, run.strong, "w2s", supervision.layer, inputs)
        how: dict[str, Any] = {"seed": seed, "supervision": supervision, "conflict": conflict, **inputs}
        return self.train(role, run.strong, split="w2s", **how)

    def add(self, role: str, kind: str, params: Mapping[str, Any], inputs: Mapping[str, Stage]) -> Stage:
        self.stages[f"{kind}/{role}"] = Stage(kind, params, inputs)
        return self.stages[f"{kind}/{role}"]

    def rows_of(self, split: str) -> Any:
        """The data as a stage sees them that reads one split. Rows of a file depend on all files, through leaks."""
        return self.run.data.focus(split) if hasattr(self.run.data, "focus") else self.run.data

    def begin(self, role: str, model: Any, knob: str, is_teacher: bool = False) -> dict[str, Any]:
        """What a model is before it sees a label, as an input; nothing where it is loaded from elsewhere as it is."""
        with within(knob):
            text = model.text(self.run.data)
        inputs = {} if text is None else {"base": self.add(role, "pretrain", {"model": model, "text": text}, {})}
        generative = self.run.generative
        if isinstance(generative, NoGenerative) or (is_teacher and not generative.teacher):
            return inputs
        reads = {"data": self.rows_of("w2s"), "split": "w2s", "model": model, "fit": generative.fit}
        reads["seed"] = self.run.settings.teacher_seed
        if self.run.objective.student == "policy":
            reads["append_eos"] = self.run.data.append_eos
        return {"base": self.add(role, "generative", reads, inputs)}

    def train(
        self,
        role: str,
        model: Any,
        *,
        split: str,
        seed: int,
        part: int = 0,
        supervision: Any = None,  # None: the data's own labels, and no conflict either
        conflict: Any = None,
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
            "seed": seed,
        }
        if not isinstance(self.run.stopping, NoStopping):
            params["stopping"] = self.run.stopping
        if not isinstance(self.run.head, NewHead):
            params["head"] = self.run.head
        if self.run.objective.student == "policy":
            params["append_eos"] = self.run.data.append_eos
            inputs = self.finetune(role, params, inputs)
            inputs |= self.reference(role, params, inputs, split)
        if self.run.adapter.reads_features:
            inputs["features"] = self.features(role, model, split, self.run.adapter.layer, inputs)
            inputs.pop("base", None)
        return self.add(role, "train", params, inputs)

    def features(self, role: str, model: Any, split: str, layer: str, inputs: Mapping[str, Stage]) -> Stage:
        """What a model makes of every row of a split before it is trained on any: all arms share it."""
        asked = {"data": self.rows_of(split), "split": split, "model": model, "layer": layer}
        base = {role: stage for role, stage in inputs.items() if role == "base"}
        return self.add(f"{role}_{split}_{layer}", "features", asked | {"precision": self.run.fit.precision}, base)

    def finetune(self, role: str, params: Mapping[str, Any], inputs: dict[str, Stage]) -> dict[str, Stage]:
        """The inputs of a policy's training, of which the base is no longer what was pretrained.

        What a fine-tuning depends on is the same for all arms of a seed, unless it is to see their conflicts.
        """
        if isinstance(self.run.sft, NoSft):
            return inputs
        conflict = params["conflict"] if self.run.sft.on_conflict and adds_rows(params["conflict"]) else None
        own = {"fit": self.run.sft.fit, "conflict": conflict}
        return inputs | {"base": self.add(role, "sft", {name: params[name] for name in OF_SFT} | own, inputs)}

    def reference(
        self, role: str, params: Mapping[str, Any], inputs: Mapping[str, Stage], split: str
    ) -> dict[str, Stage]:
        """What a policy that is trained with these parameters and inputs was before, asked about every row of a split.

        A training that has no use for it has none.
        """
        if not self.run.objective.needs_reference:
            return {}
        asked = {"data": self.rows_of(split), "split": split, "precision": self.run.fit.precision}
        base = {role: stage for role, stage in inputs.items() if role == "base"}
        asked |= {name: params[name] for name in ("model", "append_eos")}
        return {"reference": self.add(f"{role}_{split}", "reference", asked, base)}

    def label(self, role: str, teacher: Stage) -> Stage:
        """What a model thinks of every w2s row, of whatever facet and part: all arms then share one artifact."""
        inputs = {"model": teacher, **self.read_before(role, teacher, "w2s")}
        return self.add(role, "label", self.scored("w2s", self.run.objective.labelled_by), inputs)

    def refine(self, role: str, labels: Stage) -> Stage:
        """The labels that the last student is taught: its teacher's, or what its own model makes of them."""
        if isinstance(self.run.refinement, NoRefinement):
            return labels
        asked = {"data": self.rows_of("w2s"), "split": "w2s", "model": self.run.strong}
        asked |= {"refinement": self.run.refinement, "context": self.run.data.max_tokens}
        base = {role: stage for role, stage in self.strong_base.items() if role == "base"}
        return self.add(role, "refine", asked, {**base, "labels": labels})

    def evaluate(self, role: str, trained: Stage, *, split: str = "test", **references: Stage) -> Stage:
        inputs = {"model": trained, **self.read_before(role, trained, split), **references}
        return self.add(role, "evaluate", self.scored(split, self.run.objective.measured_by), inputs)

    def read_before(self, role: str, trained: Stage, split: str) -> dict[str, Stage]:
        """What a trained model has to be told of a split: what its reference says, or the features that it reads."""
        if self.run.adapter.reads_features:
            model, seen = trained.params["model"], trained.inputs["features"]
            return {"features": self.features(role, model, split, seen.params["layer"], seen.inputs)}
        return self.reference(role, trained.params, trained.inputs, split)

    def scored(self, split: str, reading: str) -> dict[str, Any]:
        """Whose rows a model is asked about and which of its margins is heard; a reward model has only one."""
        asked = {"data": self.rows_of(split), "split": split}
        return asked | ({"reading": reading} if self.run.objective.student == "policy" else {})

    def generate(self, role: str) -> Stage:
        """What a policy writes after the first few prompts of the test split."""
        trained = self.stages[f"train/{role}"]
        how = {"prompts": self.run.settings.samples, "max_new_tokens": MAX_NEW_TOKENS, "seed": trained.params["seed"]}
        return self.add(role, "generate", {"data": self.rows_of("test"), "split": "test", **how}, {"model": trained})
