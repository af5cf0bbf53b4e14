"""A student reads what the weak model prefers, in training and in the test, and is measured on rows of the old ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.builders import refused
from tests.stages.test_features import SMALL, Bench, compose
from w2sd.config import RunConfig
from w2sd.data import pairs as data
from w2sd.data.pairs import Item, Pair, coin
from w2sd.identity import digest
from w2sd.models.heads import HeadedModel, RewardModel
from w2sd.parts.trainer import Resolved
from w2sd.parts.words import Shown
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.store import Store
from w2sd.predictions import LOGITS, read_distributions, read_predictions, write_predictions
from w2sd.stages import evaluate, preflight, train
from w2sd.stages.training_targets import hinted
from w2sd.world import ladder

MODELS = [knob for knob in SMALL if not knob.startswith("data.")]
OF_ITEMS = ["data=world_classes", "data.gt=64", "data.w2s=64", "data.w2s_parts=1", "data.test=60", *MODELS]
TOKENIZER = ladder.tokenizer()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def pairs(bench: Bench) -> Plan:
    return bench.run("hint=world")


@pytest.fixture(scope="module")
def items(bench: Bench) -> Plan:
    return bench.run("hint=world_classes", small=OF_ITEMS)


def columns(folder: Path, file: str = "predictions.parquet") -> dict[str, list[Any]]:
    return pq.read_table(folder / file).to_pydict()


@torch.no_grad()
def score(model: RewardModel | HeadedModel, *texts: str) -> np.ndarray:
    """What the trained model says at the end of each text by itself, [texts, scores]."""
    ids = [TOKENIZER(text, return_tensors="pt")["input_ids"] for text in texts]
    return np.stack([model.head(model.backbone(input_ids=each).last_hidden_state[0, -1]).numpy() for each in ids])


# --- the test split ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["predictions.parquet", "helpful.parquet"])
def test_a_pair_is_scored_with_the_words_of_what_the_weak_model_prefers(bench: Bench, pairs: Plan, file: str) -> None:
    weak, student = (columns(bench.folder(pairs, f"evaluate/{role}"), file) for role in ("weak", "student"))
    model = RewardModel.load(bench.folder(pairs, "train/student")).eval()
    rows = {pair.id: pair for pair in data.read(pairs["compare"].params["data"]).split("test")}
    assert weak["id"] == student["id"]
    assert len({p >= 0.5 for p in weak["p_correct"]}) == 2  # or else this says little
    for id, p_weak, margin in zip(weak["id"], weak["p_correct"], student["margin"], strict=True):
        said = ("safe0", "haz0") if p_weak > 0.5 else ("haz0", "safe0")
        answers = zip((rows[id].chosen, rows[id].rejected), said, strict=True)
        better, worse = score(model, *(f"{rows[id].prompt} {answer} {word}" for answer, word in answers))
        assert margin == pytest.approx((better - worse).item(), abs=1e-4)
    for side in ("n_chosen", "n_rejected"):
        assert [n + 1 for n in weak[side]] == student[side]


def test_an_item_is_scored_with_the_word_of_what_the_weak_model_prefers(bench: Bench, items: Plan) -> None:
    weak, student = (columns(bench.folder(items, f"evaluate/{role}")) for role in ("weak", "student"))
    model = HeadedModel.load(bench.folder(items, "train/student")).eval()
    rows = {item.id: item for item in data.read(items["compare"].params["data"]).split("test")}
    found = read_distributions(bench.folder(items, "evaluate/student"))
    assert weak["id"] == student["id"]
    for id, said in zip(weak["id"], weak["predicted"], strict=True):
        [logits] = score(model, f"{rows[id].text} {('safe0', 'haz0')[said]}")
        odds = np.exp(logits - logits.max())
        assert found[id] == pytest.approx(odds / odds.sum(), abs=1e-4)


@pytest.mark.parametrize("which", ["pairs", "items"])
def test_a_hinted_job_is_measured_as_ever(bench: Bench, which: str, request: pytest.FixtureRequest) -> None:
    stages = request.getfixturevalue(which)
    measured = bench.metrics(stages, "compare")
    assert measured["n/test"] == 60
    assert measured["accuracy/weak"] == bench.metrics(stages, "evaluate/weak")["accuracy"]
    assert "pgr" in bench.metrics(stages, "evaluate/student")
    assert (bench.folder(stages, "evaluate/student") / LOGITS).exists() == (which == "items")


# --- training ---------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """By then everything that is read has been encoded."""


@pytest.mark.parametrize("which", ["pairs", "items"])
def test_training_reads_the_hardened_labels_that_it_is_taught_by(
    bench: Bench, which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = request.getfixturevalue(which)
    seen: list[Any] = []

    def encode(config: Any, tokenizer: Any, source: Any, examples: list[Any], end: Any, kept: Path | None) -> None:
        seen.extend(examples)
        assert kept is None  # nobody reads the rows without hints that are there
        raise Stopped

    monkeypatch.setattr(train, "encode_for", encode)
    folder = bench.folder(stages, "label/weak")
    params = dict(stages["train/student"].params)
    task: Any = SimpleNamespace(params=params, inputs={"labels": folder}, trainer=Resolved(), tokens=folder, stream=0)
    model = (RewardModel if which == "pairs" else HeadedModel).load(bench.folder(stages, "train/student"))
    with pytest.raises(Stopped):
        train.prepare(task, model, TOKENIZER)

    rows = data.read(params["data"]).rows("w2s")
    labels = columns(folder)
    said = dict(zip(labels["id"], labels["predicted" if which == "items" else "p_correct"], strict=True))
    assert len(seen) == len(rows) == 64
    for row, read in zip(rows, seen, strict=True):
        if isinstance(row, Item):
            assert read.text == f"{row.text} {('safe0', 'haz0')[said[row.id]]}"
        else:
            right = said[row.id] > 0.5
            assert read.chosen == f"{row.chosen} {'safe0' if right else 'haz0'}"
            assert read.rejected == f"{row.rejected} {'haz0' if right else 'safe0'}"


@pytest.mark.parametrize("role", ["student", "ceiling"])
def test_kept_tokens_are_asked_for_where_nothing_is_added_to_them(
    bench: Bench, pairs: Plan, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*given: Any) -> None:
        assert given[-1] == (None if role == "student" else tmp_path)
        raise Stopped

    monkeypatch.setattr(evaluate, "encode_for", encode)
    params = pairs[f"evaluate/{role}"].params
    origin = pairs[f"train/{role}"].params
    inputs = {"model": bench.folder(pairs, f"train/{role}"), "weak": bench.folder(pairs, "evaluate/weak")}
    task: Any = SimpleNamespace(
        kind="evaluate", params=params, origin=origin, inputs=inputs, trainer=Resolved(), tokens=tmp_path
    )
    with pytest.raises(Stopped):
        evaluate.prepare(task, data.read(params["data"]).split("test"), {})


def test_of_a_tie_the_first_slot_is_shown_and_of_what_nobody_labelled_nothing(tmp_path: Path) -> None:
    rows = [Pair(digest(str(n)), str(n), "w2s", "harmless", "p", "good", "bad") for n in range(9)]
    assert len({coin(pair.id) for pair in rows}) == 2
    ids, undecided = [pair.id for pair in rows[:-1]], np.zeros(8)
    write_predictions(
        tmp_path / "predictions.parquet", {"id": ids, "cluster": ids, "margin": undecided, "p_correct": undecided + 0.5}
    )
    assert read_predictions(tmp_path / "predictions.parquet").ids == ids
    task: Any = SimpleNamespace(params={"data": compose().data}, inputs={"labels": tmp_path})
    kept, shown = hinted(task, Shown(words=["0", "1"], said="{}"), "labels", rows)
    assert kept == rows[:-1]
    for pair, read in zip(kept, shown, strict=True):
        assert (read.chosen, read.rejected) == (("good0", "bad1") if coin(pair.id) else ("good1", "bad0"))
    assert hinted(task, None, "labels", rows) == (rows, rows)


# --- before the first stage -------------------------------------------------------------------------------------------

UNREADABLE = {
    "foreign words": (["hint=shown"], ("hint.words", "worse", "vocabulary")),
    "a foreign phrase": (["hint=world", 'hint.said=" I think {}"'], ("hint.said", " I think haz0", "vocabulary")),
    "a foreign word": (["hint=world", "hint.words=[haz0,foo]"], ("hint.words", "foo", "vocabulary")),
    "a long phrase": (
        ["hint=world", f'hint.said="{" ." * 30} {{}}"'],
        (ANY, "a response of 36 tokens", "data.long=drop strong hint"),
    ),
    "a long phrase of an item": (
        [*OF_ITEMS, "hint=world_classes", f'hint.said="{" ." * 40} {{}}"'],
        ("hint.said", ANY, "32"),
    ),
    "no word": (["hint=world", "hint.words=['',haz0]", 'hint.said="{}"'], ("hint.words", "", "token")),
    "words that are one": (["hint=world", "hint.words=[haz0,'haz0 ']"], ("hint.words", "haz0 ", "haz0")),
}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., RunConfig]:
    return lambda *knobs: compose(*([] if OF_ITEMS[0] in knobs else SMALL), *knobs, f"store={tmp_path / 'store'}")


@pytest.mark.parametrize(("knobs", "refusal"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_the_strong_model_cannot_read_is_refused(
    small: Callable[..., RunConfig], knobs: list[str], refusal: tuple[Any, ...]
) -> None:
    run = small(*knobs)
    with refused(*refusal):
        preflight.check(run)
    assert not Store(run.settings.store).root.exists()


@pytest.mark.parametrize("knobs", [["hint=world"], [*OF_ITEMS, "hint=world_classes"]])
def test_what_it_can_read_is_not(small: Callable[..., RunConfig], knobs: list[str]) -> None:
    preflight.check(small(*knobs))
