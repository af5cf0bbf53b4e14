"""What a plan says of the work that there is to do: sizes of models, rows, memory and operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2Model

from w2sd.chess.model import ChessModel
from w2sd.config import RunConfig
from w2sd.errors import Refused
from w2sd.models.hub import Hub
from w2sd.models.scratch import ARCHITECTURES, Scratch
from w2sd.pipeline.plan import plan
from w2sd.pipeline.progress import show_plan
from w2sd.pipeline.workload import Workload, quantity, size, workload
from w2sd.world import ladder
from w2sd.world.game import GameRung
from w2sd.world.ladder import Rung


def scratch(folder: Path, architecture: str) -> Scratch:
    ladder.tokenizer().save_pretrained(folder)
    return Scratch(architecture, width=32, tokenizer=str(folder))


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: Rung(rung=3, width=64, layers=2, heads=4, lr=0.005),
        lambda folder: GameRung(rung=1, width=32, layers=1, heads=2, lr=0.005),
        lambda folder: ChessModel(),
        *(lambda folder, name=name: scratch(folder, name) for name in ARCHITECTURES),
    ],
)
def test_a_plan_has_the_sizes_of_the_model_that_is_opened(make: Callable[[Path], Any], tmp_path: Path) -> None:
    model = make(tmp_path)
    told = size(model.sizes())
    assert told is not None
    assert told == size(json.loads(model.open_config().to_json_string()))


CONFIG = GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=32, vocab_size=300)


def test_a_folder_tells_its_sizes(tmp_path: Path) -> None:
    GPT2Model(CONFIG).save_pretrained(tmp_path)
    assert size(Hub(str(tmp_path)).sizes()) == size(json.loads(CONFIG.to_json_string()))


@pytest.mark.parametrize("revision", ["", "v2", "0" * 40])
def test_a_model_of_the_hub_tells_its_sizes_once_it_is_here(
    revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model, commit = Hub("somebody/tiny", revision=revision), "0" * 40
    assert size(model.sizes()) is None
    here = tmp_path / "models--somebody--tiny"
    (here / "refs").mkdir(parents=True)
    if len(revision) < 40:
        (here / "refs" / (revision or "main")).write_text(commit)
    CONFIG.save_pretrained(here / "snapshots" / commit)
    assert size(model.sizes()) == size(json.loads(CONFIG.to_json_string()))
    (here / "snapshots" / commit / "config.json").write_text("{")
    with pytest.raises(Refused) as refused:
        model.sizes()
    assert refused.value.knob == "id"


def works(run: RunConfig) -> dict[str, Workload | None]:
    return {name: workload(stage) for name, stage in plan(run).items()}


def test_rows_are_those_that_a_stage_reads(asked: Callable[..., RunConfig]) -> None:
    world = ("data.gt=200", "data.w2s=100", "data.w2s_parts=3", "data.helpful=60", "data.unrelated=40")
    tested = ("data.test=500", "data.helpful_test=50")
    found = works(asked(*world, *tested, "conflict=implicit", "conflict.ratio=0.5"))
    rows = {name: None if work is None else work.rows for name, work in found.items()}
    assert rows["pretrain/weak"] == 12_800
    assert rows["train/weak"] == 200
    assert rows["label/weak"] == 3 * 100 + 60 + 40
    assert rows["train/baseline"] == 100
    assert rows["train/student"] == 150
    assert rows["evaluate/student"] == 550
    assert found["compare"] is None


def test_training_holds_gradients_and_moments_and_takes_three_times_as_much(asked: Callable[..., RunConfig]) -> None:
    found = works(asked("data.gt=100", "data.test=100", "data.helpful_test=2", "fit.epochs=4"))
    trained, scored = found["train/ceiling"], found["evaluate/ceiling"]
    assert trained is not None
    assert scored is not None
    assert trained.parameters == scored.parameters == pytest.approx(133e3, rel=0.02)
    assert trained.memory == 4 * scored.memory == 16 * trained.parameters  # type: ignore[operator]
    assert trained.flops / trained.rows == pytest.approx(12 * scored.flops / scored.rows)  # type: ignore[operator]


def test_what_is_frozen_needs_neither(asked: Callable[..., RunConfig]) -> None:
    trained = works(asked("adapter=head_only"))["train/ceiling"]
    assert trained is not None
    assert trained.memory == 4 * trained.parameters  # type: ignore[operator]


def test_a_linear_probe_runs_no_transformer(asked: Callable[..., RunConfig]) -> None:
    found = works(asked("adapter=linear_probe", "fit=probe"))
    trained, read = found["train/weak"], found["features/weak_gt_last"]
    assert trained is not None
    assert read is not None
    assert (trained.memory, trained.flops) == (0, 0)
    assert read.flops > 0  # type: ignore[operator]


def test_what_is_not_known_before_the_run_is_a_question_mark(
    asked: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    stages = plan(asked("model@weak=gpt2"))
    _, *lines, estimates, _ = show_plan(stages, dict.fromkeys(stages, "to do")).splitlines()
    [weak] = [line for line in lines if line.startswith("train/weak ")]
    assert weak.split()[4:] == ["?", "1,024", "?", "?"]
    assert "and what is not known" in estimates


def test_a_stage_in_the_store_is_no_work(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked())
    shown = show_plan(stages, dict.fromkeys(stages, "cached"))
    assert "FLOP" not in shown.partition("\n")[2]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "", "999"),
        (999.7, "B", "1 kB"),
        (124_439_808, "", "124 M"),
        (1.2e9, "B", "1.2 GB"),
        (3.4e12, "FLOP", "3.4 TFLOP"),
        (5e21, "FLOP", "5e+03 EFLOP"),
        (None, "B", "?"),
    ],
)
def test_quantities_are_short(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_a_part_of_ones_own_may_say_nothing_of_its_size(asked: Callable[..., RunConfig]) -> None:
    """Neither a model without `sizes`, nor one of an architecture that is not known, keeps a plan from being shown."""
    run = asked()

    class Own(type(run.strong)):  # type: ignore[misc]
        sizes = property(lambda self: dict)

    own = Own(rung=3, width=64, layers=2, heads=4, lr=0.005)
    found = workload(plan(run._replace(strong=own))["train/ceiling"])
    assert found == Workload(None, 1024, None, None)
