"""Scores: read at the last attended token, whatever surrounds the row; saved and loaded without a pickle."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PhiConfig, PreTrainedTokenizerFast

from w2sd.data.layout import Text, masked, plain
from w2sd.models.heads import HeadedModel, RewardModel
from w2sd.models.hub import load_tokenizer
from w2sd.models.prepare import silence_dropout
from w2sd.models.scratch import ARCHITECTURES, Scratch
from w2sd.parts.adapter import Full, HeadOnly

VOCABULARY = 23
ROWS = [[3, 9, 4], [7, 1, 1, 12, 22], [5], [2, 8, 6, 6, 19, 20, 11], [13, 14]]
ENDINGS = [[4, 9, 0], [8, 5], [5, 5, 5], [0], [6, 1]]  # rows that end in 0, and in what the tests call padding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 23 words."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    place = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(place)
    return place


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, folder: Path) -> RewardModel:
    """A small reward model of each architecture, in eval mode, whose scores differ from row to row."""
    part = Scratch(request.param, width=16, layers=2, heads=2, context=32, tokenizer=str(folder), init_seed=3)
    model = RewardModel(part.open_backbone(None), seed=1).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:  # far from the tiny start, so that attention to the wrong token would show
                weights.mul_(5)
    return model


def padded(rows: list[list[int]], side: str, more: int = 0, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask with `more` columns than needed."""
    width = max(map(len, rows)) + more
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[n, place], mask[n, place] = torch.tensor(row), 1
    return ids, mask


@torch.no_grad()
def by_hand(model: RewardModel, row: list[int]) -> Tensor:
    """The score of one row without padding, mask or positions."""
    hidden_D = model.backbone(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
    return (model.head.weight[0] * hidden_D).sum() + model.head.bias[0]


@torch.no_grad()
def score(model: RewardModel, *args: Any, **kwargs: Any) -> Tensor:
    ids, mask = padded(*args, **kwargs)
    return model(masked(ids, mask, torch.ones(len(ids), dtype=torch.long)))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("more", [0, 1, 9])
@pytest.mark.parametrize("pad", [0, 5])
def test_a_score_does_not_depend_on_side_amount_or_content_of_padding(
    model: RewardModel, side: str, more: int, pad: int
) -> None:
    expected = torch.stack([by_hand(model, row) for row in ROWS])
    assert expected.std() > 0.01  # else everything would be equal
    assert_equal(score(model, ROWS, side, more, pad), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_score_does_not_depend_on_batch_mates(model: RewardModel, side: str) -> None:
    together = score(model, ROWS, side)
    for n, row in enumerate(ROWS):
        assert_equal(score(model, [row], side), together[n : n + 1])
    assert_equal(score(model, ROWS[::-1], side), together.flip(0))


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_attended_token_is_read_also_where_it_looks_like_padding(
    model: RewardModel, side: str, pad: int
) -> None:
    expected = torch.stack([by_hand(model, row) for row in ENDINGS])
    declared = model.backbone.config.pad_token_id
    for claim in (pad, declared):  # a pad id in the config is not to be believed either
        model.backbone.config.pad_token_id = claim
        assert_equal(score(model, ENDINGS, side, more=2, pad=pad), expected)


class Places(torch.nn.Module):
    """A backbone whose hidden state is the place in the row."""

    class config:  # noqa: N801
        hidden_size = 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool) -> Any:
        places = torch.arange(input_ids.shape[1], dtype=torch.float32).expand(input_ids.shape)
        return SimpleNamespace(last_hidden_state=places[:, :, None])


@pytest.mark.parametrize(
    ("ids", "mask", "last"),
    [
        ([15, 0, 27, 0], [1, 1, 1, 0], 2),  # V12: where ids that are not 0 are counted, this is 1
        ([15, 0, 27, 0], [1, 1, 1, 1], 3),
        ([15, 3, 27, 9], [1, 1, 1, 1], 3),
        ([0, 15, 0, 27], [0, 1, 1, 1], 3),
        ([0, 0, 0, 9], [1, 1, 0, 0], 1),
    ],
)
def test_a_pad_id_inside_the_text_does_not_move_the_last_token(ids: list[int], mask: list[int], last: int) -> None:
    model = RewardModel(Places())  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.weight.fill_(1.0)
        assert model(masked(torch.tensor([ids]), torch.tensor([mask]), torch.tensor([1]))).item() == last


def test_the_last_attended_token_counts(model: RewardModel) -> None:
    first, second = (by_hand(model, [3, 9, last]) for last in (4, 10))
    assert abs(first - second) > 1e-3


def test_the_head_depends_on_the_seed_alone(folder: Path) -> None:
    def head(seed: int, architecture: str = "gpt2", init_seed: int = 0, rng: int = 0) -> Tensor:
        part = Scratch(architecture, width=16, context=32, tokenizer=str(folder), init_seed=init_seed)
        torch.manual_seed(rng)
        linear = RewardModel(part.open_backbone(None), seed).head
        assert linear.bias.tolist() == [0.0]
        return linear.weight.detach()

    expected = head(7)
    assert expected.shape == (1, 16)
    assert 0 < expected.std() < 0.03  # N(0, 0.01)
    for same in (head(7), head(7, rng=5), head(7, "llama"), head(7, init_seed=9)):
        assert torch.equal(same, expected)
    assert not torch.equal(head(8), expected)


def test_what_was_saved_scores_the_same(model: RewardModel, folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.save(tmp_path, tokenizer)
    loaded = RewardModel.load(tmp_path).eval()
    assert torch.equal(score(loaded, ROWS, "right"), score(model, ROWS, "right"))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], weights) for name, weights in model.state_dict().items())


def test_what_was_saved_is_a_model_of_transformers_without_pickles(
    model: RewardModel, folder: Path, tmp_path: Path
) -> None:
    model.save(tmp_path, AutoTokenizer.from_pretrained(folder))
    backbone, info = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(backbone) is type(model.backbone)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert load_tokenizer(tmp_path / "model")("w3 w22")["input_ids"] == [3, 22]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"head.safetensors", "model.safetensors", "config.json", "tokenizer.json"}
    assert {path.suffix for path in files} <= {".safetensors", ".json"}


def test_a_head_of_another_shape_is_not_loaded(model: RewardModel, folder: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    other.head = nn.Linear(8, 1)
    other.save(tmp_path, AutoTokenizer.from_pretrained(folder))
    with pytest.raises(RuntimeError, match="size mismatch"):
        RewardModel.load(tmp_path)


def with_dropout(model: RewardModel) -> RewardModel:
    """A copy with dropout of one half in every place that its architecture has for it."""
    config = copy.deepcopy(model.backbone.config)
    knobs = [name for name in vars(config) if name.endswith(("_pdrop", "dropout"))]
    assert knobs
    for knob in knobs:
        setattr(config, knob, 0.5)
    other = RewardModel(type(model.backbone)(config))
    other.load_state_dict(model.state_dict())
    return other


def test_silenced_dropout_leaves_train_mode_and_equals_eval_mode(model: RewardModel) -> None:
    noisy = with_dropout(model).train()
    silent = with_dropout(model).train()
    silence_dropout(silent.backbone)
    assert not torch.equal(score(noisy, ROWS, "right"), score(noisy, ROWS, "right"))
    first, second = (score(silent, ROWS, "right") for _ in range(2))
    assert torch.equal(first, second)
    assert_equal(first, score(model, ROWS, "right"))
    assert all(module.training for module in silent.modules())


def test_the_adapter_decides_what_is_trained(model: RewardModel) -> None:
    everything, head = copy.deepcopy(model), copy.deepcopy(model)
    Full().apply(everything)
    HeadOnly().apply(head)
    assert all(weights.requires_grad for weights in everything.parameters())
    trained = {name for name, weights in head.named_parameters() if weights.requires_grad}
    assert trained == {"head.weight", "head.bias"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_head_of_words_begins_as_what_the_language_model_says_of_them(architecture: str, folder: Path) -> None:
    part = Scratch(architecture, width=16, layers=2, heads=2, context=32, tokenizer=str(folder), init_seed=3)
    lm, words, row = part.open_language_model(None).eval(), [7, 2, 19], torch.tensor([ROWS[1]])
    said = lm(row).logits[0, -1, words]
    model = HeadedModel.of_words(lm, words).eval()
    with torch.no_grad():
        assert torch.allclose(
            model(plain([Text(np.zeros(0, dtype=np.int32), (np.array(ROWS[1], dtype=np.int32),))]))[0], said, atol=1e-6
        )
        model.head.weight.zero_()  # the embedding is another one
        assert torch.equal(lm(row).logits[0, -1, words], said)


def test_a_head_of_words_keeps_the_bias_that_the_embedding_has() -> None:
    lm = AutoModelForCausalLM.from_config(
        PhiConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).eval()
    nn.init.normal_(lm.lm_head.bias)
    row = torch.tensor([ROWS[1]])
    model = HeadedModel.of_words(lm, [7, 2]).eval()
    assert torch.allclose(
        model(plain([Text(np.zeros(0, dtype=np.int32), (np.array(ROWS[1], dtype=np.int32),))]))[0],
        lm(row).logits[0, -1, [7, 2]],
        atol=1e-6,
    )
