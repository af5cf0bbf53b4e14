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
"""

from __future__ import annotations

from typing import Any

from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict
from w2sd.errors import choose
from w2sd.identity import canonical, digest, identity
from w2sd.pipeline.checks import check
from w2sd.pipeline.graph import STUDENT, TWIN, Compare, Graph
from w2sd.pipeline.stage import Stage
from w2sd.supervision.oracle import Gold

TRAINING = "training_"  # how roles begin that are about the pairs a student was trained on
SALIENCY = "saliency_"  # how roles begin that are about the features of the pairs a student was trained on
SAMPLES = "samples_"  # how roles begin that are about what a policy writes
SAMPLED = ("weak", "ceiling", "baseline", "student")
Plan = dict[str, Stage]  # by name, each stage after its inputs; two names may share one stage


def plan(run: RunConfig) -> Plan:
    """The stages of `run`, named and in an order in which they can be run. Runs nothing, imports no torch."""
    for kind in run.settings.force:
        choose("force", kind, (each.kind for each in Stage.__subclasses__()))
    check(run)
    return _Experiment(run).complete()


class _Experiment(Graph):
    """Who is trained in a run, and who is compared with whom."""

    def __init__(self, run: RunConfig) -> None:
        super().__init__(run)
        self.measured: dict[str, Stage] = {}  # what is compared, by role

    def complete(self) -> Plan:
        """All stages of the run."""
        run, settings = self.run, self.run.settings
        weak_base = self.begin("weak", run.weak, "weak", is_teacher=True)
        self.strong_base = self.begin("strong", run.strong, "strong")
        seed, split = settings.teacher_seed, settings.ceiling_split
        self.weak = self.train("weak", run.weak, split="gt", seed=seed, stream="weak", **weak_base)
        self.ceiling = self.train("ceiling", run.strong, split=split, seed=seed, stream="ceiling", **self.strong_base)
        self.measured |= {role: self.evaluate(role, self.stages[f"train/{role}"]) for role in ("weak", "ceiling")}
        if run.head is not None:
            self.measured["zero_shot"] = self.evaluate("zero_shot", self.zero_shot(run.strong, self.strong_base))
        if isinstance(run.conflict, NoConflict):
            self.examine("student", seed=settings.seed, conflict=run.conflict)
        else:
            self.oppose()
        if run.objective.student == "policy" and settings.samples:
            self.measured |= {f"{SAMPLES}{role}": self.generate(role) for role in SAMPLED if role in self.measured}
        self.measured |= self.saliency(self.stages["train/student"])
        self.stages["compare"] = Compare({"data": run.data}, self.measured)
        return self.stages

    def saliency(self, student: Stage) -> dict[str, Stage]:
        """A student's features and weak labels, where it has both: whether the task is plain in them costs no more."""
        features = student.inputs.get("probed", student.inputs.get("features"))
        if features is None or "labels" not in student.inputs:
            return {}
        return {f"{SALIENCY}features": features, f"{SALIENCY}labels": student.inputs["labels"]}

    def oppose(self) -> None:
        """A conflict, what it is compared with, and its controls."""
        run, settings = self.run, self.run.settings
        self.examine("baseline", seed=settings.seed, conflict=NoConflict())
        self.examine("student", seed=settings.seed, conflict=run.conflict, against="baseline")
        for n, seed in enumerate(settings.twin_seeds, start=1):
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
        on_the_way = supervision.first_stage or supervision  # only the last student has a first one before it
        teacher_role, teacher = "weak", self.weak
        hops = run.chain.hops(run.weak, run.strong) if supervision.needs_teacher else {}
        for hop, (name, model) in enumerate(hops.items(), start=1):
            base = self.begin(f"hop_{hop}", model, f"chain.between.{name}")
            inputs = {**base, "labels": self.label(teacher_role, teacher)}
            part = 0 if run.chain.reuse_prompts else hop
            here = conflict if run.chain.conflict_everywhere else NoConflict()
            teacher_role = f"{role}_hop_{hop}"
            how = {"seed": seed, "stream": _stream(role, here), "part": part, "conflict": here}
            how |= self.like(f"student_hop_{hop}", here)
            teacher = self.teach(teacher_role, model, on_the_way, inputs, **how)
        inputs = dict(self.strong_base)
        if supervision.needs_teacher:
            inputs["labels"] = self.refine(role, self.label(teacher_role, teacher), self.strong_base)
        if first := supervision.first_stage:
            none = NoConflict()
            how = {"seed": seed, "stream": _stream(role, none), "conflict": none}
            student = self.teach(f"{role}_first", run.strong, first, inputs, **how)
            inputs["second_labels"] = self.label(f"{role}_first", student)
        how = {"seed": seed, "stream": _stream(role, conflict), "conflict": conflict, "hint": conflict.hint or run.hint}
        return self.teach(role, run.strong, supervision, inputs, **how, **self.like("student", conflict))

    def like(self, student: str, placebo: Any) -> dict[str, Stage]:
        """The student beside which a placebo stands that pulls as often as that one was pulled at."""
        return {"like": self.stages[f"train/{student}"]} if placebo.needs_rate else {}

    def teach(self, role: str, model: Any, supervision: Any, inputs: dict[str, Any], **how: Any) -> Stage:
        """A student, with what else its supervision reads beside the labels."""
        if supervision.needs_ceiling:
            inputs = inputs | {"ceiling_labels": self.label("ceiling", self.ceiling)}
        if supervision.needs_features:
            inputs = inputs | {"probed": self.features(role, model, "w2s", supervision.layer, inputs)}
        return self.train(role, model, split="w2s", supervision=supervision, **how, **inputs)


def _stream(role: str, conflict: Any) -> str:
    """The stream of random numbers of an arm: arms that are compared draw different ones under one seed.

    Every conflict has one, in every dose. So have the twins, against which all others are measured, from their first
    stage on.
    """
    if role.startswith("twin_"):
        return TWIN
    if isinstance(conflict, NoConflict):
        return "gold_baseline" if role == "gold_baseline" else STUDENT
    return f"{'gold_' if role.startswith('gold_') else ''}{digest(canonical(identity(conflict)))}"
