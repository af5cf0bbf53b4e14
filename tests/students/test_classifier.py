"""The classifier: soft labels by hand, the same numbers however they are cut up, predictions beside the truth."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2Model

from tests.builders import refused
from w2sd.conflicts.base import NoConflict
from w2sd.data.batch import ItemRows
from w2sd.data.layout import Text, plain
from w2sd.data.loader import Loader, in_length_order
from w2sd.data.pairs import Item
from w2sd.data.text import encode_items, gather_items
from w2sd.identity import digest
from w2sd.logger import Csv
from w2sd.models.heads import HeadedModel, RewardModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.predictions import LOGITS, read_distributions, read_predictions, write_predictions
from w2sd.stages import engine
from w2sd.students.student import ClassStudent, Examination

N, VOCABULARY, CLASSES = 19, 31, 3
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(0, VOCABULARY, size=RANDOM.integers(1, 9)).astype(np.int32) for _ in range(N)]
TARGETS = RANDOM.dirichlet(np.ones(CLASSES), size=N)
TRUTH = RANDOM.integers(0, CLASSES, size=N)
EMPTY = np.zeros(0, dtype=np.int32)


def model(n_outputs: int = CLASSES) -> HeadedModel:
    torch.manual_seed(0)
    backbone = GPT2Model(GPT2Config(n_embd=12, n_layer=2, n_head=2, n_positions=16, vocab_size=VOCABULARY))
    silence_dropout(backbone)
    made = HeadedModel(backbone, 0, n_outputs)
    with torch.no_grad():
        made.head.weight.mul_(100)  # far enough apart that classes differ
    return made.double()


def student(made: HeadedModel) -> ClassStudent:
    return ClassStudent(made, RewardBCE(), NoConflict(), Fit())


def by_hand(made: HeadedModel) -> torch.Tensor:
    """The logits of every text alone, [N, C]."""
    return torch.cat([made(plain([Text(EMPTY, (ids,))])) for ids in TEXTS])


@pytest.mark.parametrize("micro_tokens", [1, 12, 10**6])
@pytest.mark.parametrize("is_packed", [False, True])
def test_the_loss_is_the_soft_cross_entropy_of_each_item(micro_tokens: int, is_packed: bool) -> None:
    from w2sd.models.packing import pack

    made = model()
    expected = cross_entropy(by_hand(made), torch.from_numpy(TARGETS), reduction="sum").item()
    if is_packed:
        assert pack(made, 16)
    rows = ItemRows(TEXTS, micro_tokens, targets_NC=TARGETS, is_packed=is_packed)
    learner = student(made)
    pieces = rows[list(range(N))]
    assert sum(int(learner.mass(piece)) for piece in pieces) == N
    assert sum(learner.losses(piece).item() for piece in pieces) == pytest.approx(expected, rel=1e-6)


def test_two_classes_are_a_pair_on_the_difference_of_their_logits() -> None:
    logits, q = torch.randn(50, 2, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    margin = logits[:, 0] - logits[:, 1]
    soft = RewardBCE()(type("Scores", (), {"logits": logits})(), torch.stack([q, 1 - q], dim=1))
    pairs = RewardBCE()(type("Scores", (), {"margin": margin})(), q)
    assert torch.allclose(soft, pairs, rtol=0, atol=1e-12)


def scored(made: HeadedModel, tmp_path: Path) -> ClassStudent:
    folders = {name: tmp_path / name for name in ("out", "work", "logs")}
    for folder in folders.values():
        folder.mkdir()
    trainer = Trainer(micro_tokens=16)
    task = Task("0" * 12, "label", {}, {}, trainer=trainer, logger=Csv(), name="t", advance=lambda *_: None, **folders)
    learner = student(made)
    learner.examine(Examination(torch.arange(N), torch.arange(N), torch.from_numpy(TRUTH), {}))
    rows = ItemRows(TEXTS, 16)
    engine.predict(task, learner, Loader(rows, in_length_order(rows.lengths, 7)))
    return learner


def test_predictions_are_the_true_class_beside_the_strongest_other(tmp_path: Path) -> None:
    made = model().float()
    learner = scored(made, tmp_path)
    logits_NC = by_hand(made).detach().double().numpy()
    assert np.allclose(learner.predictions["logits"], logits_NC, atol=1e-5)
    true = logits_NC[range(N), TRUTH]
    others = np.where(np.eye(CLASSES, dtype=bool)[TRUTH], -np.inf, logits_NC).max(axis=1)
    assert np.allclose(learner.predictions["margin"], true - others, atol=1e-5)
    p_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    p_true, p_other = p_NC[range(N), TRUTH], np.where(np.eye(CLASSES, dtype=bool)[TRUTH], 0, p_NC).max(axis=1)
    assert np.allclose(learner.predictions["p_correct"], p_true / (p_true + p_other), atol=1e-5)
    right = logits_NC.argmax(axis=1) == TRUTH
    assert np.array_equal(learner.predictions["p_correct"] >= 0.5, right)
    assert 0 < right.sum() < N


def test_distributions_come_back_by_id(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    logits_NC = np.random.default_rng(3).normal(size=(N, CLASSES)).astype(np.float32) * 30
    ids = [f"{n:016x}" for n in range(N)]
    best = logits_NC.argmax(axis=1)
    numbers = {"margin": np.ones(N), "p_correct": np.full(N, 0.9), "predicted": best}
    write_predictions(tmp_path / "predictions.parquet", {"id": ids, "cluster": ids, **numbers})
    save_file({"logits": logits_NC}, tmp_path / LOGITS)
    found = read_distributions(tmp_path)
    assert list(found) == ids
    exact = torch.from_numpy(logits_NC).double().softmax(dim=1).numpy()
    assert np.allclose(list(found.values()), exact, rtol=1e-12)
    assert np.array_equal(read_predictions(tmp_path / "predictions.parquet").predicted, best)


def test_a_head_is_saved_and_loaded_with_its_classes(tmp_path: Path) -> None:
    class Nobody:
        def save_pretrained(self, folder: Path) -> None:
            """No tokenizer."""

    made = model().float()
    made.save(tmp_path, Nobody())  # type: ignore[arg-type]
    again = HeadedModel.load(tmp_path)
    assert torch.equal(by_hand(again.eval()), by_hand(made.eval()))
    assert RewardModel(made.backbone, 5).head.out_features == 1


class Letters:
    """A tokenizer of single characters."""

    def __call__(
        self, text: str | list[str], *, add_special_tokens: bool, verbose: bool = False
    ) -> dict[str, list[int]]:
        def ids(one: str) -> list[int]:
            return ([1] if add_special_tokens else []) + [ord(letter) - 90 for letter in one]

        return {"input_ids": ids(text) if isinstance(text, str) else [ids(one) for one in text]}  # type: ignore[dict-item]

    def convert_ids_to_tokens(self, ids: int) -> str:
        return chr(ids + 90)


def items(*texts: str) -> list[Item]:
    return [Item(digest(text), digest(text), "gt", text, 0) for text in texts]


def test_a_long_text_loses_its_beginning_and_keeps_its_first_token() -> None:
    encoded = gather_items(encode_items(items("abcdef", "ab"), Letters(), 4, 99))
    assert [ids.tolist() for ids in encoded.texts] == [[1, 10, 11, 12], [1, 7, 8]]
    assert (encoded.kept, encoded.truncated_prompts, encoded.longest) == ([0, 1], 1, 4)


@pytest.mark.parametrize(("text", "vocabulary", "accepted"), [("", 99, "one token"), ("abz", 20, "20")])
def test_texts_that_cannot_be_read_are_refused(text: str, vocabulary: int, accepted: str) -> None:
    with refused(f"item {digest(text)}", ANY, accepted):
        encode_items(items("ab", text), Letters(), 8, vocabulary)
