"""The graph of a run: what is in it, what its sweeps share, and which knob renames which stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import refused
from tests.pipeline.graphs import keys, renamed, roles
from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict
from w2sd.conflicts.explicit import Explicit
from w2sd.conflicts.implicit import Implicit
from w2sd.conflicts.placebo import Agreeing, MoreData, RandomHelpful, RandomMask, Unrelated
from w2sd.data.formats import Dialogue
from w2sd.data.sources import Files
from w2sd.data.sources import Hub as HubData
from w2sd.logger import Csv, Wandb
from w2sd.models.hub import Hub
from w2sd.models.scratch import Scratch
from w2sd.parts.adapter import HeadOnly
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.launch import survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.progress import show_plan
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.supervision.oracle import Gold
from w2sd.supervision.teacher import Hard, Soft
from w2sd.world.ladder import Rung
from w2sd.world.world import World

GRAPH = {
    "pretrain/weak": {},
    "pretrain/strong": {},
    "train/weak": {"base": "pretrain/weak"},
    "train/ceiling": {"base": "pretrain/strong"},
    "evaluate/weak": {"model": "train/weak"},
    "evaluate/ceiling": {"model": "train/ceiling"},
    "label/weak": {"model": "train/weak"},
    "train/student": {"base": "pretrain/strong", "labels": "label/weak"},
    "evaluate/student": {"model": "train/student", "weak": "evaluate/weak", "ceiling": "evaluate/ceiling"},
    "compare": {"weak": "evaluate/weak", "ceiling": "evaluate/ceiling", "student": "evaluate/student"},
}
EVERYTHING = set(GRAPH)
PRETRAINED = {"pretrain/weak", "pretrain/strong"}
STUDENT = {"train/student", "evaluate/student", "compare"}
TAUGHT = {"label/weak", *STUDENT}  # what weak labels decide


def settings(run: RunConfig, **changes: Any) -> RunConfig:
    return run._replace(settings=replace(run.settings, **changes))


# --- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_of_the_default_run(asked: Callable[..., RunConfig]) -> None:
    assert roles(plan(asked())) == GRAPH


def test_what_each_training_learns_from(asked: Callable[..., RunConfig]) -> None:
    run = asked("seed=7", "teacher_seed=3", "ceiling_split=w2s")
    stages = plan(run)
    told = {
        name: [
            stages[f"train/{name}"].params[knob]
            for knob in ("model", "split", "stream", "seed", "supervision", "conflict")
        ]
        for name in ("weak", "ceiling", "student")
    }
    assert told == {
        "weak": [run.weak, "gt", "weak", 3, None, None],
        "ceiling": [run.strong, "w2s", "ceiling", 3, None, None],
        "student": [run.strong, "w2s", "student", 7, run.supervision, NoConflict()],
    }
    assert stages["label/weak"].params["split"] == "w2s"
    assert {stages[f"evaluate/{name}"].params["split"] for name in told} == {"test"}


CONTROLLED = ["conflict=implicit", "controls=true"]
BOOTSTRAP = ["chain=bootstrap", "+model@chain.between.two=world_s"]  # hops on rung 2 and on rung 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model@weak=gpt2", "model@strong=gpt2_medium"],
        ["model@weak=world_l"],
        CONTROLLED,
        ["supervision=synthetic"],
        [*BOOTSTRAP, *CONTROLLED, "supervision=synthetic", "chain.conflict_everywhere=true"],
    ],
)
def test_every_stage_comes_after_its_inputs(asked: Callable[..., RunConfig], overrides: list[str]) -> None:
    seen: set[str] = set()
    for stage in plan(asked(*overrides)).values():
        assert {made.key for made in stage.inputs.values()} <= seen
        seen.add(stage.key)


def test_models_that_exist_are_not_pretrained(asked: Callable[..., RunConfig]) -> None:
    expected = {name: dict(inputs) for name, inputs in GRAPH.items() if name not in PRETRAINED}
    for inputs in expected.values():
        inputs.pop("base", None)
    assert roles(plan(asked("model@weak=gpt2", "model@strong=gpt2_medium"))) == expected


def test_a_model_that_teaches_itself_shares_what_is_the_same(asked: Callable[..., RunConfig]) -> None:
    found = keys(asked("model@weak=world_l"))
    assert found["pretrain/weak"] == found["pretrain/strong"]
    assert len(set(found.values())) == len(GRAPH) - 1  # weak model and ceiling draw other numbers


def test_rungs_of_the_world_read_the_world_alone(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with refused("weak", "world rung 1", "data=world"):
        plan(asked()._replace(data=Files(path=str(tmp_path / "pairs.jsonl"))))


# --- a conflict and its controls --------------------------------------------------------------------------------------

TAUGHT_BY_WEAK = {"labels": "label/weak", "base": "pretrain/strong"}
TAUGHT_BY_TRUTH = {"base": "pretrain/strong"}
ARMS: dict[str, tuple[dict[str, str], str | None, int, Any, Any]] = {
    # inputs of the training, the arm it is compared with, seed, supervision, conflict
    "baseline": (TAUGHT_BY_WEAK, None, 0, Soft(), NoConflict()),
    "student": (TAUGHT_BY_WEAK, "baseline", 0, Soft(), Implicit()),
    **{f"twin_{n}": (TAUGHT_BY_WEAK, None, n - 1, Soft(), NoConflict()) for n in (1, 2, 3, 4)},
    "placebo_more_data": (TAUGHT_BY_WEAK, "baseline", 0, Soft(), MoreData()),
    "placebo_random_helpful": (TAUGHT_BY_WEAK, "baseline", 0, Soft(), RandomHelpful()),
    "gold_baseline": (TAUGHT_BY_TRUTH, None, 0, Gold(), NoConflict()),
    "gold_conflict": (TAUGHT_BY_TRUTH, "gold_baseline", 0, Gold(), Implicit()),
}
CONTROLS = {name for name in ARMS if name.startswith(("placebo", "gold"))}


def test_a_conflict_can_be_looked_for_on_training_pairs(asked: Callable[..., RunConfig]) -> None:
    run = asked("conflict=explicit")
    stages = plan(settings(run, training_pairs=True))
    added = {name: stages[name] for name in stages if name not in plan(run)}
    assert set(added) == {f"evaluate/training_{role}" for role in ("baseline", "student")}
    assert stages["compare"].inputs["training_weak"] is stages["label/weak"]
    for name, stage in added.items():
        assert stage.inputs == {"model": stages[f"train/{name.removeprefix('evaluate/training_')}"]}
        assert stage.params["split"] == "w2s"
        assert stages["compare"].inputs[name.removeprefix("evaluate/")] is stage
    assert set(plan(settings(asked(), training_pairs=True))) == EVERYTHING


@pytest.mark.parametrize("name", ["placebo_agreeing", "placebo_more_data", "explicit_random_mask"])
def test_a_placebo_has_no_controls_of_its_own(asked: Callable[..., RunConfig], name: str) -> None:
    run = asked(f"conflict={name}")
    assert set(plan(settings(run, controls=True))) == set(plan(run))


@pytest.mark.parametrize("controls", [False, True])
def test_the_arms_of_a_conflict(asked: Callable[..., RunConfig], controls: bool) -> None:
    stages = plan(settings(asked("conflict=implicit"), controls=controls))
    arms = {name: told for name, told in ARMS.items() if controls or name not in CONTROLS}
    shared = {name: inputs for name, inputs in GRAPH.items() if "student" not in name and name != "compare"}
    expected = dict(shared)
    for name, (inputs, against, *_) in arms.items():
        references = {"weak": "evaluate/weak", "ceiling": "evaluate/ceiling"}
        references |= {"baseline": f"evaluate/{against}"} if against else {}
        expected |= {f"train/{name}": inputs, f"evaluate/{name}": {"model": f"train/{name}", **references}}
    expected["compare"] = {name: f"evaluate/{name}" for name in ("weak", "ceiling", *arms)}
    assert roles(stages) == expected
    for name, (_, _, *told) in arms.items():
        params = stages[f"train/{name}"].params
        assert [params[knob] for knob in ("seed", "supervision", "conflict")] == told
        assert (params["split"], params["part"], params["model"]) == ("w2s", 0, asked().strong)
        assert stages[f"evaluate/{name}"].params["split"] == "test"


def test_without_a_conflict_there_is_nothing_to_control(asked: Callable[..., RunConfig]) -> None:
    run = asked()
    assert not renamed(run, settings(run, controls=True, twin_seeds=[5, 6]))


@pytest.mark.parametrize(
    ("seed", "given", "twins"),
    [
        (0, None, [0, 1, 2, 3]),
        (7, None, [0, 1, 2, 3]),
        (0, [9], [9]),
        (1, [], []),
        (1, [8, 1, 4, 5, 0], [8, 1, 4, 5, 0]),
    ],
)
def test_the_seeds_of_the_twins(
    asked: Callable[..., RunConfig], seed: int, given: list[int] | None, twins: list[int]
) -> None:
    knobs = {} if given is None else {"twin_seeds": given}
    stages = plan(settings(asked("conflict=explicit"), seed=seed, **knobs))
    found = {name: stage.params["seed"] for name, stage in stages.items() if name.startswith("train/twin")}
    assert found == {f"train/twin_{n}": twin for n, twin in enumerate(twins, start=1)}
    assert stages["train/baseline"].params["seed"] == stages["train/student"].params["seed"] == seed


def placebos(run: RunConfig) -> dict[str, Any]:
    stages = plan(settings(run, controls=True))
    return {
        name.removeprefix("train/placebo_"): stage.params["conflict"]
        for name, stage in stages.items()
        if name.startswith("train/placebo_")
    }


@pytest.mark.parametrize(
    ("overrides", "dose"),
    [
        (["conflict=implicit"], (1.0, False)),
        (["conflict=implicit", "conflict.ratio=0.125"], (0.125, False)),
        (["conflict=implicit", "conflict.ratio=0.5", "conflict.match_steps=true"], (0.5, True)),
    ],
)
def test_placebos_come_in_the_dose_of_their_conflict(
    asked: Callable[..., RunConfig], overrides: list[str], dose: tuple[float, bool]
) -> None:
    assert placebos(asked(*overrides)) == {"more_data": MoreData(*dose), "random_helpful": RandomHelpful(*dose)}


@pytest.mark.parametrize("objective", ["reward_bce", "dpo"])
def test_the_placebo_of_an_explicit_conflict_pulls_as_often_as_its_student_was_pulled_at(
    asked: Callable[..., RunConfig], objective: str
) -> None:
    """It differs from its baseline in that alone: a policy is fine-tuned as its baseline is."""
    run = asked("conflict=explicit", "conflict.alpha=3", "controls=true", f"objective={objective}")
    stages = plan(run)
    assert placebos(run) == {"random_mask": RandomMask(3.0, None)}
    told = {name: stage.inputs["like"] for name, stage in stages.items() if "like" in stage.inputs}
    assert told == {"train/placebo_random_mask": stages["train/student"]}
    inputs = {role: at.key for role, at in stages["train/placebo_random_mask"].inputs.items() if role != "like"}
    assert inputs == {role: at.key for role, at in stages["train/baseline"].inputs.items()}
    assert not any("like" in stage.inputs for stage in plan(run._replace(conflict=RandomMask(rate=0.2))).values())


@pytest.mark.parametrize("everywhere", [False, True])
def test_in_a_chain_each_placebo_pulls_as_the_student_of_its_hop_was_pulled_at(
    asked: Callable[..., RunConfig], everywhere: bool
) -> None:
    stages = plan(
        asked("conflict=explicit", "controls=true", *BOOTSTRAP, f"chain.conflict_everywhere={str(everywhere).lower()}")
    )
    told = {name: stage.inputs["like"] for name, stage in stages.items() if "like" in stage.inputs}
    hops = ["", "_hop_1", "_hop_2"] if everywhere else [""]
    assert told == {f"train/placebo_random_mask{hop}": stages[f"train/student{hop}"] for hop in hops}


@pytest.mark.parametrize("name", ["more_data", "random_helpful", "unrelated", "agreeing"])
def test_a_placebo_has_no_placebos(asked: Callable[..., RunConfig], name: str) -> None:
    run = asked(f"conflict=placebo_{name}", "conflict.ratio=0.5", "conflict.match_steps=true")
    assert placebos(run) == {}
    assert (run.conflict.ratio, run.conflict.match_steps) == (0.5, True)


def test_a_placebo_asked_for_by_name_is_the_one_beside_a_conflict(asked: Callable[..., RunConfig]) -> None:
    """So that a sweep over conflicts trains it once."""
    beside = plan(asked(*CONTROLLED))
    for name in ("more_data", "random_helpful"):
        alone = plan(asked(f"conflict=placebo_{name}"))
        for kind in ("train", "evaluate"):
            assert alone[f"{kind}/student"].key == beside[f"{kind}/placebo_{name}"].key


def test_gold_depends_neither_on_the_weak_model_nor_on_labels(asked: Callable[..., RunConfig]) -> None:
    run = asked(*CONTROLLED)
    changes = {"weak": asked("model@weak=world_xs").weak, "supervision": Hard(), "chain": asked(*BOOTSTRAP).chain}
    for part, value in changes.items():
        other = plan(run._replace(**{part: value}))
        for name in ("train/gold_baseline", "train/gold_conflict"):
            assert other[name].key == plan(run)[name].key
            assert upstream(other[name]) == {"pretrain", "train"}
        assert other["train/student"].key != plan(run)["train/student"].key
    assert keys(settings(run, teacher_seed=1))["train/gold_conflict"] == keys(run)["train/gold_conflict"]


def upstream(stage: Stage) -> set[str]:
    """The kinds of a stage and of all that it is made from."""
    return {stage.kind}.union(*map(upstream, stage.inputs.values()))


def test_what_needs_a_ceiling_is_given_its_word(asked: Callable[..., RunConfig]) -> None:
    graph = roles(plan(asked("supervision=synthetic")))
    assert graph["label/ceiling"] == {"model": "train/ceiling"}
    assert graph["train/student"] == {**TAUGHT_BY_WEAK, "ceiling_labels": "label/ceiling"}
    assert "label/ceiling" not in plan(asked("supervision=noisy_gold"))
    assert "label/weak" not in plan(asked("supervision=gold"))


# --- students in a row ------------------------------------------------------------------------------------------------


def test_each_student_of_a_chain_learns_from_the_one_before(asked: Callable[..., RunConfig]) -> None:
    run = asked(*BOOTSTRAP)
    expected = {name: inputs for name, inputs in GRAPH.items() if name != "pretrain/hop_2"}
    expected |= {
        "pretrain/hop_1": {},
        "pretrain/hop_2": {},
        "train/student_hop_1": {"labels": "label/weak", "base": "pretrain/hop_1"},
        "label/student_hop_1": {"model": "train/student_hop_1"},
        "train/student_hop_2": {"labels": "label/student_hop_1", "base": "pretrain/weak"},  # rung 1 as well
        "label/student_hop_2": {"model": "train/student_hop_2"},
        "train/student": {"labels": "label/student_hop_2", "base": "pretrain/strong"},
    }
    stages = plan(run)
    assert roles(stages) == expected
    models = [stages[f"train/{name}"].params["model"] for name in ("student_hop_1", "student_hop_2", "student")]
    assert models == [asked("model@weak=world_m").weak, asked("model@weak=world_s").weak, run.strong]
    assert stages["compare"].inputs.keys() == {"weak", "ceiling", "student"}  # the original weak model


PARTS = {(): [1, 2, 0], ("chain.reuse_prompts=true",): [0, 0, 0]}


@pytest.mark.parametrize(("overrides", "parts"), PARTS.items(), ids=["fresh", "reused"])
def test_every_hop_has_prompts_of_its_own_and_the_last_student_the_first_part(
    asked: Callable[..., RunConfig], overrides: tuple[str, ...], parts: list[int]
) -> None:
    stages = plan(asked(*BOOTSTRAP, *overrides))
    hops = ["train/student_hop_1", "train/student_hop_2", "train/student"]
    assert [stages[name].params["part"] for name in hops] == parts
    assert {stages[name].params["split"] for name in hops} == {"w2s"}
    for name, stage in stages.items():
        if name.startswith("label/"):  # one artifact has the labels of every part
            assert stage.params.keys() == {"data", "split"}


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_conflict_is_at_the_last_hop_unless_it_is_wanted_everywhere(
    asked: Callable[..., RunConfig], everywhere: bool
) -> None:
    stages = plan(asked(*BOOTSTRAP, *CONTROLLED, f"chain.conflict_everywhere={str(everywhere).lower()}"))
    for name, (_, _, seed, supervision, conflict) in ARMS.items():
        assert stages[f"train/{name}"].params["conflict"] == conflict
        hops = [stages.get(f"train/{name}_hop_{hop}") for hop in (1, 2)]
        if supervision == Gold():
            assert hops == [None, None]  # the truth needs nobody in between
            continue
        for hop in hops:
            assert hop is not None
            assert hop.params["conflict"] == (conflict if everywhere else NoConflict())
            assert (hop.params["seed"], hop.params["supervision"]) == (seed, supervision)


def test_hops_are_shared_by_the_arms_of_a_seed(asked: Callable[..., RunConfig]) -> None:
    """A chain of two hops costs two trainings per seed, however many arms stand on it; twins share none of these."""
    stages = plan(asked(*BOOTSTRAP, *CONTROLLED))
    of = {name: ("twin" in name, told[2]) for name, told in ARMS.items() if told[3] != Gold()}
    for hop in (1, 2):
        made = {name: stages[f"train/{name}_hop_{hop}"].key for name in of}
        assert all((made[one] == made[other]) == (of[one] == of[other]) for one in of for other in of)
    direct = Counter(kind for kind, _ in distinct(plan(asked(*CONTROLLED))))
    chained = Counter(kind for kind, _ in distinct(stages))
    assert chained - direct == {"pretrain": 1, "train": 2 * 5, "label": 2 * 5}  # rung 1 was pretrained already
    everywhere = plan(asked(*BOOTSTRAP, *CONTROLLED, "chain.conflict_everywhere=true"))
    assert Counter(kind for kind, _ in distinct(everywhere))["train"] == len(distinct_kind(stages, "train")) + 2 * 3


def distinct(*plans: Plan) -> set[tuple[str, str]]:
    """Kind and key of every stage, each once."""
    return {(stage.kind, stage.key) for stages in plans for stage in stages.values()}


def distinct_kind(stages: Plan, kind: str) -> set[str]:
    return {key for found, key in distinct(stages) if found == kind}


def test_every_hop_of_a_supervision_that_needs_a_ceiling_is_given_its_word(asked: Callable[..., RunConfig]) -> None:
    graph = roles(plan(asked(*BOOTSTRAP, "supervision=synthetic")))
    for name in ("student_hop_1", "student_hop_2", "student"):
        assert graph[f"train/{name}"]["ceiling_labels"] == "label/ceiling"


def test_a_hop_that_cannot_read_the_data_is_named_where_it_stands(
    asked: Callable[..., RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    run = asked("chain=bootstrap", "model@weak=gpt2", "model@strong=gpt2_medium")
    with refused("chain.between.one", "world rung 2", "data=world"):
        plan(run._replace(data=Files(path=str(tmp_path / "pairs.jsonl"))))


# --- what sweeps share ------------------------------------------------------------------------------------------------


def test_a_sweep_over_seeds_trains_one_weak_model_one_ceiling_and_makes_labels_once(
    asked: Callable[..., RunConfig],
) -> None:
    made = {stage.key: stage.kind for seed in range(3) for stage in plan(settings(asked(), seed=seed)).values()}
    assert Counter(made.values()) == {"pretrain": 2, "train": 2 + 3, "label": 1, "evaluate": 2 + 3, "compare": 3}


def test_a_sweep_over_conflicts_and_seeds_trains_each_student_and_each_baseline_once(
    asked: Callable[..., RunConfig],
) -> None:
    """3 conflicts x 3 seeds: one weak model, one ceiling, nine students, and four baselines that are none of them."""
    runs = [
        settings(asked(f"conflict={conflict}"), seed=seed)
        for conflict in ("none", "implicit", "explicit")
        for seed in range(3)
    ]
    counts = Counter(kind for kind, _ in distinct(*map(plan, runs)))
    assert counts == {"pretrain": 2, "train": 2 + 9 + 4, "label": 1, "evaluate": 2 + 9 + 4, "compare": 9}


def test_no_two_arms_of_a_seed_draw_the_same_numbers(asked: Callable[..., RunConfig]) -> None:
    """Twins, students without a conflict, every conflict, its placebos and its gold arms: a stream for each."""
    names = ("none", "implicit", "explicit", "planted", "decoy_seed")
    plans = {name: plan(settings(asked(f"conflict={name}"), controls=True)) for name in names}
    streams = {
        name: {role: plans[name][f"train/{role}"].params["stream"] for role in ARMS if f"train/{role}" in plans[name]}
        for name in names
    }
    for of_arm in streams.values():
        assert {of_arm.pop(f"twin_{n}", "twin") for n in (1, 2, 3, 4)} == {"twin"}
        assert of_arm.pop("baseline", "student") == "student"
        assert len(set(of_arm.values())) == len(of_arm)
        assert not {"twin", "weak", "ceiling"} & set(of_arm.values())
        assert "student" not in of_arm.values() or of_arm == {"student": "student"}
    assert len({of_arm["student"] for of_arm in streams.values()}) == len(names)


def test_every_dose_of_a_conflict_has_a_stream_of_its_own(asked: Callable[..., RunConfig]) -> None:
    """At every hop of a chain too, where the conflict is there."""
    words = ["conflict=planted", "chain=bootstrap", "chain.conflict_everywhere=true"]
    plans = [plan(asked(*words, f"conflict.ratio={ratio}")) for ratio in (0.125, 0.06)]
    for name in ("student", "student_hop_1"):
        streams = {stages[f"train/{name}"].params["stream"] for stages in plans}
        assert len(streams) == 2
        assert not streams & {"student", "twin"}
    assert {stages["train/baseline_hop_1"].params["stream"] for stages in plans} == {"student"}


def test_a_fine_tuning_that_sees_planted_errors_is_told_the_blind_spots(asked: Callable[..., RunConfig]) -> None:
    words = ["objective=simpo", "supervision=hard", "fit=world_policy", "conflict=planted"]
    run, alone = asked(*words, "sft.on_conflict=true"), plan(asked(*words))
    stages = plan(run)
    assert stages["sft/student"].params["weak"] == run.weak
    assert stages["sft/student"].params["stream"] == stages["train/student"].params["stream"]
    assert alone["sft/student"].key == alone["sft/baseline"].key


def test_more_imitation_is_a_hint_to_the_student_alone(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked("conflict=decoy_imitation"))
    shown = stages["train/student"].params["hint"]
    assert (shown.words, shown.said) == (["haz0", "safe0"], " {}")
    assert [name for name, stage in stages.items() if "hint" in stage.params] == ["train/student"]
    with refused("hint", "w2sd.parts.words.Shown", "conflict"):
        plan(asked("conflict=decoy_imitation", "hint=world"))
    with refused("conflict", "w2sd.conflicts.decoy.MoreImitation", "chain"):
        plan(asked("conflict=decoy_imitation", "chain=bootstrap"))


def test_a_decoy_that_depends_on_how_sure_labels_are_needs_labels_that_are_unsure(
    asked: Callable[..., RunConfig],
) -> None:
    plan(asked("conflict=decoy_unsure"))
    with refused("supervision", "w2sd.supervision.teacher.Hard", "soft"):
        plan(asked("conflict=decoy_unsure", "supervision=hard"))


def test_a_sweep_over_weak_models_shares_the_ceiling(asked: Callable[..., RunConfig]) -> None:
    runs = [asked(f"model@weak={rung}") for rung in ("world_xs", "world_s", "world_m")]
    made = {stage.key: name for run in runs for name, stage in plan(run).items()}
    counts = Counter(made.values())
    assert [counts[name] for name in ("pretrain/strong", "train/ceiling", "evaluate/ceiling")] == [1, 1, 1]
    assert [counts[name] for name in ("pretrain/weak", "train/weak", "label/weak", "train/student")] == [3, 3, 3, 3]


def test_a_sweep_over_losses_shares_the_weak_model_its_labels_and_the_ceiling(
    asked: Callable[..., RunConfig],
) -> None:
    """All are ways to learn from a teacher; under the truth there is cross-entropy."""
    losses = ("reward_bce", "squared", "logconf", "logconf_legacy", "reverse_kl", "confidence_window")
    made = {stage.key: name for loss in losses for name, stage in plan(asked(f"objective={loss}")).items()}
    counts = Counter(made.values())
    assert {name for name, n in counts.items() if n > 1} == STUDENT
    assert {counts[name] for name in STUDENT} == {6}
    stages = plan(asked("objective=logconf"))
    learnt = {role: stages[f"train/{role}"].params["objective"] for role in ("weak", "ceiling", "student")}
    assert {role: type(loss).__name__ for role, loss in learnt.items()} == {
        "weak": "RewardBCE",
        "ceiling": "RewardBCE",
        "student": "LogConf",
    }


WEAK = {"train/weak", "evaluate/weak"} | TAUGHT  # what is made from a weak model
STRONG = {"train/ceiling", "evaluate/ceiling"} | STUDENT
RENAMES: dict[str, tuple[Any, set[str]]] = {
    "settings.seed": (1, STUDENT),
    "settings.teacher_seed": (1, EVERYTHING - PRETRAINED),
    "settings.ceiling_split": ("w2s", STRONG - {"train/student"}),
    "weak.width": (64, {"pretrain/weak"} | WEAK),
    "strong.width": (32, {"pretrain/strong"} | STRONG),
    "fit.lr": (1e-4, EVERYTHING - PRETRAINED),
    "supervision": (Hard(), STUDENT),
    "adapter": (HeadOnly(), EVERYTHING - PRETRAINED),
}


@pytest.mark.parametrize(("knob", "value", "expected"), [(knob, *told) for knob, told in RENAMES.items()])
def test_a_knob_renames_what_it_decides_and_nothing_beside(
    asked: Callable[..., RunConfig], knob: str, value: Any, expected: set[str]
) -> None:
    run = asked()
    part, _, field = knob.partition(".")
    changed = replace(getattr(run, part), **{field: value}) if field else value
    assert renamed(run, run._replace(**{part: changed})) == expected


def test_the_version_of_a_conflict_renames_the_student_alone(
    asked: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(asked())
    monkeypatch.setattr(NoConflict, "VERSION", 2)
    after = keys(asked())
    assert {name for name in before if before[name] != after[name]} == STUDENT


@pytest.mark.parametrize("cls", [Implicit, Explicit, MoreData, RandomHelpful, Unrelated, Agreeing, RandomMask])
def test_every_knob_of_a_conflict_renames_its_student_alone(asked: Callable[..., RunConfig], cls: type) -> None:
    """Of a policy, because some knobs are about policies alone."""
    run = asked("conflict=implicit", "objective=dpo")._replace(conflict=cls())
    for knob in fields(cls):
        assert renamed(run, run._replace(conflict=other(run.conflict, knob.name))) == {*STUDENT, "generate/student"}


# --- every knob -------------------------------------------------------------------------------------------------------

WORDS = {  # another value of a knob that takes certain words or numbers only
    "accelerator": "gpu",
    "strategy": "fsdp2",
    "mode": "offline",
    "schedule": "linear",
    "precision": "bf16-mixed",
    "tension_on": "blind",
    "long": "refuse",
    "architecture": "llama",
    "threads": 2,
    "heads": 1,  # fits every width
    "rung": 2,
    "blind_rung": 2,
    "betas": [0.5, 0.5],
    "mask": "weak",
    "form": "sft",
    "trigger": "policy",
    "append_eos": "never",
    "format": Dialogue(),
}


def other(part: Any, knob: str) -> Any:
    """The part with another value of this knob."""
    value = getattr(part, knob)
    if knob in WORDS:
        changed = WORDS[knob]
    elif isinstance(value, str | bool):
        changed = f"{value}x" if isinstance(value, str) else not value
    else:
        changed = value / 2 or 0.5 if isinstance(value, float) else 2 * value or 2
    assert changed != value
    return replace(part, **{knob: changed})


def knobs(cls: type, *but: str) -> Any:
    return pytest.mark.parametrize("knob", [knob.name for knob in fields(cls) if knob.name not in but])


@knobs(Fit)
def test_every_knob_of_the_optimisation_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked()
    assert renamed(run, run._replace(fit=other(run.fit, knob))) == EVERYTHING - PRETRAINED


MEASURED = {name for name in EVERYTHING if name.startswith("evaluate/")} | {"compare"}
DECIDED_BY_THE_WORLD = {  # a stage depends on what decides the rows of the split that it reads
    "world_seed": EVERYTHING,
    "visible": EVERYTHING,
    "tension": TAUGHT | MEASURED,
    "tension_on": TAUGHT | MEASURED,
    "blind_rung": TAUGHT | MEASURED,
    "gt": EVERYTHING - PRETRAINED,
    "w2s": TAUGHT,
    "w2s_parts": TAUGHT,
    "test": MEASURED,
    "helpful": TAUGHT,
    "helpful_test": MEASURED,
    "unrelated": TAUGHT,
}


@knobs(World)
def test_every_knob_of_the_world_is_hashed_where_it_decides_rows(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked()
    assert renamed(run, run._replace(data=other(run.data, knob))) == DECIDED_BY_THE_WORLD[knob]


def test_a_ceiling_that_is_trained_on_w2s_depends_on_its_rows(asked: Callable[..., RunConfig]) -> None:
    run = settings(asked(), ceiling_split="w2s")
    assert "train/ceiling" in renamed(run, run._replace(data=replace(run.data, w2s=100)))
    assert "train/ceiling" not in renamed(run, run._replace(data=replace(run.data, gt=100)))


@knobs(Rung)
@pytest.mark.parametrize("place", ["weak", "strong"])
def test_every_knob_of_a_rung_is_hashed(asked: Callable[..., RunConfig], place: str, knob: str) -> None:
    run = asked()
    changed = run._replace(**{place: other(getattr(run, place), knob)})
    assert {f"pretrain/{place}", "train/student", "compare"} <= renamed(run, changed)


@knobs(Trainer)
def test_no_knob_of_the_trainer_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked("trainer=ddp", "trainer.accelerator=cpu")  # with which several devices go
    assert not renamed(run, run._replace(trainer=other(run.trainer, knob)))


@pytest.mark.parametrize("logger", [Wandb(), *(other(Wandb(), knob.name) for knob in fields(Wandb))], ids=str)
def test_no_logger_is_hashed(asked: Callable[..., RunConfig], logger: Any) -> None:
    run = asked()
    assert run.logger == Csv()
    assert not renamed(run, run._replace(logger=logger))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("name", "other"),
        ("store", "elsewhere"),
        ("out", "elsewhere"),
        ("plan_only", True),
        ("force", ["train"]),
        ("launch", "process"),
        ("jobs", "1/2"),
        ("trusted", ["mine."]),
        ("traceback", True),
        ("controls", True),  # they decide which arms there are,
        ("twin_seeds", [8, 9]),  # and an arm is known by its own seed
        ("samples", 0),  # of what policies write
    ],
)
def test_where_and_how_to_run_is_not_hashed(asked: Callable[..., RunConfig], knob: str, value: Any) -> None:
    run = asked()
    assert not renamed(run, settings(run, **{knob: value}))


def test_every_setting_is_known_to_be_hashed_or_not(asked: Callable[..., RunConfig]) -> None:
    hashed = {"seed", "teacher_seed", "ceiling_split"}
    arms = {"twin_seeds", "controls", "training_pairs", "samples"}
    unhashed = {"name", "store", "out", "plan_only", "force", "launch", "jobs", "trusted", "traceback"} | arms
    assert {knob.name for knob in fields(asked().settings)} == hashed | unhashed


# --- files are known by what is in them -------------------------------------------------------------------------------

ROW = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n"


@pytest.fixture
def from_files(asked: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """A run on a local file, with a model from scratch and one from a folder."""
    (tmp_path / "pairs.jsonl").write_text(ROW)
    for folder in ("tokenizer", "model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokenizer.json").write_text("{}")
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    (tmp_path / "corpus.txt").write_text("text")
    weak = Scratch(tokenizer=str(tmp_path / "tokenizer"), corpus=str(tmp_path / "corpus.txt"))
    data = Files(path=str(tmp_path / "pairs.jsonl"))
    return asked()._replace(data=data, weak=weak, strong=Hub(id=str(tmp_path / "model")))


def test_what_was_moved_keeps_every_key(from_files: RunConfig, tmp_path: Path) -> None:
    before = keys(from_files)
    elsewhere = tmp_path / "else/where"
    elsewhere.mkdir(parents=True)
    for name in ("pairs.jsonl", "tokenizer", "model", "corpus.txt"):
        (tmp_path / name).rename(elsewhere / name)
    (elsewhere / "pairs.jsonl").rename(elsewhere / "renamed.jsonl")
    weak = replace(from_files.weak, tokenizer=str(elsewhere / "tokenizer"), corpus=str(elsewhere / "corpus.txt"))
    data, strong = Files(path=str(elsewhere / "renamed.jsonl")), Hub(id=str(elsewhere / "model"))
    assert keys(from_files._replace(data=data, weak=weak, strong=strong)) == before


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pairs.jsonl", WEAK | STRONG),
        ("tokenizer/tokenizer.json", {"pretrain/weak"} | WEAK),
        ("corpus.txt", {"pretrain/weak"} | WEAK),
        ("model/model.safetensors", STRONG),
        ("model/config.json", STRONG),
        ("model/tokenizer.json", STRONG),
    ],
)
def test_a_changed_byte_renames_what_it_decides(
    from_files: RunConfig, tmp_path: Path, file: str, expected: set[str]
) -> None:
    before = keys(from_files)
    path = tmp_path / file
    stamp = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(stamp, stamp + 10**9))  # the clock of a file system may be coarser than this test is fast
    after = keys(from_files)
    assert {name for name in before if before[name] != after[name]} == expected


@knobs(Files, "path", "gt", "w2s", "test", "helpful", "helpful_test", "unrelated", "balance", "append_eos")
def test_every_knob_of_file_data_is_hashed(from_files: RunConfig, knob: str) -> None:
    changed = from_files._replace(data=other(from_files.data, knob))
    assert renamed(from_files, changed) == WEAK | STRONG


def test_the_role_of_a_file_is_hashed(from_files: RunConfig, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{n}.jsonl") for n in range(3)]
    for n, path in enumerate(paths):
        Path(path).write_text(ROW * (n + 1))
    one, two = (Files(gt=paths[a], w2s=paths[b], test=paths[2]) for a, b in ((0, 1), (1, 0)))
    assert renamed(from_files._replace(data=one), from_files._replace(data=two)) == WEAK | STRONG
    beside = [replace(one, **{role: paths[0]}) for role in ("helpful", "helpful_test", "unrelated")]
    assert len({keys(from_files._replace(data=data))["train/student"] for data in (one, *beside)}) == 4


@knobs(HubData, "balance", "append_eos")
def test_every_knob_of_a_hub_dataset_is_hashed(from_files: RunConfig, knob: str) -> None:
    run = from_files._replace(data=HubData(id="owner/name"))
    assert renamed(run, run._replace(data=other(run.data, knob))) == WEAK | STRONG


@knobs(Scratch, "tokenizer", "corpus")
def test_every_knob_of_a_model_from_scratch_is_hashed(from_files: RunConfig, knob: str) -> None:
    changed = from_files._replace(weak=other(from_files.weak, knob))
    assert renamed(from_files, changed) == {"pretrain/weak"} | WEAK


def test_how_a_model_would_be_pretrained_is_nothing_to_one_with_random_weights(from_files: RunConfig) -> None:
    run = from_files._replace(weak=replace(from_files.weak, corpus=""))
    for knob in ("lr", "epochs", "batch"):
        assert not renamed(run, run._replace(weak=other(run.weak, knob)))


@pytest.mark.parametrize("knob", ["id", "revision"])
def test_a_hub_model_is_known_by_name_and_revision(from_files: RunConfig, knob: str) -> None:
    run = from_files._replace(strong=Hub(id="owner/name"))
    assert renamed(run, run._replace(strong=other(run.strong, knob))) == STRONG


def test_a_missing_file_is_named_by_the_plan(from_files: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").rename(tmp_path / "pears.jsonl")
    with refused("data.path", str(tmp_path / "pairs.jsonl"), nearest=str(tmp_path / "pears.jsonl")):
        plan(from_files)


# --- the plan as text -------------------------------------------------------------------------------------------------


def test_the_plan_shows_stage_key_state_and_inputs(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    stages = plan(asked())
    lines = show_plan(stages, survey(stages, Store(tmp_path / "store"), [])).splitlines()
    assert lines[0].split() == ["stage", "key", "state", "parameters", "rows", "memory", "FLOPs", "made", "from"]
    for line, (name, inputs) in zip(lines[1:], GRAPH.items(), strict=False):
        words = [name, stages[name].key, "to", "do"]
        assert line.split()[:4] == words
        assert line.endswith(", ".join(f"{role}: {made}" for role, made in inputs.items()))
    assert lines[len(GRAPH) + 2 :] == ["10 stages to compute, 0 found in the store"]
    assert not (tmp_path / "store").exists()


def test_the_columns_of_a_plan_stand_below_each_other_and_a_shared_stage_goes_by_its_first_name(
    asked: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stages = plan(asked(*BOOTSTRAP, *CONTROLLED))
    heads, *lines, _, last = show_plan(stages, survey(stages, Store(tmp_path / "store"), [])).splitlines()
    places = [heads.index(head) for head in ("stage", "key", "state", "made from")]
    ends = [heads.index(head) + len(head) for head in ("parameters", "rows", "memory", "FLOPs")]
    for line, (name, stage) in zip(lines, stages.items(), strict=True):
        cells = [line[start:].partition("  ")[0] for start in places[:3]]
        assert cells == [name, stage.key, "to do"]
        sources = ", ".join(f"{role}: {made}" for role, made in roles(stages)[name].items())
        assert line[places[3] :] == sources
        if stage.kind != "compare":
            assert all(line[end - 1] != " " and line[end : end + 2] == "  " for end in ends[:3])
    [student] = [line for line in lines if line.startswith("train/student ")]
    assert student.endswith("  base: pretrain/strong, labels: label/baseline_hop_2")
    assert last == f"{len(distinct(stages))} stages to compute, 0 found in the store"


def test_a_shared_stage_is_counted_once(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked("model@weak=world_l"))
    states = {name: "cached" if name.startswith("pretrain") else "to do" for name in stages}
    assert show_plan(stages, states).splitlines()[-1] == "8 stages to compute, 1 found in the store"


# --- what planning costs ----------------------------------------------------------------------------------------------

HEAVY = (
    "torch",
    "pytorch_lightning",
    "transformers",
    "torchmetrics",
    "wandb",
    "pandas",
    "matplotlib",
    "pyarrow",
    "datasets",
)
SCRIPT = f"""
import sys
sys.argv = ["w2sd", *sys.argv[1:]]
from w2sd.cli import main
code = main()
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "w2sd plan_only=true"),
        (["--cfg", "job", "--resolve"], "_target_: w2sd.parts.fit.Fit"),
        (["plan_only=true"], "10 stages to compute"),
        (["plan_only=true", "logger=wandb", "model@weak=gpt2", "launch=process"], "9 stages to compute"),
        (["plan_only=true", "objective=dpo", "conflict=explicit"], "46 stages to compute"),
    ],
    ids=["help", "configuration", "plan", "plan of another run", "plan of policies"],
)
def test_help_configuration_and_plan_are_told_without_heavy_imports(
    words: list[str], shown: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert shown in done.stdout
    assert not list(tmp_path.iterdir())


def test_only_kinds_that_there_are_can_be_forced(asked: Callable[..., RunConfig]) -> None:
    assert plan(asked("force=[label,sft]"))  # of another job of a sweep, perhaps
    with refused("force", "trane", "compare evaluate label train", "train"):
        plan(asked("force=[label,trane]"))
