"""Models from scratch: what decides their weights, what is refused, and the text that they are pretrained on."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import refused
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from w2sd.errors import Refused
from w2sd.models.scratch import ARCHITECTURES, Scratch, Text

WORDS = ["<unk>", "<s>", "</s>", *"abcdefgh"]


def save_tokenizer(place: Path, end: str | None = "</s>") -> Path:
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token=end).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tokenizer of eleven words, of which `</s>` ends a text."""
    return str(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def scratch(tokenizer: str) -> Callable[..., Scratch]:
    """A small model with other values where asked."""
    small = {"width": 12, "layers": 1, "heads": 2, "context": 16, "tokenizer": tokenizer}
    return lambda **knobs: Scratch(**{**small, **knobs})


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        ({"architecture": "lama"}, ("architecture", "lama", "gpt2 llama mistral opt qwen2", "llama")),
        ({"width": 0}, ("width", 0, "1")),
        ({"layers": 0}, ("layers", 0, "1")),
        ({"heads": 0}, ("heads", 0, "1")),
        ({"context": 0}, ("context", 0, "1")),
        ({"epochs": 0}, ("epochs", 0, "1")),
        ({"batch": 0}, ("batch", 0, "1")),
        ({"heads": 5}, ("width", 12, "5")),
        ({"init_seed": -1}, ("init_seed", -1, "0")),
        ({"lr": 0.0}, ("lr", 0.0, "0")),
        ({"lr": float("nan")}, ("lr", float("nan"), "0")),
        ({"tokenizer": ""}, ("tokenizer", "")),
        ({"tokenizer": "/nowhere"}, ("tokenizer", "/nowhere")),
        ({"corpus": "/nowhere.txt"}, ("corpus", "/nowhere.txt")),
    ],
)
def test_impossible_values_are_refused(
    scratch: Callable[..., Scratch], knobs: dict[str, Any], refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        scratch(**knobs)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
def test_rotary_positions_need_an_even_width_per_head(scratch: Callable[..., Scratch], architecture: str) -> None:
    with refused("width", 12):
        scratch(architecture=architecture, width=12, heads=4)
    assert scratch(architecture="gpt2", width=12, heads=4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_knobs_are_the_shape(scratch: Callable[..., Scratch], architecture: str) -> None:
    part = scratch(architecture=architecture, width=16, layers=3, heads=4, context=24)
    backbone, config = part.open_backbone(None), part.open_config()
    assert config.model_type == architecture
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 3, 4)
    assert config.vocab_size == len(WORDS)
    assert config.max_position_embeddings == 24
    assert backbone(input_ids=torch.zeros(2, 24, dtype=torch.long)).last_hidden_state.shape == (2, 24, 16)
    assert backbone.get_input_embeddings().weight.shape == (len(WORDS), 16)
    assert all(module.training for module in backbone.modules())
    blocks = [name for name, _ in backbone.named_modules() if name.rpartition(".")[2] in ("0", "1", "2", "3")]
    assert len(blocks) == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_seed_decides_the_weights_and_nothing_else_does(scratch: Callable[..., Scratch], architecture: str) -> None:
    def weights(**knobs: Any) -> torch.Tensor:
        state = torch.get_rng_state()
        backbone = scratch(architecture=architecture, **knobs).open_backbone(None)
        assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([part.detach().flatten() for part in backbone.parameters()])

    torch.manual_seed(1)
    first = weights(init_seed=4)
    torch.manual_seed(2)
    assert torch.equal(weights(init_seed=4), first)
    assert torch.equal(weights(init_seed=4, context=16, lr=0.5, batch=3), first)
    assert not torch.equal(weights(init_seed=5), first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pretrained_base_replaces_the_random_weights(
    scratch: Callable[..., Scratch], architecture: str, tmp_path: Path
) -> None:
    part = scratch(architecture=architecture)
    torch.manual_seed(99)
    whole = AutoModelForCausalLM.from_config(part.open_config())
    whole.save_pretrained(tmp_path / "model")
    backbone = part.open_backbone(tmp_path)
    saved = whole.base_model.state_dict()
    assert backbone.state_dict().keys() <= {*saved} | {name.removeprefix("model.") for name in whole.state_dict()}
    assert torch.equal(backbone.get_input_embeddings().weight, whole.get_input_embeddings().weight)
    random = part.open_backbone(None)
    assert not torch.equal(backbone.get_input_embeddings().weight, random.get_input_embeddings().weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_whole_language_model_is_random_by_the_seed_or_what_was_pretrained(
    scratch: Callable[..., Scratch], architecture: str, tmp_path: Path
) -> None:
    def weights(lm: Any) -> torch.Tensor:
        return torch.cat([part.detach().flatten() for part in lm.parameters()])

    part = scratch(architecture=architecture, init_seed=4)
    lm = part.open_language_model(None)
    assert lm(input_ids=torch.zeros(1, 3, dtype=torch.long)).logits.shape == (1, 3, len(WORDS))
    torch.manual_seed(7)
    assert torch.equal(weights(part.open_language_model(None)), weights(lm))
    assert not torch.equal(
        weights(scratch(architecture=architecture, init_seed=5).open_language_model(None)), weights(lm)
    )
    torch.manual_seed(99)
    other = AutoModelForCausalLM.from_config(part.open_config())
    other.save_pretrained(tmp_path / "model")
    assert torch.equal(weights(part.open_language_model(tmp_path)), weights(other))


def identity(part: Any) -> str:
    return json.dumps(part.identity(), sort_keys=True)


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("a b c d " * 20)
    return str(path)


@pytest.mark.parametrize(
    "change",
    [{"architecture": "opt"}, {"width": 14}, {"layers": 2}, {"heads": 3}, {"context": 17}, {"init_seed": 1}],
)
def test_shape_and_seed_are_identity(scratch: Callable[..., Scratch], change: dict[str, Any]) -> None:
    assert identity(scratch(**change)) != identity(scratch())
    assert identity(scratch()) == identity(scratch())


@pytest.mark.parametrize("recipe", [{"lr": 0.5}, {"epochs": 2}, {"batch": 3}])
def test_the_recipe_is_identity_where_it_is_used(
    scratch: Callable[..., Scratch], recipe: dict[str, Any], corpus: str
) -> None:
    assert identity(scratch(**recipe)) == identity(scratch())
    assert identity(scratch(corpus=corpus, **recipe)) != identity(scratch(corpus=corpus))


def test_the_tokenizer_is_known_by_content(scratch: Callable[..., Scratch], tmp_path: Path) -> None:
    same, other = save_tokenizer(tmp_path / "same"), save_tokenizer(tmp_path / "other", end="<s>")
    assert identity(scratch(tokenizer=str(same))) == identity(scratch())
    assert identity(scratch(tokenizer=str(other))) != identity(scratch())


def test_only_a_model_with_a_corpus_has_text(scratch: Callable[..., Scratch], corpus: str, tokenizer: str) -> None:
    assert scratch().text(None) is None
    assert scratch(corpus=corpus).text(None) == Text(corpus, tokenizer, 16)
    fit = scratch(corpus=corpus, lr=0.25, epochs=3, batch=5).fit()
    assert (fit.lr, fit.epochs, fit.batch) == (0.25, 3, 5)


def write(path: Path, texts: list[str]) -> str:
    lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts)
    content = texts[0] if path.suffix == ".txt" else lines
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_documents_are_one_stream_cut_into_rows(name: str, tokenizer: str, tmp_path: Path) -> None:
    text = Text(write(tmp_path / name, ["a b c", "d", "e f g h"]), tokenizer, context=4)
    tokens, weights = text.documents(None)
    assert tokens.tolist() == [[3, 4, 5, 2], [6, 2, 7, 8]]  # each text ended by </s>; the rest fills no row
    assert tokens.dtype == np.int32
    assert (weights.shape, weights.dtype, weights.min(), weights.max()) == (tokens.shape, np.float32, 1, 1)


def test_a_plain_file_is_one_text(tokenizer: str, tmp_path: Path) -> None:
    text = Text(write(tmp_path / "own.txt", ["a b\nc\n\nd e f é"]), tokenizer, context=8)
    assert text.documents(None)[0].tolist() == [[3, 4, 5, 6, 7, 8, 0, 2]]


def test_a_tokenizer_without_an_end_of_text_joins_texts(tmp_path: Path) -> None:
    place = save_tokenizer(tmp_path / "endless", end=None)
    text = Text(write(tmp_path / "own.jsonl", ["a b c", "d"]), str(place), context=2)
    assert text.documents(None)[0].tolist() == [[3, 4], [5, 6]]


def test_a_text_that_fills_no_row_is_refused(tokenizer: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.txt", ["a b"])
    with refused("corpus", path, "4 3"):
        Text(path, tokenizer, context=4).documents(None)
    assert Text(path, tokenizer, context=3).documents(None)[0].shape == (1, 3)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize(
    "line",
    ['{"text": "a b', '{"prompt": "a"}', '["text"]', '"text"', "7", '{"text": 5}', '{"text": null}', '{"text": ["a"]}'],
)
def test_a_broken_line_is_refused_by_file_and_number(line: str, suffix: str, tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / f"own.{suffix}"
    content = ('{"text": "a b"}\n' * 2 + line + '\n{"text": "a b"}\n').encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with refused(f"{path.name}:3") as refusal:
        Text(str(path), tokenizer, context=2).documents(None)
    assert re.search(r"\bJSON\b|\btext\b", refusal.value.accepted)


def test_empty_lines_are_no_texts(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('\n{"text": "a"}\n\n{"text": "b"}\n\n')
    assert Text(str(path), tokenizer, context=2).documents(None)[0].tolist() == [[3, 2], [4, 2]]


@pytest.mark.parametrize("name", ["own.txt", "own.jsonl", "own.jsonl.gz"])
def test_a_file_that_is_no_text_is_refused_by_name(name: str, tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"text": "a \xff\xfe b"}\n')
    with pytest.raises(Refused) as refusal:
        Text(str(path), tokenizer, context=2).documents(None)
    assert path.name in refusal.value.knob + str(refusal.value.value)


def test_text_is_known_by_content(tokenizer: str, tmp_path: Path) -> None:
    first = Text(write(tmp_path / "one.txt", ["a b c"]), tokenizer, context=2)
    assert identity(replace(first, path=write(tmp_path / "copy.txt", ["a b c"]))) == identity(first)
    assert identity(replace(first, path=write(tmp_path / "two.txt", ["a b d"]))) != identity(first)
    assert identity(replace(first, context=3)) != identity(first)
    other = str(save_tokenizer(tmp_path / "other", end="<s>"))
    assert identity(replace(first, tokenizer=other)) != identity(first)
