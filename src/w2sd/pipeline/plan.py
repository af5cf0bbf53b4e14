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
from w2sd.conflicts.none import NoConflict
from w2sd.errors import within
from w2sd.pipeline.stage import Stage, identity
from w2sd.supervision import Gold

TRAINING = "training_"  # how roles begin that are about the pairs a student was trained on
Plan = dict[str, Stage]  # by name, each stage after its inputs; two names may share one stage


def plan(run: RunConfig) -> Plan:
    """The stages of `run`, named and in an order in which they can be run. Runs nothing, imports no torch."""
    identity(run.data)  # a file that is missing is named before anything that could be wrong with the models
    stages: Plan = {}
    settings = run.settings

    def rows_of(split: str) -> Any:
        """The data as a stage sees them that reads one split. Rows of a file depend on all files, through leaks."""
        return run.data.focus(split) if hasattr(run.data, "focus") else run.data

    def pretrain(role: str, model: Any, knob: str) -> dict[str, Stage]:
        """The pretrained model as an input, for models that are pretrained here and not loaded from elsewhere."""
        with within(knob):
            text = model.text(run.data)
        if text is None:
            return {}
        stages[f"pretrain/{role}"] = Stage("pretrain", {"model": model, "text": text})
        return {"base": stages[f"pretrain/{role}"]}

    def train(
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
        params = {
            "data": rows_of(split),
            "split": split,
            "part": part,
            "model": model,
            "adapter": run.adapter,
            "objective": run.objective,
            "supervision": supervision,
            "conflict": conflict,
            "fit": run.fit,
            "seed": seed,
        }
        stages[f"train/{role}"] = Stage("train", params, inputs)
        return stages[f"train/{role}"]

    def label(role: str, teacher: Stage) -> Stage:
        """What a model thinks of every w2s row, of whatever facet and part: all arms then share one artifact."""
        stages[f"label/{role}"] = Stage("label", {"data": rows_of("w2s"), "split": "w2s"}, {"model": teacher})
        return stages[f"label/{role}"]

    def evaluate(role: str, trained: Stage, split: str = "test", references: Plan | None = None) -> Stage:
        inputs = {"model": trained, **(references or {})}
        stages[f"evaluate/{role}"] = Stage("evaluate", {"data": rows_of(split), "split": split}, inputs)
        return stages[f"evaluate/{role}"]

    def arm(role: str, *, seed: int, conflict: Any, supervision: Any = run.supervision) -> Stage:
        """The last student of the chain: a fold over the models between weak and strong."""
        teacher_role, teacher = "weak", weak
        hops = run.chain.between if supervision.needs_teacher else {}
        for hop, (name, model) in enumerate(hops.items(), start=1):
            taught_by, teacher_role = teacher_role, f"{role}_hop_{hop}"
            base: dict[str, Any] = pretrain(f"hop_{hop}", model, f"chain.between.{name}")
            if supervision.needs_ceiling:
                base["ceiling_labels"] = label("ceiling", ceiling)
            teacher = train(
                teacher_role,
                model,
                split="w2s",
                part=0 if run.chain.reuse_prompts else hop,
                seed=seed,
                supervision=supervision,
                conflict=conflict if run.chain.conflict_everywhere else NoConflict(),
                labels=label(taught_by, teacher),
                **base,
            )
        inputs: dict[str, Any] = dict(strong_base)
        if supervision.needs_teacher:
            inputs["labels"] = label(teacher_role, teacher)
        if supervision.needs_ceiling:
            inputs["ceiling_labels"] = label("ceiling", ceiling)
        return train(role, run.strong, split="w2s", seed=seed, supervision=supervision, conflict=conflict, **inputs)

    weak_base: dict[str, Any] = pretrain("weak", run.weak, "weak")
    strong_base: dict[str, Any] = pretrain("strong", run.strong, "strong")
    weak = train("weak", run.weak, split="gt", seed=settings.teacher_seed, **weak_base)
    ceiling = train("ceiling", run.strong, split=settings.ceiling_split, seed=settings.teacher_seed, **strong_base)
    measured = {"weak": evaluate("weak", weak), "ceiling": evaluate("ceiling", ceiling)}

    def examined(role: str, *, against: str | None = None, **how: Any) -> None:
        """Train an arm and score it on the test split, beside weak model, ceiling and the arm that it departs from."""
        references = {"weak": measured["weak"], "ceiling": measured["ceiling"]}
        if against is not None:
            references["baseline"] = measured[against]
        measured[role] = evaluate(role, arm(role, **how), references=references)

    if isinstance(run.conflict, NoConflict):
        examined("student", seed=settings.seed, conflict=run.conflict)
    else:
        examined("baseline", seed=settings.seed, conflict=NoConflict())
        examined("student", seed=settings.seed, conflict=run.conflict, against="baseline")
        twins = settings.twin_seeds or [seed for seed in range(4) if seed != settings.seed][:3]
        for n, seed in enumerate(twins, start=1):
            examined(f"twin_{n}", seed=seed, conflict=NoConflict())
        if settings.controls and not run.conflict.is_placebo:
            for name, placebo in run.conflict.placebos().items():
                examined(f"placebo_{name}", seed=settings.seed, conflict=placebo, against="baseline")
            examined("gold_baseline", seed=settings.seed, conflict=NoConflict(), supervision=Gold())
            examined(
                "gold_conflict", seed=settings.seed, conflict=run.conflict, supervision=Gold(), against="gold_baseline"
            )

    if settings.training_pairs and "baseline" in measured:
        measured[f"{TRAINING}weak"] = label("weak", weak)
        for role in ("baseline", "student"):
            named = f"{TRAINING}{role}"
            measured[named] = evaluate(named, stages[f"train/{role}"], split="w2s")

    stages["compare"] = Stage("compare", {"data": run.data}, measured)
    return stages
