"""From a run to its graph of stages.

data ──► pairs (splits gt | w2s | test, disjoint by cluster)
             │ gt                     │ w2s                        │ test
[pretrain] ─► train(weak, gt) ──► label(weak, w2s) ──► train(student, weak labels) ──► evaluate ─┐
   └────────► train(strong, gt) = ceiling ──────────────────────────────────────────► evaluate ─┤
                    weak ───────────────────────────────────────────────────────────► evaluate ─┴► compare
"""

from __future__ import annotations

from typing import Any

from w2sd.config import RunConfig
from w2sd.errors import within
from w2sd.pipeline.stage import Stage, identity

Plan = dict[str, Stage]  # by name, each stage after its inputs; two names may share one stage


def plan(run: RunConfig) -> Plan:
    """The stages of `run`, named and in an order in which they can be run. Runs nothing, imports no torch."""
    identity(run.data)  # a file that is missing is named before anything that could be wrong with the models
    stages: Plan = {}
    settings = run.settings

    def pretrain(role: str, model: Any) -> dict[str, Stage]:
        """The pretrained model as an input, for models that are pretrained here and not loaded from elsewhere."""
        with within(role):
            text = model.text(run.data)
        if text is None:
            return {}
        stages[f"pretrain/{role}"] = Stage("pretrain", {"model": model, "text": text})
        return {"base": stages[f"pretrain/{role}"]}

    def train(role: str, model: Any, *, split: str, seed: int, conflict: Any = None, **inputs: Stage) -> Stage:
        params = {
            "data": run.data,
            "split": split,
            "model": model,
            "adapter": run.adapter,
            "objective": run.objective,
            "supervision": run.supervision if "labels" in inputs else None,  # None: the data's own labels
            "conflict": conflict,
            "fit": run.fit,
            "seed": seed,
        }
        stages[f"train/{role}"] = Stage("train", params, inputs)
        return stages[f"train/{role}"]

    def label(role: str, teacher: Stage, split: str) -> Stage:
        stages[f"label/{role}"] = Stage("label", {"data": run.data, "split": split}, {"model": teacher})
        return stages[f"label/{role}"]

    def evaluate(role: str, trained: Stage, **references: Stage) -> Stage:
        stages[f"evaluate/{role}"] = Stage(
            "evaluate", {"data": run.data, "split": "test"}, {"model": trained, **references}
        )
        return stages[f"evaluate/{role}"]

    weak_base = pretrain("weak", run.weak)
    strong_base = pretrain("strong", run.strong)

    weak = train("weak", run.weak, split="gt", seed=settings.teacher_seed, **weak_base)
    ceiling = train("ceiling", run.strong, split=settings.ceiling_split, seed=settings.teacher_seed, **strong_base)

    teacher_role, teacher = "weak", weak
    *between, last = run.chain.students(run.strong)
    for hop, model in enumerate(between, start=1):
        labels = label(teacher_role, teacher, "w2s")
        teacher_role = f"student_{hop}"
        teacher = train(
            teacher_role, model, split="w2s", seed=settings.seed, labels=labels, **pretrain(teacher_role, model)
        )
    labels = label(teacher_role, teacher, "w2s")
    student = train(
        "student", last, split="w2s", seed=settings.seed, conflict=run.conflict, labels=labels, **strong_base
    )

    weak_scores = evaluate("weak", weak)
    ceiling_scores = evaluate("ceiling", ceiling)
    student_scores = evaluate("student", student, weak=weak_scores, ceiling=ceiling_scores)

    roles = {"weak": weak_scores, "student": student_scores, "ceiling": ceiling_scores}
    stages["compare"] = Stage("compare", {"data": run.data}, roles)
    return stages
