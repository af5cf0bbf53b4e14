"""Stages: what they write is the contract, what the student is taught follows the slots, both measurements are one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.builders import figures_of
from tests.stages.chain import Chain
from w2sd.atomic import read_json, write_json
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.conflicts.implicit import Implicit
from w2sd.data import pairs as data
from w2sd.data.loader import Loader
from w2sd.data.pairs import Pair, coin
from w2sd.errors import StageFailed
from w2sd.metrics.accuracy import accuracy, pgr
from w2sd.models.heads import RewardModel
from w2sd.models.scratch import Scratch
from w2sd.objectives.logconf import LogConf
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Task
from w2sd.predictions import read_predictions, write_predictions
from w2sd.stages import compare, engine, evaluate, label, pretrain, train, training_targets
from w2sd.students.student import RewardStudent
from w2sd.supervision.base import Lesson, Supervision
from w2sd.supervision.cleaning import Filtered
from w2sd.supervision.oracle import Gold, NoisyGold, OracleConfident, Synthetic
from w2sd.supervision.teacher import Confident, Hard, Soft, TwoStage

OVERRIDES = [
    *("data.gt=64", "data.w2s=64", "data.w2s_parts=2", "data.test=100"),
    *("data.helpful=16", "data.helpful_test=16", "data.unrelated=16"),
    *("weak.width=8", "weak.layers=1", "weak.heads=2", "strong.width=12", "strong.layers=1", "strong.heads=2"),
    *("fit.epochs=1", "seed=5"),
]
CONTRACT = {
    "id": pa.string(),
    "cluster": pa.string(),
    "margin": pa.float64(),
    "p_correct": pa.float64(),
    "n_prompt": pa.int32(),
    "n_chosen": pa.int32(),
    "n_rejected": pa.int32(),
}
OF_THE_WORLD = {"stratum": pa.string(), "known": pa.bool_()}


def schema(path: Path, file: str = "predictions.parquet") -> dict[str, pa.DataType]:
    return {field.name: field.type for field in pq.read_schema(path / file)}


def column(path: Path, name: str, file: str = "predictions.parquet") -> list[Any]:
    return pq.read_table(path / file)[name].to_pylist()


def metrics(path: Path) -> dict[str, Any]:
    return json.loads((path / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["evaluate/weak", "evaluate/ceiling", "evaluate/student"])
def test_an_evaluation_has_the_columns_of_the_contract_and_of_the_world(chain: Chain, name: str) -> None:
    assert schema(chain.folder(name)) == CONTRACT | OF_THE_WORLD


def test_labels_are_raw_predictions_and_never_targets(chain: Chain) -> None:
    """The same file serves every supervision: which one is asked for does not even rename it."""
    columns = schema(chain.folder("label/weak"))
    assert {name: columns[name] for name in CONTRACT} == CONTRACT
    assert columns.keys() <= CONTRACT.keys() | OF_THE_WORLD.keys()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        hard = plan(read(hydra.compose("config", [*OVERRIDES, "supervision=hard"])))
    assert hard["label/weak"].key == chain.stages["label/weak"].key
    assert hard["train/student"].key != chain.stages["train/student"].key


@pytest.mark.parametrize(
    ("name", "n"), [("label/weak", 160), ("evaluate/weak", 100), ("evaluate/ceiling", 100), ("evaluate/student", 100)]
)
def test_the_rows_are_those_of_the_split_once_and_in_order(chain: Chain, name: str, n: int) -> None:
    """Labels are given to all of w2s, whatever facet and part, because an arm may be taught on any of it."""
    folder, pairs = chain.folder(name), chain.scored(name)
    assert len(pairs) == n
    assert column(folder, "id") == [pair.id for pair in pairs]
    assert column(folder, "cluster") == [pair.cluster for pair in pairs]
    assert set(column(folder, "n_prompt")) == {3}
    assert set(column(folder, "n_chosen") + column(folder, "n_rejected")) == {5}
    assert metrics(folder)["n/pairs"] == len(pairs)


@pytest.mark.parametrize(("name", "rung"), [("evaluate/weak", 1), ("evaluate/ceiling", 3), ("evaluate/student", 3)])
def test_the_world_knows_who_was_taught_what(chain: Chain, name: str, rung: int) -> None:
    folder, pairs = chain.folder(name), chain.pairs("test")
    assert column(folder, "stratum") == [pair.stratum for pair in pairs]
    assert column(folder, "known") == chain.run.data.known(pairs, rung).tolist()
    assert sum(column(folder, "known")) < 100 or rung == 3


def test_labels_are_about_every_facet_and_part_of_the_split(chain: Chain) -> None:
    kinds = Counter((pair.facet, pair.part) for pair in chain.scored("label/weak"))
    assert kinds == {("harmless", 0): 64, ("harmless", 1): 64, ("helpful", 0): 16, ("unrelated", 0): 16}


@pytest.mark.parametrize("name", ["weak", "ceiling", "student"])
def test_an_evaluation_has_the_held_out_helpful_pairs_beside_it(chain: Chain, name: str) -> None:
    folder, pairs = chain.folder(f"evaluate/{name}"), chain.table.rows("test", data.CONFLICTING)
    assert schema(folder, "helpful.parquet") == CONTRACT | OF_THE_WORLD
    assert column(folder, "id", "helpful.parquet") == [pair.id for pair in pairs]
    assert set(column(folder, "known", "helpful.parquet")) == {True}
    predictions = read_predictions(folder / "helpful.parquet")
    assert predictions.margin == pytest.approx(margins_by_hand(chain.folder(f"train/{name}"), pairs), abs=1e-5)
    assert metrics(folder)["helpful/accuracy"] == accuracy(predictions.p_correct)


def test_without_held_out_helpful_pairs_there_is_no_accuracy_on_them(
    chain: Chain, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [pair for pair in chain.table.examples if (pair.split, pair.facet) != ("test", data.CONFLICTING)]
    monkeypatch.setattr(evaluate, "read", lambda source: data.Table(silent, {}))
    at = task("evaluate/student")
    said, expected = evaluate.run(at), metrics(chain.folder("evaluate/student"))
    assert said == {name: value for name, value in expected.items() if name != "helpful/accuracy"}
    assert [path.name for path in at.out.iterdir()] == ["predictions.parquet"]


@torch.no_grad()
def margins_by_hand(folder: Path, pairs: list[Pair]) -> list[float]:
    """Score of the better answer minus that of the worse, text by text."""
    model, tokenizer = RewardModel.load(folder).eval(), AutoTokenizer.from_pretrained(folder / "model")

    def score(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return model.head(model.backbone(input_ids=ids).last_hidden_state[0, -1]).item()

    return [score(pair.prompt + pair.chosen) - score(pair.prompt + pair.rejected) for pair in pairs]


@pytest.mark.parametrize(("name", "trained"), [("label/weak", "train/weak"), ("evaluate/student", "train/student")])
def test_predictions_are_what_the_saved_model_says_of_the_text(chain: Chain, name: str, trained: str) -> None:
    expected = np.array(margins_by_hand(chain.folder(trained), chain.scored(name)))
    assert expected.std() > 1e-4
    predictions = read_predictions(chain.folder(name) / "predictions.parquet")
    assert predictions.margin == pytest.approx(expected, abs=1e-5)
    assert predictions.p_correct == pytest.approx(1 / (1 + np.exp(-predictions.margin)), abs=1e-12)


@pytest.mark.parametrize("name", ["label/weak", "evaluate/student"])
def test_scoring_again_writes_the_same_bytes_whatever_the_memory(
    chain: Chain, task: Callable[..., Task], name: str
) -> None:
    stage = {"label": label, "evaluate": evaluate}[name.partition("/")[0]]
    written = (chain.folder(name) / "predictions.parquet").read_bytes()
    again, thrifty = task(name), task(name)._replace(trainer=Trainer(micro_tokens=48))
    assert stage.run(again) == metrics(chain.folder(name))
    assert (again.out / "predictions.parquet").read_bytes() == written
    stage.run(thrifty)
    cut_up = read_predictions(thrifty.out / "predictions.parquet")
    assert cut_up.margin == pytest.approx(read_predictions(again.out / "predictions.parquet").margin, abs=1e-5)


def references(folder: Path, pairs: list[Pair], **right: float) -> dict[str, Path]:
    """Evaluations of models that are right on so large a share of the pairs."""
    folders = {}
    for role, share in right.items():
        p = np.where(np.arange(len(pairs)) % 20 < round(20 * share), 0.8, 0.3)
        columns = {"id": [pair.id for pair in pairs], "cluster": [pair.cluster for pair in pairs]}
        folders[role] = folder / role
        folders[role].mkdir()
        write_predictions(
            folders[role] / "predictions.parquet", columns | {"margin": np.log(p / (1 - p)), "p_correct": p}
        )
        write_json(folders[role] / "metrics.json", {"n/steps": round(100 * share)})
    return folders


def examine(task: Task) -> dict[str, Any]:
    """An evaluation, finished as the worker finishes it."""
    logged = evaluate.run(task)
    write_json(task.out / "metrics.json", logged)
    return logged


def test_what_the_student_logs_is_what_the_comparison_finds(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    others = references(tmp_path, chain.pairs("test"), weak=0.3, ceiling=0.95)
    examined = task("evaluate/student", **others)
    logged = examine(examined)
    comparison = task("compare", **others, student=examined.out)
    compared = compare.run(comparison) | read_json(comparison.out / "diagnostics.json")
    assert compared["accuracy/weak"] == pytest.approx(0.3)
    assert compared["accuracy/ceiling"] == pytest.approx(0.95)
    assert compared["pgr"] is not None
    assert logged["accuracy"] == pytest.approx(compared["accuracy/student"], abs=1e-12)
    assert logged["pgr"] == pytest.approx(compared["pgr"], abs=1e-12)
    assert logged["pgr"] == pgr(0.3, logged["accuracy"], 0.95)
    assert logged["n/pairs"] == compared["n/test"] == 100
    assert [compared[f"steps/{role}"] for role in ("weak", "student", "ceiling")] == [30, 2, 95]
    assert compared["helpful/accuracy/student"] == logged["helpful/accuracy"]
    assert "helpful/accuracy/weak" not in compared  # it was not measured there


@pytest.mark.parametrize("ceiling", [0.3, 0.25])
def test_pgr_without_a_gap_is_null_in_both(
    chain: Chain, task: Callable[..., Task], tmp_path: Path, ceiling: float
) -> None:
    others = references(tmp_path, chain.pairs("test"), weak=0.3, ceiling=ceiling)
    examined = task("evaluate/student", **others)
    assert examine(examined)["pgr"] is None
    assert compare.run(task("compare", **others, student=examined.out))["pgr"] is None


def test_the_chain_agrees_with_itself(chain: Chain) -> None:
    compared = figures_of(chain.folder("compare"))
    for role in ("weak", "student", "ceiling"):
        evaluated = metrics(chain.folder(f"evaluate/{role}"))
        assert evaluated["accuracy"] == pytest.approx(compared[f"accuracy/{role}"], abs=1e-12)
        assert ("pgr" in evaluated) is (role == "student")
        assert evaluated["helpful/accuracy"] == compared[f"helpful/accuracy/{role}"]
        steps = metrics(chain.folder(f"train/{role}"))["n/steps"]
        assert [steps, evaluated["n/steps"], compared[f"steps/{role}"]] == [2, 2, 2]
    assert {name: compared[f"data/n_{name}"] for name in data.SPLITS} == {"gt": 64, "w2s": 64, "test": 100}
    assert {compared[f"data/dropped_{reason}"] for reason in ("equal_sides", "duplicates", "leaks")} == {0}


def test_labels_say_how_good_they_are_where_they_are_meant(chain: Chain) -> None:
    """On the pairs that weak supervision is about: of the others the teacher knows nothing."""
    folder = chain.folder("label/weak")
    predictions = read_predictions(folder / "predictions.parquet")
    about = np.array([pair.facet == data.TARGET for pair in chain.scored("label/weak")])
    assert about.sum() == 128
    assert metrics(folder) == {"n/pairs": 160, "accuracy": accuracy(predictions.p_correct[about])}


def test_a_pair_without_a_prediction_to_compare_with_stops_the_evaluation(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    others = references(tmp_path, chain.pairs("test")[:-3], weak=0.3, ceiling=0.9)
    with pytest.raises(StageFailed, match=r"\b3 of 100\b"):
        evaluate.run(task("evaluate/student", **others))


def labels(folder: Path, pairs: list[Pair], p_correct: np.ndarray) -> Path:
    """A teacher's predictions."""
    folder.mkdir(exist_ok=True)
    columns = {"id": [pair.id for pair in pairs], "cluster": [pair.cluster for pair in pairs]}
    numbers = {"margin": np.log(p_correct / (1 - p_correct)), "p_correct": p_correct}
    write_predictions(folder / "predictions.parquet", columns | numbers)
    return folder


def test_targets_follow_the_slots(chain: Chain, task: Callable[..., Task], tmp_path: Path) -> None:
    """P(first is better): what the teacher thinks of the better answer, or one minus that where it stands second."""
    pairs = chain.pairs("w2s")
    p = np.random.default_rng(0).uniform(0.05, 0.95, len(pairs))
    order = np.random.default_rng(1).permutation(len(pairs))  # the file may have any order
    teacher = labels(tmp_path, [pairs[n] for n in order], p[order])
    same, soft_N2 = training_targets.supervised(task("train/student", labels=teacher), pairs)
    soft = soft_N2[:, 0]
    coins = np.array([coin(pair.id) for pair in pairs])
    assert 0 < coins.sum() < len(pairs)
    assert same == pairs
    assert np.array_equal(soft[~coins], p[~coins])
    assert np.array_equal(soft[coins], 1 - p[coins])

    _, hard = training_targets.supervised(task("train/student", {"supervision": Hard()}, labels=teacher), pairs)
    assert np.array_equal(hard[:, 0], (soft > 0.5).astype(float))
    assert np.array_equal(hard[:, 1], (soft < 0.5).astype(float))


def test_without_a_teacher_the_targets_are_the_truth(chain: Chain, task: Callable[..., Task]) -> None:
    pairs = chain.pairs("gt")
    same, targets = training_targets.supervised(task("train/weak"), pairs)
    assert same == pairs
    assert targets.tolist() == [[0.0, 1.0] if coin(pair.id) else [1.0, 0.0] for pair in pairs]


def test_pairs_that_the_teacher_could_not_read_are_left_out(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    pairs = chain.pairs("w2s")
    teacher = labels(tmp_path, pairs[:40], np.full(40, 0.75))
    kept, targets = training_targets.supervised(task("train/student", labels=teacher), pairs)
    assert kept == pairs[:40]
    assert set(targets[:, 0]) == set(targets[:, 1]) == {0.25, 0.75}

    ceiling = labels(tmp_path / "ceiling", pairs[10:], np.full(54, 0.9))
    synthetic = task("train/student", {"supervision": Synthetic()}, labels=teacher, ceiling_labels=ceiling)
    assert training_targets.supervised(synthetic, pairs)[0] == pairs[10:40]  # nor those that the ceiling could not read


SUPERVISIONS = [Soft(), Hard(), Confident(0.6), OracleConfident(0.6), Gold(), NoisyGold(), Synthetic("hardest")]


@pytest.mark.parametrize("supervision", SUPERVISIONS, ids=lambda supervision: type(supervision).__name__)
def test_a_supervision_is_told_what_it_asks_for_and_nothing_else(
    chain: Chain, task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supervision: Supervision
) -> None:
    """Slots, truth, lengths and the ceiling's confidence, row by row; rows without a target are left out."""
    pairs = chain.pairs("w2s")
    weak, strong = np.random.default_rng(0).uniform(0.05, 0.95, size=(2, len(pairs)))
    folders = {
        "labels": labels(tmp_path / "weak", pairs, weak),
        "ceiling_labels": labels(tmp_path / "strong", pairs, strong),
    }
    needed = {"labels": supervision.needs_teacher, "ceiling_labels": supervision.needs_ceiling}
    at = task("train/student", {"supervision": supervision})
    at = at._replace(inputs={role: folder for role, folder in folders.items() if needed[role]})
    told_of: list[Lesson] = []
    targets = type(supervision).targets
    monkeypatch.setattr(
        type(supervision), "targets", lambda self, lesson: targets(self, told_of.append(lesson) or lesson)
    )
    kept, taught = training_targets.supervised(at, pairs)

    [lesson] = told_of
    swapped = np.array([coin(pair.id) for pair in pairs])
    p_first = np.where(swapped, 1 - weak, weak) if supervision.needs_teacher else np.full(len(pairs), 0.5)
    assert np.array_equal(lesson.p_NK[:, 0], p_first)
    assert np.allclose(lesson.p_NK.sum(axis=1), 1)
    assert 0 <= lesson.noise.min() <= lesson.noise.max() < 1
    assert len(set(lesson.noise)) == len(pairs)
    lengths = [len(pair.prompt + pair.chosen + pair.rejected) for pair in pairs]
    told = {"truth": swapped, "length": lengths} if supervision.reads_truth else {}
    told |= {"p_ceiling": strong} if supervision.needs_ceiling else {}
    for name in ("truth", "length", "p_ceiling"):
        value = getattr(lesson, name)
        assert (value is not None) == (name in told)
        assert value is None or np.array_equal(value, told[name])

    expected = targets(supervision, lesson)
    has_target = ~np.isnan(expected[:, 0])
    assert kept == [pair for pair, has in zip(pairs, has_target, strict=True) if has]
    assert np.array_equal(taught, expected[has_target])
    if isinstance(supervision, Confident | OracleConfident):
        assert 2 < len(kept) < len(pairs)


def test_in_two_stages_a_row_is_told_with_what_both_models_say_of_it(
    chain: Chain, task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that one of the two could not read are left out."""
    pairs = chain.pairs("w2s")
    teacher, student = np.random.default_rng(0).uniform(0.05, 0.95, size=(2, len(pairs)))
    at = task("train/student", {"supervision": TwoStage(threshold=0.5, samples=1)})
    second = labels(tmp_path / "student", pairs[2:], student[2:])
    at = at._replace(inputs={"labels": labels(tmp_path / "weak", pairs[:-1], teacher[:-1]), "second_labels": second})
    told: list[Lesson] = []
    monkeypatch.setattr(TwoStage, "targets", lambda self, lesson: told.append(lesson) or lesson.p_NK)
    assert training_targets.supervised(at, pairs)[0] == pairs[2:-1]
    swapped = np.array([coin(pair.id) for pair in pairs[2:-1]])
    for said, p in ((told[0].p_NK, teacher[2:-1]), (told[0].p_second_NK, student[2:-1])):
        assert np.array_equal(said[:, 0], np.where(swapped, 1 - p, p))


def test_a_supervision_that_leaves_nothing_to_train_on_stops_the_stage(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    pairs = chain.pairs("w2s")
    teacher = labels(tmp_path, pairs, np.where(np.arange(64) < 1, 0.9, 0.7))
    with pytest.raises(StageFailed, match=r"\b1 of 64\b.* supervision\.threshold=0\.8\b"):
        training_targets.supervised(task("train/student", {"supervision": Confident(0.8)}, labels=teacher), pairs)


def test_what_leaves_too_few_rows_names_the_knob_that_it_has() -> None:
    assert training_targets._remedy(Confident(0.999)) == "lower supervision.threshold=0.999"
    assert training_targets._remedy(Filtered(share=0.99)) == "lower supervision.share=0.99"
    assert training_targets._remedy(Filtered("topological", k=7)) == "raise supervision.k=7"
    assert training_targets._remedy(Soft()) == "choose another one"


def test_rows_too_few_for_a_threshold_stop_the_stage_before_it_trains(task: Callable[..., Task]) -> None:
    """Which the plan, that reads no rows, does not see."""
    at = task("train/student", {"objective": LogConf(min_rows=65)})
    with pytest.raises(StageFailed, match=r"^objective\.min_rows: 65 .*\b64\b"):
        train.run(at)
    assert not list(at.logs.iterdir())


@pytest.mark.parametrize("supervision", [Soft(), Hard()])
def test_what_the_student_reads_is_each_pair_in_its_slots_with_the_target_of_its_first(
    chain: Chain, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, supervision: Any
) -> None:
    """The whole way from text and labels to rows, and the extra rows of a conflict after them."""
    seen: dict[str, Loader] = {}
    monkeypatch.setattr(engine, "train", lambda task, learner, loader, *_: seen.update(loader=loader))
    at = task("train/student", {"conflict": Implicit(ratio=0.25), "supervision": supervision})
    result = train.run(at)

    teacher = read_predictions(chain.folder("label/weak") / "predictions.parquet")
    p_correct = dict(zip(teacher.ids, teacher.p_correct, strict=True))
    tokenizer = chain.run.strong.open_tokenizer()
    helpful = chain.table.rows("w2s", data.CONFLICTING)
    expected = []
    for pair in [*chain.pairs("w2s"), *helpful]:
        p = 1.0 if pair.facet == data.CONFLICTING else p_correct[pair.id]
        p = float(p > 0.5) if isinstance(supervision, Hard) else p
        first, second, target = pair.chosen, pair.rejected, p
        if coin(pair.id):
            first, second, target = pair.rejected, pair.chosen, 1 - p
        texts = [tokenizer(pair.prompt + answer)["input_ids"] for answer in (first, second)]
        expected.append((*texts, target))
    rows = seen["loader"].rows
    actual = [
        (*([*text.prompt, *side] for side in text.answers), target)
        for text, target in zip(rows.texts, rows.targets, strict=True)
    ]
    assert actual == expected
    assert result["n/pairs"] == len(expected) == 64 + len(helpful) == 80
    assert result["n/extra"] == len(helpful) == 16


@pytest.mark.parametrize("name", ["train/student", "label/weak", "evaluate/student"])
def test_how_fast_a_stage_read_is_told_beside_what_it_measured(chain: Chain, name: str) -> None:
    folder = chain.folder(name)
    told = json.loads((folder / "runtime.json").read_text())
    names = "pairs_per_s pairs_per_cpu_s tokens_per_s padding packed seconds setup_seconds"
    assert {f"throughput/{part}" for part in names.split()} == {part for part in told if part.startswith("throughput")}
    assert 0 <= told["throughput/padding"] < 1
    assert told["throughput/packed"] is True
    assert 0 < told["throughput/setup_seconds"] < told["seconds"]
    assert told["throughput/setup_seconds"] + told["throughput/seconds"] <= told["seconds"] + 0.01
    assert not any(part.startswith(("throughput", "memory")) for part in metrics(folder))
    timed = name == "train/student"  # the others read all of their pairs at once here
    rates = [told[f"throughput/{part}"] for part in ("pairs_per_s", "pairs_per_cpu_s", "tokens_per_s")]
    assert all(rate > 0 for rate in rates) if timed else rates == [None] * 3


def test_a_stage_that_reads_no_tokens_tells_of_its_memory_alone(chain: Chain) -> None:
    told = json.loads((chain.folder("compare") / "runtime.json").read_text())
    assert told["memory/peak_rss_mb"] > 0
    assert not any(part.startswith("throughput") for part in told)


def test_a_training_says_how_much_it_trained(chain: Chain) -> None:
    said = metrics(chain.folder("train/student"))
    model = RewardModel.load(chain.folder("train/student"))
    n = sum(weights.numel() for weights in model.parameters())
    assert said == {
        "n/pairs": 64,
        "n/extra": 0,
        "n/steps": 2,
        "n/parameters": n,
        "n/trained": n,
        "n/truncated_prompts": 0,
        "n/dropped_long": 0,
    }


def test_training_again_gives_the_same_weights_and_another_seed_does_not(
    chain: Chain, task: Callable[..., Task]
) -> None:
    names = ("head.safetensors", "model/model.safetensors")
    saved = {name: (chain.folder("train/student") / name).read_bytes() for name in names}
    again, other = task("train/student"), task("train/student", {"seed": 6})
    torch.manual_seed(123)
    train.run(again)
    train.run(other)
    assert {name: (again.out / name).read_bytes() for name in saved} == saved
    assert all((other.out / name).read_bytes() != content for name, content in saved.items())


def test_weak_model_ceiling_and_student_draw_other_numbers_under_one_seed(
    chain: Chain, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student has neither the head nor the order of rows of its ceiling, whatever their seeds."""
    heads: dict[str, torch.Tensor] = {}
    seeds: dict[str, set[int]] = {}

    def seen(role: str) -> Callable[..., None]:
        def watch(task: Task, learner: Any, loader: Loader, *_: Any) -> None:
            heads[role] = learner.model.head.weight.detach().clone()
            seeds[role] = {task.stream, loader.batches.seed}

        return watch

    for role in ("weak", "ceiling", "student"):
        at = task(f"train/{role}", {"seed": 0})
        monkeypatch.setattr(engine, "train", seen(role))
        train.run(at)
    assert all(len(of_role) == 1 for of_role in seeds.values())
    assert len(set.union(*seeds.values())) == 3
    assert heads["ceiling"].shape == heads["student"].shape
    assert not (heads["ceiling"] == heads["student"]).any()


def test_every_part_of_a_model_is_in_train_mode_while_it_is_trained(
    task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, RewardStudent] = {}
    monkeypatch.setattr(engine, "train", lambda task, learner, *_: seen.update(learner=learner))
    train.run(task("train/student"))
    assert all(module.training for module in seen["learner"].modules())


def test_a_training_that_diverges_says_so_and_writes_nothing(task: Callable[..., Task]) -> None:
    at = task("train/weak", {"fit": Fit(lr=1e30, batch=16)})
    with pytest.raises(StageFailed, match=r"\b(nan|inf)\b.*\b1\b.*1e\+30"):
        train.run(at)
    assert not list(at.out.iterdir())


def test_own_text_is_pretrained_on_and_then_trained_from(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    chain.run.weak.open_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "own.txt").write_text("user: topic1 bot: ent3 haz0 . ent4 safe1 . " * 60)
    part = Scratch(
        "llama", width=8, layers=1, heads=2, context=12, tokenizer=str(tmp_path / "tokenizer"),
        corpus=str(tmp_path / "own.txt"), batch=8, lr=1e-2,
    )  # fmt: skip
    first = task("pretrain/weak", {"model": part, "text": part.text(None)})
    second = first._replace(out=task("pretrain/weak").out, trainer=Trainer(micro_tokens=24))
    said = pretrain.run(first)
    assert said["n/documents"] == 60 * 9 // 12
    assert said["n/steps"] == 6
    assert (first.logs / "metrics.csv").is_file()
    model = AutoModelForCausalLM.from_pretrained(first.out / "model")
    assert said["n/parameters"] == model.num_parameters()
    assert AutoTokenizer.from_pretrained(first.out / "model")("ent3")["input_ids"] == [31]

    pretrain.run(second)
    other = AutoModelForCausalLM.from_pretrained(second.out / "model")
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=1e-3)

    trained = task("train/weak", {"model": part, "fit": Fit(lr=1e-12, batch=64)}, base=first.out)
    train.run(trained)
    start = model.get_input_embeddings().weight
    torch.testing.assert_close(RewardModel.load(trained.out).backbone.get_input_embeddings().weight, start)
