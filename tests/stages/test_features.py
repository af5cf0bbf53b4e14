"""Features: read once, of every row, and whatever reads them is what it would be if it had read the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedModel

from tests.builders import figures_of, refused
from tests.stages.chain import compute
from w2sd.atomic import read_json
from w2sd.cli import CONF
from w2sd.config import RunConfig, read
from w2sd.conflicts.base import TEACHER, Extra
from w2sd.data import pairs as data
from w2sd.data.pairs import Pair, coin
from w2sd.errors import StageFailed
from w2sd.logger import Csv
from w2sd.metrics.saliency import saliency
from w2sd.models.heads import Probe
from w2sd.parts.stopping import Stopping
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.stage import Task, stream
from w2sd.pipeline.store import Store
from w2sd.predictions import read_predictions
from w2sd.stages import features, training_targets
from w2sd.supervision.base import Lesson
from w2sd.supervision.cleaning import Filtered, Relabelled
from w2sd.world import ladder

SMALL = [
    *("data.gt=64", "data.w2s=64", "data.w2s_parts=2", "data.test=60"),
    *("data.helpful=16", "data.helpful_test=16", "data.unrelated=16"),
    *("weak.width=8", "weak.layers=1", "weak.heads=2", "strong.width=12", "strong.layers=3", "strong.heads=2"),
    *("fit.epochs=3", "fit.lr=.01", "seed=5"),
]
PROBE, HEAD, FILTERED = ["adapter=linear_probe"], ["adapter=head_only"], ["supervision=filtered", "supervision.k=9"]


def compose(*overrides: str) -> RunConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return read(hydra.compose("config", list(overrides)))


class Bench:
    """Runs on one small world, in one store, on language models that were not pretrained."""

    def __init__(self, place: Path) -> None:
        self.place, self.store = place, Store(place / "store")

    def run(self, *overrides: str, small: list[str] = SMALL) -> Plan:
        run = compose(*small, *overrides, f"out={self.place / 'report'}")
        stages = plan(run)
        for stage in stages.values():
            compute(stage, run, self.store)
        return stages

    def folder(self, stages: Plan, name: str) -> Path:
        return self.store.find(stages[name].key)

    def metrics(self, stages: Plan, name: str) -> dict[str, Any]:
        folder = self.folder(stages, name)
        return figures_of(folder) if name == "compare" else read_json(folder / "metrics.json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def probed(bench: Bench) -> Plan:
    return bench.run(*PROBE)


@pytest.fixture(scope="module")
def filtered(bench: Bench) -> Plan:
    return bench.run(*FILTERED)


def rows(stages: Plan, split: str) -> list[Pair]:
    return data.read(stages["compare"].params["data"]).split(split)


@torch.no_grad()
def by_hand(bench: Bench, stages: Plan, pairs: list[Pair], layer: int) -> np.ndarray:
    """The states at the ends of both answers, text by text."""
    folder = bench.folder(stages, "pretrain/strong") / "model"
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        stages["train/student"].params["model"].open_tokenizer(),
    )
    found = []
    for pair in pairs:
        answers = (pair.rejected, pair.chosen) if coin(pair.id) else (pair.chosen, pair.rejected)
        ids = [tokenizer(pair.prompt + answer, return_tensors="pt")["input_ids"] for answer in answers]
        states = [model(input_ids=each, output_hidden_states=True).hidden_states[layer][0, -1] for each in ids]
        found.append(torch.stack(states))
    return torch.stack(found).numpy()


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "name", "layer"),
    [("probed", "features/student_w2s_last", 3), ("filtered", "features/student_w2s_middle", 2)],
)
def test_features_are_the_states_at_the_ends_of_both_answers_in_slot_order(
    bench: Bench, chain: str, name: str, layer: int, request: pytest.FixtureRequest
) -> None:
    """Of every row of the split, whatever its facet and part; of three blocks the second is in the middle."""
    stages: Plan = request.getfixturevalue(chain)
    pairs, folder = rows(stages, "w2s"), bench.folder(stages, name)
    ids = [pair.id for pair in pairs]
    assert features.ids_in(folder) == ids
    assert len({(pair.facet, pair.part) for pair in pairs}) == 4
    assert 0 < sum(map(coin, ids)) < len(ids)
    expected = by_hand(bench, stages, pairs, layer)
    assert expected.std() > 0.1
    assert features.states_of(folder, ids) == pytest.approx(expected, abs=1e-5)
    assert features.width_of(folder) == 12
    assert features.states_of(folder, ids[40:5:-3]) == pytest.approx(expected[40:5:-3], abs=1e-5)
    assert bench.metrics(stages, name) == {
        "n/rows": len(pairs),
        "n/width": 12,
        "n/parameters": AutoModel.from_pretrained(bench.folder(stages, "pretrain/strong") / "model").num_parameters(),
    }


def test_rows_that_were_not_read_are_named(bench: Bench, probed: Plan) -> None:
    with pytest.raises(StageFailed, match=r"1 of 1 .*0123456789abcdef"):
        features.states_of(bench.folder(probed, "features/student_w2s_last"), ["0123456789abcdef"])


def test_padded_rows_in_small_pieces_have_the_same_features(bench: Bench, probed: Plan, tmp_path: Path) -> None:
    stage = probed["features/student_w2s_last"]
    inputs = {role: bench.store.find(made.key) for role, made in stage.inputs.items()}
    trainer = Trainer(micro_tokens=40, packed=False)
    place = (tmp_path, tmp_path, trainer, Csv(), "test", tmp_path / "logs")
    features.run(Task(stage.key, stage.kind, stage.params, inputs, *place, lambda *_: None))
    ids = [pair.id for pair in rows(probed, "w2s")]
    expected = features.states_of(bench.store.find(stage.key), ids)
    assert features.states_of(tmp_path, ids) == pytest.approx(expected, abs=1e-5)


# --- linear probes ----------------------------------------------------------------------------------------------------


def test_a_linear_probe_is_what_training_the_head_alone_comes_to(bench: Bench, probed: Plan) -> None:
    """Weights, predictions and figures; the bias cancels in every margin, and Adam follows its rounding errors."""
    whole = bench.run(*HEAD)
    for role in ("weak", "ceiling", "student"):
        one, other = (load_file(bench.folder(of, f"train/{role}") / "head.safetensors") for of in (probed, whole))
        assert one["weight"].shape == other["weight"].shape
        assert torch.allclose(one["weight"], other["weight"], rtol=0, atol=2e-4)
        begin = Probe(one["weight"].shape[1], 1, stream(probed[f"train/{role}"].params)).head.weight.detach()
        assert float((one["weight"] - begin).abs().max()) > 0.01
    for name in ("label/weak", "evaluate/student"):
        one, other = (read_predictions(bench.folder(of, name) / "predictions.parquet") for of in (probed, whole))
        assert one.ids == other.ids
        assert one.margin == pytest.approx(other.margin, abs=0.01 * np.std(other.margin))
    said, expected = (bench.metrics(of, "train/student") for of in (probed, whole))
    assert said == expected | {"n/trained": 13}  # its size is that of the model that it reads, with the head
    helpful = [bench.folder(of, "evaluate/student") / "helpful.parquet" for of in (probed, whole)]
    one, other = map(read_predictions, helpful)
    assert one.margin == pytest.approx(other.margin, abs=0.01 * np.std(other.margin))


def test_an_arm_on_features_never_asks_the_transformer(
    bench: Bench, probed: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed: its training, its evaluation and its comparison; all features are there."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a transformer was made")

    monkeypatch.setattr(PreTrainedModel, "__init__", forbidden)
    other = bench.run(*PROBE, "seed=6")
    assert {name for name in other if other[name].key != probed[name].key} == {
        "train/student",
        "evaluate/student",
        "compare",
    }
    files = {path.name for path in bench.folder(other, "train/student").iterdir()}
    assert files == {"head.safetensors", "metrics.json", "runtime.json", "spec.json"}


def test_a_conflict_goes_with_a_linear_probe(bench: Bench) -> None:
    """Its extra rows have features as well, and its loss is one of scores."""
    for conflict in ("implicit", "explicit"):
        stages = bench.run(*PROBE, f"conflict={conflict}", *(["conflict.ratio=.25"] if conflict == "implicit" else []))
        found = bench.metrics(stages, "train/student")
        assert found["n/extra"] == (16 if conflict == "implicit" else 0)
        assert "deception/excess_flips" in bench.metrics(stages, "compare")


def test_a_linear_probe_can_be_stopped_where_it_agrees_best_with_held_out_labels(bench: Bench) -> None:
    """As in appendix D.2 of Burns et al. 2023; the rows that are held out have features as well."""
    found = bench.metrics(bench.run(*PROBE, "stopping=labels"), "train/student")
    assert found["n/pairs"] + found["n/held_out"] == 64
    assert 0 <= found["stopping/step"] <= found["n/steps"]


# --- supervision ------------------------------------------------------------------------------------------------------


def test_a_supervision_that_asks_a_probe_is_given_the_features_of_its_rows(
    bench: Bench, filtered: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = filtered["train/student"]
    inputs = {role: bench.store.find(made.key) for role, made in stage.inputs.items()}
    place = (tmp_path, tmp_path, Trainer(), Csv(), "test", tmp_path / "logs")
    task = Task(stage.key, stage.kind, stage.params, inputs, *place, lambda *_: None)
    pairs = data.read(stage.params["data"]).rows("w2s")
    told: list[Lesson] = []
    supervision = stage.params["supervision"]
    targets = type(supervision).targets
    monkeypatch.setattr(type(supervision), "targets", lambda self, lesson: targets(self, told.append(lesson) or lesson))
    kept, taught = training_targets.supervised(task, pairs)

    [lesson] = told
    assert lesson.truth is None
    assert np.array_equal(lesson.features_NAD, features.states_of(inputs["probed"], [pair.id for pair in pairs]))
    assert len(kept) == len(taught) == bench.metrics(filtered, "train/student")["n/pairs"] == 64 - 6
    extra = data.read(stage.params["data"]).rows("w2s", data.CONFLICTING)
    given = training_targets.extra_targets(task, Extra(extra, TEACHER))  # the teacher's word, without a probe
    teacher = training_targets.opinions(task, "labels", extra)
    assert {id: label.tolist() for id, label in given.items()} == {id: word.tolist() for id, word in teacher.items()}
    assert len(told) == 1


def test_the_other_probes_and_relabelling_run_too(bench: Bench, filtered: Plan) -> None:
    students = {filtered["train/student"].key}
    for supervision, probe in (("relabelled", "logistic"), ("relabelled", "topological"), ("filtered", "topological")):
        stages = bench.run(f"supervision={supervision}", f"supervision.probe={probe}", "supervision.k=5")
        assert stages["features/student_w2s_middle"].key == filtered["features/student_w2s_middle"].key
        students.add(stages["train/student"].key)
        left_out = 64 - bench.metrics(stages, "train/student")["n/pairs"]
        assert (left_out == 0) == (supervision == "relabelled")
    assert len(students) == 4


def test_too_many_neighbours_are_refused_in_one_line(bench: Bench, filtered: Plan) -> None:
    with refused("supervision.k", 64, "1 63 64"):
        bench.run("supervision=filtered", "supervision.k=64")


@pytest.mark.parametrize("named", ["filtered", "relabelled"])
def test_held_out_rows_and_the_others_have_no_say_about_each_other_s_labels(
    bench: Bench, filtered: Plan, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage, part = filtered["train/student"], {"filtered": Filtered, "relabelled": Relabelled}[named]
    stopping = Stopping(holdout=0.4)
    params = {**stage.params, "supervision": part(k=5, share=0.5), "stopping": stopping}
    inputs = {role: bench.store.find(made.key) for role, made in stage.inputs.items()}
    place = (tmp_path, tmp_path, Trainer(), Csv(), "test", tmp_path / "logs")
    task = Task(stage.key, stage.kind, params, inputs, *place, lambda *_: None)
    pairs = data.read(stage.params["data"]).rows("w2s")
    held = {pair.id for pair in pairs if stopping.holds_out(pair.cluster)}
    assert 5 < len(held) < 59
    opinions = training_targets.opinions

    def targets(changed: set[str]) -> dict[str, list[float]]:
        """What is taught where the teacher says the opposite of these."""

        def turned(*which: Any) -> dict[str, Any]:
            return {id: p_K[::-1] if id in changed else p_K for id, p_K in opinions(*which).items()}

        monkeypatch.setattr(training_targets, "opinions", turned)
        kept, targets_NK = training_targets.supervised(task, pairs)
        return {pair.id: targets_K.tolist() for pair, targets_K in zip(kept, targets_NK, strict=True)}

    usual, others = targets(set()), {pair.id for pair in pairs} - held
    for changed, same in ((held, others), (others, held)):
        now = targets(set(list(changed)[::2]))  # to turn all would leave the order as it is
        assert {id: p for id, p in now.items() if id in same} == {id: p for id, p in usual.items() if id in same}
        assert {id: p for id, p in now.items() if id in changed} != {id: p for id, p in usual.items() if id in changed}


def test_too_few_held_out_rows_for_a_probe_are_refused_in_one_line(bench: Bench) -> None:
    with refused("supervision.k", 20, "stopping.holdout=0.1"):
        bench.run("supervision=filtered", "supervision.k=20", "stopping=labels")


# --- saliency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "name"), [("probed", "features/student_w2s_last"), ("filtered", "features/student_w2s_middle")]
)
def test_the_comparison_says_how_plain_truth_and_weak_labels_are(
    bench: Bench, chain: str, name: str, request: pytest.FixtureRequest
) -> None:
    """On the pairs that the student was trained on, in the features that it was trained with."""
    stages: Plan = request.getfixturevalue(chain)
    found, pairs = bench.metrics(stages, "compare"), data.read(stages["compare"].params["data"]).rows("w2s")
    weak = read_predictions(bench.folder(stages, "label/weak") / "predictions.parquet")
    p_correct = dict(zip(weak.ids, weak.p_correct, strict=True))
    second = np.array([int(coin(pair.id)) for pair in pairs])
    p = np.array([p_correct[pair.id] for pair in pairs])
    states = features.states_of(bench.folder(stages, name), [pair.id for pair in pairs])
    first = np.where(second, 1 - p, p)
    expected = saliency(states, second, np.column_stack([first, 1 - first]), [pair.cluster for pair in pairs])
    assert {name: found[name] for name in found if name.startswith("saliency")} == {
        f"saliency/{name}": pytest.approx(value) for name, value in expected.items()
    }
    assert len(expected) == 6


# --- items ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classes(bench: Bench) -> list[str]:
    """Texts of five words, whose class is said by the first one; two models with random weights."""
    rng, words = np.random.default_rng(0), ladder.WORDS[-30:]
    lines = []
    for n in range(240):
        text = [words[n % 3], *rng.choice(words, 4)]
        lines.append(json.dumps({"text": " ".join(text), "label": "abc"[n % 3]}) + "\n")
    (bench.place / "texts.jsonl").write_text("".join(lines))
    ladder.tokenizer().save_pretrained(bench.place / "tokenizer")
    shape = [("width", 12), ("layers", 2), ("heads", 2), ("tokenizer", bench.place / "tokenizer")]
    knobs = [f"{role}.{knob}={value}" for role in ("weak", "strong") for knob, value in shape]
    models = ["model@weak=scratch", "model@strong=scratch", "strong.init_seed=1", *knobs]
    return ["data=class_files", f"data.path={bench.place / 'texts.jsonl'}", *models, "fit.epochs=3", "fit.lr=.01"]


def test_items_have_one_state_each_and_a_probe_of_classes_is_a_classifiers_head(
    bench: Bench, classes: list[str]
) -> None:
    probed, whole = (bench.run(f"adapter={name}", small=classes) for name in ("linear_probe", "head_only"))
    folder = bench.folder(probed, "features/student_w2s_last")
    states = features.states_of(folder, features.ids_in(folder))
    assert states.shape[1:] == (1, 12)
    assert len(states) == bench.metrics(probed, "label/weak")["n/pairs"] > 60
    for role in ("weak", "student"):
        one, other = (load_file(bench.folder(of, f"train/{role}") / "head.safetensors") for of in (probed, whole))
        assert one["weight"].shape == (3, 12)
        assert all(torch.allclose(one[name], other[name], rtol=0, atol=2e-4) for name in ("weight", "bias"))
    written = [bench.folder(of, "evaluate/student") / "predictions.parquet" for of in (probed, whole)]
    one, other = map(read_predictions, written)
    assert one.margin == pytest.approx(other.margin, abs=0.01 * np.std(other.margin))
    assert (bench.folder(probed, "label/weak") / "logits.safetensors").exists()
    assert 0 <= bench.metrics(probed, "compare")["saliency/truth/auroc"] <= 1


def test_weak_labels_of_several_classes_are_filtered_and_relabelled(bench: Bench, classes: list[str]) -> None:
    plain = bench.run(small=classes)
    n = bench.metrics(plain, "train/student")["n/pairs"]
    for supervision, left in (("filtered", n - n // 10), ("relabelled", n)):
        stages = bench.run(f"supervision={supervision}", "supervision.k=9", small=classes)
        assert bench.metrics(stages, "train/student")["n/pairs"] == left
        assert bench.metrics(stages, "compare")["saliency/weak/accuracy"] is not None
