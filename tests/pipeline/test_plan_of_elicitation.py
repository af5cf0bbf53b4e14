"""What interventions add to a graph, and that they rename nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from w2sd.config import RunConfig
from w2sd.conflicts.none import NoConflict
from w2sd.errors import Refused
from w2sd.pipeline.plan import Plan, plan
from w2sd.supervision import Consistent, Soft, TwoStage

Asked = Callable[..., RunConfig]


def kinds(stages: Plan, kind: str) -> dict[str, Any]:
    return {name: stage for name, stage in stages.items() if stage.kind == kind}


def distinct(stages: Plan, kind: str) -> int:
    return len({stage.key for stage in kinds(stages, kind).values()})


def test_a_generative_reading_comes_before_student_and_ceiling_and_not_before_the_teacher(asked: Asked) -> None:
    usual, read = plan(asked()), plan(asked("generative=world"))
    assert [*kinds(read, "generative")] == ["generative/strong"]
    reading = read["generative/strong"]
    assert (
        reading.inputs == {"base": read["pretrain/strong"]} or reading.inputs["base"].key == read["pretrain/strong"].key
    )
    assert reading.params["split"] == "w2s"
    for role in ("student", "ceiling"):
        assert read[f"train/{role}"].inputs["base"].key == reading.key
        assert read[f"train/{role}"].key != usual[f"train/{role}"].key
    for untouched in ("pretrain/strong", "train/weak", "label/weak", "evaluate/weak"):
        assert read[untouched].key == usual[untouched].key


def test_the_teacher_reads_as_well_where_it_is_asked_to(asked: Asked) -> None:
    stages = plan(asked("generative=world", "generative.teacher=true"))
    assert stages["train/weak"].inputs["base"].key == stages["generative/weak"].key


def test_a_reading_comes_before_a_fine_tuning(asked: Asked) -> None:
    stages = plan(asked("generative=world", "objective=simpo"))
    assert stages["sft/student"].inputs["base"].key == stages["generative/strong"].key


def test_one_reading_serves_every_seed_and_conflict(asked: Asked) -> None:
    jobs = [
        plan(asked("generative=world", f"seed={seed}", f"conflict={which}"))
        for seed in (0, 1)
        for which in ("none", "implicit")
    ]
    assert len({stage.key for job in jobs for stage in kinds(job, "generative").values()}) == 1


@pytest.mark.parametrize("rounds", [1, 3])
def test_in_self_training_the_strong_model_learns_from_itself_on_the_same_prompts(asked: Asked, rounds: int) -> None:
    usual, stages = plan(asked()), plan(asked("chain=self_training", f"chain.rounds={rounds}"))
    first = stages["train/student_hop_1"]
    assert first.key == usual["train/student"].key  # the first of them is the ordinary student
    teacher = first
    for name in [*(f"student_hop_{n}" for n in range(2, rounds + 1)), "student"]:
        student = stages[f"train/{name}"]
        assert student.inputs["labels"].inputs["model"].key == teacher.key
        assert (student.params["part"], student.params["model"]) == (0, first.params["model"])
        assert student.inputs["base"].key == first.inputs["base"].key  # each begins anew
        teacher = student
    assert distinct(stages, "pretrain") == 2


@pytest.mark.parametrize(
    ("weak", "strong", "between"),
    [
        ("world_xs", "world_l", [1, 2]),
        ("world_xs", "world_m", [1]),
        ("world_s", "world_l", [2]),
        ("world_m", "world_l", []),
    ],
)
def test_a_ladder_has_the_rungs_between(asked: Asked, weak: str, strong: str, between: list[int]) -> None:
    models = (f"model@weak={weak}", f"model@strong={strong}")
    stages = plan(asked("method=bootstrap", *models))
    hops = [stage.params["model"].rung for name, stage in stages.items() if name.startswith("train/student_hop")]
    assert hops == between
    if not between:
        assert {n: s.key for n, s in stages.items()} == {
            n: s.key for n, s in plan(asked("method=naive", *models)).items()
        }


def test_only_rungs_are_between(asked: Asked) -> None:
    from tests.pipeline.test_plan import Hub as Other  # a model that is no rung

    with pytest.raises(Refused, match=r"^only_between: .* no rungs of a ladder"):
        plan(asked("chain=ladder")._replace(weak=Other()))


@pytest.mark.parametrize("rounds", [0, -1, 101])
def test_an_impossible_number_of_rounds_is_refused(asked: Asked, rounds: int) -> None:
    with pytest.raises(Refused, match=r"^chain\.rounds: .* expected an integer from 1 to 100"):
        asked("chain=self_training", f"chain.rounds={rounds}")


def test_in_two_stages_the_last_student_sees_the_labels_of_the_first_beside_the_teacher_s(asked: Asked) -> None:
    usual = plan(asked("supervision=consistent"))
    stages = plan(asked("supervision=two_stage", "conflict=implicit"))
    first, last = stages["train/student_first"], stages["train/student"]
    assert first.key == usual["train/student"].key  # what the filter alone gives
    assert (first.params["supervision"], first.params["conflict"]) == (Consistent(), NoConflict())
    assert last.params["supervision"] == TwoStage()
    assert last.inputs["labels"].key == first.inputs["labels"].key
    assert last.inputs["second_labels"].inputs["model"].key == first.key
    assert last.inputs["base"].key == first.inputs["base"].key


def test_students_on_the_way_are_taught_in_one_stage(asked: Asked) -> None:
    stages = plan(asked("supervision=two_stage", "chain=bootstrap"))
    assert stages["train/student_hop_1"].params["supervision"] == Consistent()
    assert stages["train/student"].params["supervision"] == TwoStage()


def test_only_supervision_in_stages_has_a_first_one(asked: Asked) -> None:
    assert Soft().first_stage is None
    assert not any("first" in name for name in plan(asked("supervision=consistent")))
