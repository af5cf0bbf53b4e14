"""What interventions add to a graph, and that they rename nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tests.builders import refused
from w2sd.cli import CONF
from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict
from w2sd.pipeline.plan import Plan, plan
from w2sd.supervision.teacher import Consistent, Soft, TwoStage

Asked = Callable[..., RunConfig]


def kinds(stages: Plan, kind: str) -> dict[str, Any]:
    return {name: stage for name, stage in stages.items() if stage.kind == kind}


def distinct(stages: Plan, kind: str) -> int:
    return len({stage.key for stage in kinds(stages, kind).values()})


def test_a_generative_reading_comes_before_student_and_ceiling_and_not_before_the_teacher(asked: Asked) -> None:
    usual, read = plan(asked()), plan(asked("generative=world"))
    assert [*kinds(read, "generative")] == ["generative/strong"]
    reading = read["generative/strong"]
    assert {role: stage.key for role, stage in reading.inputs.items()} == {"base": read["pretrain/strong"].key}
    assert reading.params["split"] == "w2s"
    for role in ("student", "ceiling"):
        assert read[f"train/{role}"].inputs["base"].key == reading.key
        assert read[f"train/{role}"].key != usual[f"train/{role}"].key
    for untouched in ("pretrain/strong", "train/weak", "label/weak", "evaluate/weak"):
        assert read[untouched].key == usual[untouched].key


@pytest.mark.parametrize("part", ["generative=world", "method=generative"])
def test_the_teacher_reads_as_well_where_it_is_asked_to(asked: Asked, part: str) -> None:
    stages = plan(asked(part, "generative.teacher=true"))
    assert stages["train/weak"].inputs["base"].key == stages["generative/weak"].key


def test_a_reading_comes_before_a_fine_tuning(asked: Asked) -> None:
    run = asked("generative=world", "objective=simpo")
    stages = plan(run)
    assert stages["sft/student"].inputs["base"].key == stages["generative/strong"].key
    assert stages["generative/strong"].params["append_eos"] == run.data.append_eos  # what a policy writes ends alike


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


LADDERS = {  # the data that a ladder reads, its ends and what is between them
    "world": ("world", "world_xs", "world_l", ["world_s", "world_m"]),
    "classes": ("world_classes", "world_s", "world_l", ["world_m"]),
    "game": ("game", "game_xs", "game_l", ["game_s", "game_m"]),
    "chess": ("chess_puzzles", "chess_s", "chess_l", ["chess_m"]),
    "gpt2": ("world", "gpt2", "gpt2_xl", ["gpt2_medium", "gpt2_large"]),
    "opt": ("world", "opt_1_3b", "opt_6_7b", ["opt_2_7b"]),
}


@pytest.fixture(scope="module")
def built() -> dict[tuple[str, ...], RunConfig]:
    """Runs that were built before: most of the work, which the tests below share."""
    return {}


@pytest.fixture
def on_ladder(
    asked: Asked, built: dict[tuple[str, ...], RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Asked:
    """A run on one of these with the parts of some overrides. They are composed apart: no option names another's."""
    monkeypatch.chdir(tmp_path)
    Path("puzzles.csv").write_text("")  # planning knows a file by its content

    def run(ladder: str, *overrides: str) -> RunConfig:
        data, weak, strong, _ = LADDERS[ladder]
        path = ["data.path=puzzles.csv"] if data == "chess_puzzles" else []
        choices = (f"data={data}", f"model@weak={weak}", f"model@strong={strong}", *path)
        for words in (choices, overrides):
            built[words] = built.get(words) or asked(*words)
        models = built[choices]
        return built[overrides]._replace(data=models.data, weak=models.weak, strong=models.strong)

    return run


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("method", [path.stem for path in sorted((CONF / "method").glob("*.yaml"))])
def test_every_method_is_for_every_ladder(on_ladder: Asked, ladder: str, method: str) -> None:
    run = on_ladder(ladder, f"method={method}")
    rungs = on_ladder(ladder, "method=bootstrap").chain.between
    between = [rungs[name] for name in LADDERS[ladder][-1]] if method == "bootstrap" else []
    seen = [stage.params["model"] for stage in plan(run).values() if stage.kind == "train"]
    assert [model for model in seen if model not in (run.weak, run.strong)] == between


@pytest.mark.parametrize(("ladder", "recipe"), [("world", "world"), ("chess", "world"), ("gpt2", "real")])
def test_a_model_reads_by_a_recipe_that_suits_it(on_ladder: Asked, ladder: str, recipe: str) -> None:
    named, by_model = (plan(on_ladder(ladder, part)) for part in (f"generative={recipe}", "method=generative"))
    assert {name: stage.key for name, stage in named.items()} == {name: stage.key for name, stage in by_model.items()}


@pytest.mark.parametrize(
    ("weak", "strong", "said"),
    [
        ("world_xs", "gpt2", "between world and gpt2"),
        ("gpt2", "opt_1_3b", "between gpt2 and opt"),
    ],
)
def test_models_of_no_one_ladder_are_told_what_to_set(asked: Asked, weak: str, strong: str, said: str) -> None:
    with refused("chain", said, "chain=bootstrap model@chain.between.one=OPTION"):
        plan(asked("method=bootstrap", f"model@weak={weak}", f"model@strong={strong}"))


def pythias(**millions: int) -> list[str]:
    """Overrides that put these in their places, as rungs of a ladder of somebody's own."""
    words = []
    for place, size in ((role.replace("_", "."), size) for role, size in millions.items()):
        words += [f"{'+' * ('chain' in place)}model@{place}=hub", f"{place}.id=EleutherAI/pythia-{size}m"]
        words += [f"{place}.ladder=pythia", f"{place}.height={size}"]
    return words


def test_a_ladder_of_which_no_rung_is_listed_asks_for_one(asked: Asked) -> None:
    with refused("chain", ANY, "+model@chain.between.NAME=OPTION"):
        plan(asked("chain=ladder", *pythias(weak=70, strong=1400)))


def test_a_model_without_a_ladder_is_no_rung(asked: Asked) -> None:
    with refused("chain.between.mine"):
        asked("chain=ladder", "+model@chain.between.mine=hub", "chain.between.mine.id=distilgpt2")


def test_rungs_of_your_own_come_in_the_order_of_their_heights(asked: Asked) -> None:
    run = asked("chain=ladder", *pythias(weak=14, chain_between_one=1400, chain_between_two=410, strong=2800))
    assert [model.height for model in run.chain.hops(run.weak, run.strong).values()] == [410, 1400]


def test_labels_are_refined_by_the_model_that_the_student_begins_as(asked: Asked) -> None:
    run = asked("data=world_classes", "refinement=world")
    stages = plan(run)
    refined, student = stages["refine/student"], stages["train/student"].inputs
    assert student["labels"] is refined
    assert {role: stage.key for role, stage in refined.inputs.items()} == {
        "base": student["base"].key,
        "labels": stages["label/weak"].key,
    }
    assert (refined.params["model"], refined.params["context"]) == (run.strong, run.data.max_tokens)


@pytest.mark.parametrize("rounds", [0, -1, 101])
def test_an_impossible_number_of_rounds_is_refused(asked: Asked, rounds: int) -> None:
    with refused("chain.rounds", rounds, accepted="1 100"):
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
