"""The graph of a run that trains policies: where they begin, what arms share, which knob renames which stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import refused
from tests.pipeline.graphs import keys, renamed, roles
from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict, adds_rows
from w2sd.data.sources import Files
from w2sd.models.hub import Hub
from w2sd.objectives.preference import DPO, READ_BY, SimPO
from w2sd.parts.fit import Fit, Sft
from w2sd.pipeline.graph import Compare
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.stage import Stage
from w2sd.supervision.teacher import Hard

SIMPO = ["objective=simpo", "supervision=hard"]
DPO_RUN = ["objective=dpo", "supervision=hard"]
CONTROLLED = ["conflict=implicit", "controls=true"]


def distinct(stages: Plan) -> dict[str, int]:
    """How many different stages there are of each kind."""
    return Counter(kind for kind, _ in {(stage.kind, stage.key) for stage in stages.values()})


# --- reward models ----------------------------------------------------------------------------------------------------

# Found before there were policies. A key changes with the version of a part or stage, which the changelog tells.
KEYS: dict[tuple[str, ...], dict[str, str]] = {
    (): {
        "pretrain/strong": "46f9dcd722ec",
        "pretrain/weak": "206e49d380f0",
        "train/weak": "0a53c5e73cc6",
        "train/ceiling": "436a83900dab",
        "train/student": "ed385ecf688f",
        "label/weak": "6ec8f8dab8b1",
        "evaluate/weak": "66cd606de597",
        "evaluate/ceiling": "319fa57f7b11",
        "evaluate/student": "6ff7a9429942",
        "compare": "4f9da686cfaf",
    },
    ("conflict=implicit", "controls=true"): {
        "train/student": "5ed0e0a30dcf",
        "train/gold_conflict": "efd62606dcd3",
        "compare": "9ba4e8a8fd7f",  # in which all of them are
    },
    ("conflict=explicit", "controls=true", "training_pairs=true"): {
        "train/student": "e7024eb828a5",
        "train/gold_conflict": "be7c9545e3c9",
        "compare": "806c608c79fe",
    },
    ("conflict=explicit_random_mask",): {"compare": "0e5bb29fbbad"},
    ("chain=bootstrap", "conflict=implicit", "supervision=synthetic", "controls=true"): {"compare": "d39ef59b2733"},
}


@pytest.mark.parametrize("overrides", KEYS, ids=" ".join)
def test_reward_models_keep_their_keys(
    asked: Callable[..., RunConfig], overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compare, "version", 2)  # as then: the key of a comparison holds those of all its inputs
    found = keys(asked(*overrides))
    assert {name: found[name] for name in KEYS[overrides]} == KEYS[overrides]
    assert not [name for name in found if name.startswith(("sft/", "reference/", "generate/"))]


def test_what_is_about_policies_is_nothing_to_a_reward_model(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    data = Files(path=str(tmp_path / "pairs.jsonl"))
    run = asked()._replace(data=data, weak=Hub(id="gpt2"), strong=Hub(id="gpt2"))
    assert not renamed(run, run._replace(data=replace(data, append_eos="never")))
    for sft in (None, Sft(on_conflict=True)):
        assert not renamed(run, run._replace(sft=sft))


# --- the graph --------------------------------------------------------------------------------------------------------

OF_SIMPO = {
    "pretrain/weak": {},
    "pretrain/strong": {},
    "sft/weak": {"base": "pretrain/weak"},
    "train/weak": {"base": "sft/weak"},
    "sft/ceiling": {"base": "pretrain/strong"},
    "train/ceiling": {"base": "sft/ceiling"},
    "evaluate/weak": {"model": "train/weak"},
    "evaluate/ceiling": {"model": "train/ceiling"},
    "label/weak": {"model": "train/weak"},
    "sft/student": {"base": "pretrain/strong", "labels": "label/weak"},
    "train/student": {"base": "sft/student", "labels": "label/weak"},
    "evaluate/student": {"model": "train/student", "weak": "evaluate/weak", "ceiling": "evaluate/ceiling"},
    "generate/weak": {"model": "train/weak"},
    "generate/ceiling": {"model": "train/ceiling"},
    "generate/student": {"model": "train/student"},
    "compare": {"weak": "evaluate/weak", "ceiling": "evaluate/ceiling", "student": "evaluate/student"}
    | {f"samples_{role}": f"generate/{role}" for role in ("weak", "ceiling", "student")},
}
REFERENCES = {  # which stages a policy's reference is asked for, and on which split
    "train/weak": "reference/weak_gt",
    "train/ceiling": "reference/ceiling_gt",
    "evaluate/weak": "reference/weak_test",
    "evaluate/ceiling": "reference/ceiling_test",
    "label/weak": "reference/weak_w2s",
    "train/student": "reference/student_w2s",
    "evaluate/student": "reference/student_test",
}
OF_DPO = {
    name: inputs | ({"reference": REFERENCES[name]} if name in REFERENCES else {}) for name, inputs in OF_SIMPO.items()
} | {name: {"base": f"sft/{name.split('/')[1].rpartition('_')[0]}"} for name in REFERENCES.values()}


@pytest.mark.parametrize(("overrides", "graph"), [(SIMPO, OF_SIMPO), (DPO_RUN, OF_DPO)], ids=["simpo", "dpo"])
def test_the_graph_of_a_run(asked: Callable[..., RunConfig], overrides: list[str], graph: dict[str, Any]) -> None:
    stages = plan(asked(*overrides))
    assert roles(stages) == graph
    for name, stage in stages.items():
        if stage.kind in ("sft", "reference", "train"):
            assert stage.params["append_eos"] == "never"  # as the world says
        if stage.kind == "reference":
            assert stage.params["split"] == name.rpartition("_")[2]


@pytest.mark.parametrize("objective", ["simpo", "dpo", "ipo", "dpo_length_normalised", "sft"])
def test_every_stage_comes_after_its_inputs(asked: Callable[..., RunConfig], objective: str) -> None:
    seen: set[str] = set()
    for stage in plan(asked(f"objective={objective}", "chain=bootstrap", *CONTROLLED, "training_pairs=true")).values():
        assert {made.key for made in stage.inputs.values()} <= seen
        seen.add(stage.key)


def test_without_a_fine_tuning_policies_begin_as_they_were_pretrained(asked: Callable[..., RunConfig]) -> None:
    graph = roles(plan(asked(*DPO_RUN, "sft=none")))
    assert not [name for name in graph if name.startswith("sft/")]
    assert graph["train/student"] | graph["reference/student_test"] == {
        "base": "pretrain/strong",
        "labels": "label/weak",
        "reference": "reference/student_w2s",
    }
    bare = plan(asked(*DPO_RUN, "sft=none", "model@weak=gpt2", "model@strong=gpt2"))
    assert bare["reference/student_test"].inputs == {}
    assert bare["reference/student_test"].key == bare["reference/weak_test"].key  # one and the same model
    assert "base" not in bare["train/student"].inputs


def test_models_of_the_hub_are_fine_tuned_from_where_they_are(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*SIMPO, "model@weak=gpt2", "model@strong=gpt2_medium"))
    assert stages["sft/weak"].inputs == {}
    assert stages["train/weak"].inputs == {"base": stages["sft/weak"]}
    assert stages["sft/weak"].params["model"] == stages["train/weak"].params["model"]
    assert stages["sft/weak"].params["model"].id == "gpt2"


def test_what_a_fine_tuning_learns_from_is_what_its_training_learns_from(asked: Callable[..., RunConfig]) -> None:
    run = asked(*SIMPO, "seed=7", "teacher_seed=3", "adapter=head_only")
    stages = plan(run)
    for role in ("weak", "ceiling", "student"):
        sft, train = stages[f"sft/{role}"].params, stages[f"train/{role}"].params
        shared = ("data", "split", "part", "model", "adapter", "supervision", "stream", "seed", "append_eos")
        assert all(sft[name] == train[name] for name in shared)
        assert (sft["fit"], train["fit"]) == (run.sft.fit, run.fit)
        assert sft["conflict"] is None
        assert sft.keys() == {*shared, "fit", "conflict"}


def test_each_student_of_a_chain_is_fine_tuned(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*DPO_RUN, "chain=bootstrap"))
    graph = roles(stages)
    assert graph["sft/student_hop_1"] == {"base": "pretrain/hop_1", "labels": "label/weak"}
    assert graph["train/student_hop_1"] == {
        "base": "sft/student_hop_1",
        "labels": "label/weak",
        "reference": "reference/student_hop_1_w2s",
    }
    assert graph["label/student_hop_1"] == {"model": "train/student_hop_1", "reference": "reference/student_hop_1_w2s"}
    assert graph["sft/student"] == {"base": "pretrain/strong", "labels": "label/student_hop_1"}
    assert stages["sft/student_hop_1"].params["part"] == stages["train/student_hop_1"].params["part"] == 1


def test_training_pairs_are_looked_at_with_the_reference_that_trained_on_them(asked: Callable[..., RunConfig]) -> None:
    graph = roles(plan(asked(*DPO_RUN, "conflict=explicit", "training_pairs=true")))
    assert graph["evaluate/training_student"] == {"model": "train/student", "reference": "reference/baseline_w2s"}
    assert graph["compare"]["training_weak"] == "label/weak"


# --- what they write --------------------------------------------------------------------------------------------------


def test_what_the_models_of_a_conflict_write_is_compared(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*SIMPO, *CONTROLLED, "samples=3", "seed=5", "teacher_seed=2"))
    written = {name: stage for name, stage in stages.items() if stage.kind == "generate"}
    assert list(written) == [f"generate/{role}" for role in ("weak", "ceiling", "baseline", "student")]
    for name, stage in written.items():
        role = name.removeprefix("generate/")
        assert stage.inputs == {"model": stages[f"train/{role}"]}
        assert stages["compare"].inputs[f"samples_{role}"] is stage
        seed = 2 if role in ("weak", "ceiling") else 5
        data = stages["evaluate/weak"].params["data"]
        assert stage.params == {"data": data, "split": "test", "prompts": 3, "max_new_tokens": 64, "seed": seed}


def test_the_number_of_samples_renames_nothing_else(asked: Callable[..., RunConfig]) -> None:
    run = asked(*DPO_RUN)
    one, none = (plan(run._replace(settings=replace(run.settings, samples=n))) for n in (1, 0))
    differ = {name for name, stage in plan(run).items() if one[name].key != stage.key}
    assert differ == {"generate/weak", "generate/ceiling", "generate/student", "compare"}
    assert set(none) == {name for name in OF_DPO if not name.startswith("generate/")}
    assert none["compare"].inputs.keys() == {"weak", "ceiling", "student"}
    with refused("samples", -1):
        replace(run.settings, samples=-1)
    assert keys(asked()) == keys(asked("samples=9"))  # a reward model has nothing to say


# --- what arms share --------------------------------------------------------------------------------------------------


def test_arms_of_a_seed_share_fine_tuning_and_reference(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*DPO_RUN, *CONTROLLED))
    conflicted = ("baseline", "student", "placebo_more_data", "placebo_random_helpful")
    for kind, end in (("sft", ""), ("reference", "_w2s"), ("reference", "_test")):
        assert len({stages[f"{kind}/{role}{end}"].key for role in conflicted}) == 1
        gold = {stages[f"{kind}/{role}{end}"].key for role in ("gold_baseline", "gold_conflict")}
        assert len(gold) == 1
        twins = {stages[f"{kind}/twin_{n}{end}"].key for n in (1, 2, 3, 4)}
        assert len(gold | twins | {stages[f"{kind}/student{end}"].key}) == 6
    sfts = 2 + 1 + 4 + 1  # weak and ceiling, the arms of the seed, its twins, gold
    counts = distinct(stages)
    assert (counts["sft"], counts["reference"], counts["train"]) == (sfts, 3 + 2 + 2 * 6, 2 + 4 + 4 + 2)


def test_a_fine_tuning_that_sees_conflicts_is_each_arm_s_own(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*DPO_RUN, *CONTROLLED, "sft.on_conflict=true"))
    arms = [name.removeprefix("train/") for name in stages if name.startswith("train/")]
    assert len({stages[f"sft/{arm}"].key for arm in arms}) == len(arms)
    for arm in arms:
        conflict = stages[f"train/{arm}"].params["conflict"]
        assert stages[f"sft/{arm}"].params["conflict"] == (conflict if adds_rows(conflict) else None)
        assert stages[f"evaluate/{arm}"].inputs["reference"].inputs["base"] is stages[f"train/{arm}"].inputs["base"]


def test_a_conflict_without_rows_has_nothing_to_fine_tune_on(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*DPO_RUN, "conflict=explicit", "sft.on_conflict=true"))
    assert stages["sft/student"].key == stages["sft/baseline"].key
    assert stages["train/student"].inputs["reference"] is not None


def test_objectives_share_the_fine_tuning_of_what_the_truth_taught(asked: Callable[..., RunConfig]) -> None:
    one, other = plan(asked(*SIMPO)), plan(asked(*DPO_RUN))
    for role in ("weak", "ceiling"):
        assert one[f"sft/{role}"].key == other[f"sft/{role}"].key
    assert one["sft/student"].key != other["sft/student"].key  # their teachers are not the same


def test_a_policy_and_a_reward_model_share_what_was_pretrained_and_nothing_else(
    asked: Callable[..., RunConfig],
) -> None:
    one, other = keys(asked()), keys(asked(*SIMPO))
    assert {name for name in one if one[name] == other[name]} == {"pretrain/weak", "pretrain/strong"}


# --- knobs ------------------------------------------------------------------------------------------------------------

STUDENT = {"train/student", "evaluate/student", "generate/student", "compare"}
BELOW_WEAK = {"label/weak", "sft/student", "reference/student_w2s", "reference/student_test"} | STUDENT
OF_STUDENT = {"sft/student", "reference/student_w2s", "reference/student_test"} | STUDENT
PRETRAINED = {"pretrain/weak", "pretrain/strong"}
EARLY = PRETRAINED | {"sft/weak", "sft/ceiling"}
ASKED = {name for name in REFERENCES.values() if "student" not in name}


def test_the_seed_renames_the_student_and_its_fine_tuning(asked: Callable[..., RunConfig]) -> None:
    run = asked(*DPO_RUN)
    assert renamed(run, run._replace(settings=replace(run.settings, seed=1))) == OF_STUDENT
    assert renamed(run, run._replace(supervision=asked().supervision)) == OF_STUDENT
    assert run.supervision == Hard()


def of_training(cls: type) -> list[str]:
    """The knobs of an objective that are not about how what it trained is read."""
    return [knob.name for knob in fields(cls) if knob.name not in READ_BY]


@pytest.mark.parametrize("knob", of_training(DPO))
def test_a_knob_of_the_objective_renames_no_fine_tuning_of_the_truth(
    asked: Callable[..., RunConfig], knob: str
) -> None:
    run = asked(*DPO_RUN)
    changed = run._replace(objective=replace(run.objective, **{knob: 0.25}))
    assert renamed(run, changed) == set(OF_DPO) - EARLY - ASKED


@pytest.mark.parametrize("knob", of_training(SimPO))
def test_every_knob_of_simpo_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked(*SIMPO)
    assert renamed(run, run._replace(objective=replace(run.objective, **{knob: 0.25}))) == set(OF_SIMPO) - EARLY


@pytest.mark.parametrize("overrides", [SIMPO, DPO_RUN], ids=["simpo", "dpo"])
def test_another_reading_renames_what_is_read_and_trains_nothing_again(
    asked: Callable[..., RunConfig], overrides: list[str]
) -> None:
    """But for students, whose labels are other ones when it is the labels that are read in another way."""
    run = asked(*overrides)
    measured, labelled = (
        run._replace(objective=replace(run.objective, **{knob: "legacy"})) for knob in ("measured_by", "labelled_by")
    )
    assert renamed(run, measured) == {"evaluate/weak", "evaluate/ceiling", "evaluate/student", "compare"}
    assert renamed(run, labelled) == BELOW_WEAK & keys(run).keys()


def test_both_readings_are_those_of_training_pairs_too(asked: Callable[..., RunConfig]) -> None:
    knobs = ("objective.labelled_by=legacy", "objective.measured_by=reference_free", "training_pairs=true")
    stages = plan(asked(*DPO_RUN, *knobs, "conflict=explicit", "chain=bootstrap"))
    readings = {(stage.kind, stage.params.get("reading")) for stage in stages.values()}
    assert readings == {("label", "legacy"), ("evaluate", "reference_free")} | {
        (kind, None) for kind in ("pretrain", "sft", "reference", "train", "generate", "compare")
    }


def test_the_optimisation_renames_trainings_and_that_of_the_fine_tuning_everything(
    asked: Callable[..., RunConfig],
) -> None:
    run = asked(*DPO_RUN)
    assert renamed(run, run._replace(fit=replace(run.fit, lr=1e-5))) == set(OF_DPO) - EARLY - ASKED
    sft = replace(run.sft, fit=replace(run.sft.fit, lr=1e-5))
    assert renamed(run, run._replace(sft=sft)) == set(OF_DPO) - PRETRAINED
    half = replace(run.fit, precision="bf16-mixed")  # in which a reference is asked as well
    assert renamed(run, run._replace(fit=half)) == set(OF_DPO) - EARLY


def test_the_end_token_renames_every_policy(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    data = Files(path=str(tmp_path / "pairs.jsonl"))
    run = asked(*DPO_RUN, "model@weak=gpt2", "model@strong=gpt2_medium")._replace(data=data)
    assert renamed(run, run._replace(data=replace(data, append_eos="never"))) == set(OF_DPO) - PRETRAINED


def test_where_an_sft_does_not_see_the_conflict_it_does_not_depend_on_it(asked: Callable[..., RunConfig]) -> None:
    one, other = (plan(asked(*DPO_RUN, f"conflict={name}")) for name in ("implicit", "explicit"))
    differ = {name for name in one if one[name].key != other[name].key}
    assert differ == STUDENT
    assert isinstance(one["train/baseline"].params["conflict"], NoConflict)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_fine_tuning_has_an_optimisation(asked: Callable[..., RunConfig]) -> None:
    assert asked().sft.fit == Fit(**{knob.name: getattr(asked().sft.fit, knob.name) for knob in fields(Fit)})
    with refused("sft.fit.lr", -1.0):
        asked("sft.fit.lr=-1")
    with refused("fit"):
        Sft(fit=Hard())  # type: ignore[arg-type]


def upstream(stage: Stage) -> set[str]:
    """The kinds of a stage and of all that it is made from."""
    return {stage.kind}.union(*map(upstream, stage.inputs.values()))


def test_gold_policies_depend_on_no_labels(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked(*DPO_RUN, *CONTROLLED))
    for name in ("train/gold_baseline", "train/gold_conflict"):
        assert upstream(stages[name]) == {"pretrain", "sft", "reference", "train"}
