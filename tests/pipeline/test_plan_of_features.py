"""The graph of a run whose parts read features: each split of a model is read once, and nobody else's key changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.pipeline.graphs import keys, roles
from w2sd.config import RunConfig
from w2sd.parts.adapter import HeadOnly
from w2sd.pipeline.plan import plan

BOOTSTRAP = ["chain=bootstrap", "+model@chain.between.two=world_m"]


def test_a_linear_probe_reads_features_in_the_place_of_a_model(asked: Callable[..., RunConfig]) -> None:
    found = roles(plan(asked("adapter=linear_probe")))
    assert found["features/weak_gt_last"] == {"base": "pretrain/weak"}
    assert found["train/weak"] == {"features": "features/weak_gt_last"}
    assert found["label/weak"] == {"model": "train/weak", "features": "features/weak_w2s_last"}
    assert found["evaluate/weak"] == {"model": "train/weak", "features": "features/weak_test_last"}
    assert found["train/ceiling"] == {"features": "features/ceiling_gt_last"}
    assert found["train/student"] == {"features": "features/student_w2s_last", "labels": "label/weak"}
    assert found["evaluate/student"] == {
        "model": "train/student",
        "features": "features/ceiling_test_last",  # the ceiling begins as the same model
        "weak": "evaluate/weak",
        "ceiling": "evaluate/ceiling",
    }
    assert found["compare"] == {
        **{role: f"evaluate/{role}" for role in ("weak", "ceiling", "student")},
        "saliency_features": "features/student_w2s_last",
        "saliency_labels": "label/weak",
    }


def test_arms_and_seeds_share_what_was_read(asked: Callable[..., RunConfig]) -> None:
    """Six reads of three splits by two models, of which the student's own is of one; whatever the arms."""
    read = set()
    for overrides in ([], ["seed=1"], ["conflict=implicit", "controls=true"], ["supervision=hard"], ["fit.lr=1"]):
        stages = plan(asked("adapter=linear_probe", *overrides))
        read |= {stage.key for stage in stages.values() if stage.kind == "features"}
    assert len(read) == 6
    other = plan(asked("adapter=linear_probe", "fit.precision=bf16-mixed"))
    assert not read & {stage.key for stage in other.values() if stage.kind == "features"}


@pytest.mark.parametrize("overrides", [[], ["objective=dpo"], BOOTSTRAP], ids=["reward", "policy", "chain"])
def test_a_supervision_that_asks_a_probe_adds_features_of_where_each_student_begins(
    asked: Callable[..., RunConfig], overrides: list[str]
) -> None:
    plain, probed = plan(asked(*overrides)), plan(asked(*overrides, "supervision=filtered"))
    students = [name for name in probed if name.startswith("train/student")]
    assert len(students) == (3 if overrides == BOOTSTRAP else 1)
    for name in students:
        stage = probed[name].inputs["probed"]
        assert (stage.kind, stage.params["split"], stage.params["layer"]) == ("features", "w2s", "middle")
        assert stage.params["model"] == probed[name].params["model"]
        assert {made.kind for made in stage.inputs.values()} == {"pretrain"}
        assert stage in probed.values()
    assert probed["compare"].inputs["saliency_features"] is probed["train/student"].inputs["probed"]
    added = {name for name in probed if name not in plain}
    assert {probed[name].kind for name in added} == {"features"}
    above = [
        name
        for name in plain
        if plain[name].kind == "pretrain" or name in ("train/weak", "label/weak", "train/ceiling")
    ]
    assert all(plain[name].key == probed[name].key for name in above)


def test_a_probe_of_two_layers_reads_both(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked("adapter=linear_probe", "supervision=relabelled"))
    student = stages["train/student"].inputs
    assert student["features"].params["layer"] == "last"
    assert student["probed"].params["layer"] == "middle"
    assert {student["features"], student["probed"]} <= set(stages.values())
    same = plan(asked("adapter=linear_probe", "supervision=relabelled", "supervision.layer=last"))["train/student"]
    assert same.inputs["features"].key == same.inputs["probed"].key == student["features"].key


def test_who_asks_for_no_features_has_none_and_keeps_every_key(asked: Callable[..., RunConfig]) -> None:
    for overrides in ([], ["objective=dpo"], ["adapter=head_only"], ["conflict=implicit", "supervision=synthetic"]):
        stages = plan(asked(*overrides))
        assert not any(stage.kind == "features" for stage in stages.values())
        assert not any(
            role in ("features", "probed") or role.startswith("saliency")
            for stage in stages.values()
            for role in stage.inputs
        )


def test_without_weak_labels_there_is_no_saliency(asked: Callable[..., RunConfig]) -> None:
    found = plan(asked("adapter=linear_probe", "supervision=gold"))["compare"].inputs
    assert set(found) == {"weak", "ceiling", "student"}


def test_the_layer_is_part_of_what_is_trained_on_it(asked: Callable[..., RunConfig]) -> None:
    run = asked("adapter=linear_probe")
    before, after = keys(run), keys(run._replace(adapter=replace(run.adapter, layer="middle")))
    assert before["train/student"] != after["train/student"]
    assert before["pretrain/strong"] == after["pretrain/strong"]
    assert keys(run._replace(adapter=HeadOnly()))["train/student"] not in (
        before["train/student"],
        after["train/student"],
    )
