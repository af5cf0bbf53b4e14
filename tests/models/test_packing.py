"""Packed rows: the same scores and gradients as one row for each answer, or none at all."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.models.test_log_probs import NO_IDS, VOCABULARY, policy
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AutoModel, BloomConfig, GPT2Config

from w2sd.data.layout import Text, Tokens, packed, plain
from w2sd.models import packing
from w2sd.models.heads import PolicyModel, RewardModel
from w2sd.models.packing import pack

Model = PolicyModel | RewardModel
NAMES = ["gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "granite"]
LONGEST = 17  # tokens of the longest text below; a Mistral of these tests looks back as far


random = np.random.default_rng(0)


def text(prompt: int, *answers: int) -> Text:
    draw = [random.integers(0, VOCABULARY, size=n).astype(np.int32) for n in (prompt, *answers)]
    return Text(draw[0], tuple(draw[1:]))


# prompts of no token and answers of one among them
SHORT = [text(2, 1, 2), text(0, 3, 1), text(1, 1, 1), text(3, 1, 1), text(0, 1, 4), text(2, 2, 2)]
LONG = [*SHORT, text(9, 4, 7), text(1, 12, 3), text(1, 12, 3), text(1, 12, 3), text(14, 1, 1)]  # three of one size


def made(kind: type, name: str) -> Model:
    """A model in double precision with a configuration of its own."""
    lm = copy.deepcopy(policy(name).lm)
    if name == "mistral":
        lm.config.sliding_window = LONGEST
    if kind is PolicyModel:
        return PolicyModel(lm)
    model = RewardModel(lm.base_model, seed=1).double()
    nn.init.normal_(model.head.weight)
    return model


def graded(model: Model, tokens: Tokens) -> tuple[Tensor, list[Tensor]]:
    """Scores, and the gradient of a loss that minds each of them."""
    scores = model(tokens)
    weights = [each for each in model.parameters() if each.requires_grad]
    loss = (scores * torch.linspace(-1, 2, len(scores), dtype=scores.dtype)).sum()
    return scores.detach(), list(torch.autograd.grad(loss, weights, allow_unused=True))


def assert_same(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]], tolerance: float) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    scale = max(float(grad.abs().max()) for grad in other[1] if grad is not None)
    for here, there in zip(one[1], other[1], strict=True):
        assert (here is None) == (there is None)
        if there is not None:
            assert float((here - there).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("kind", [RewardModel, PolicyModel])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_answers", [1, 2])
def test_packed_and_plain_rows_have_the_same_scores_and_gradients(kind: type, name: str, n_answers: int) -> None:
    """In double precision to 1e-9, but for the norms and rotations that some turn in single precision."""
    texts = [Text(each.prompt, each.answers[:n_answers]) for each in LONG]
    model = made(kind, name)
    expected = graded(model, plain(texts))
    assert expected[0].std() > 0.1
    assert pack(model, LONGEST)
    assert_same(graded(model, packed(texts)), expected, 1e-9 if name in ("gpt2", "opt") else 2e-6)


@pytest.mark.parametrize("kind", [RewardModel, PolicyModel])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_in_single_precision_too(kind: type, name: str) -> None:
    model = made(kind, name).float()
    expected = graded(model, plain(LONG))
    assert pack(model, LONGEST)
    assert_same(graded(model, packed(LONG)), expected, 1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_under_autocast_they_differ_by_its_own_rounding(name: str) -> None:
    model = made(PolicyModel, name).float()
    exact = graded(model, plain(LONG))[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = graded(model, plain(LONG))[0]
        assert pack(model, LONGEST)
        here = graded(model, packed(LONG))[0]
    assert float((here - exact).abs().max()) < 3 * float((rounded - exact).abs().max())


@pytest.mark.parametrize("kind", [RewardModel, PolicyModel])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_score_depends_neither_on_order_nor_on_what_else_is_in_the_row(kind: type, name: str) -> None:
    model = made(kind, name)
    assert pack(model, LONGEST)
    with torch.no_grad():
        alone = torch.stack([model(packed([each])) for each in LONG])  # [n, 2]
        for order in itertools.islice(itertools.permutations(range(len(LONG))), 0, 300_000, 60_000):
            together = model(packed([LONG[i] for i in order])).view(2, -1).T
            torch.testing.assert_close(together, alone[list(order)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_answers_of_one_prompt_do_not_see_each_other(name: str) -> None:
    model = made(PolicyModel, name)
    assert pack(model, LONGEST)
    one = text(4, 3, 5)
    other = one._replace(answers=(one.answers[0] * 0 + 7, one.answers[1]))
    with torch.no_grad():
        here, there = model(packed([one])), model(packed([other]))
    assert here[0] != pytest.approx(there[0].item(), abs=1e-3)
    assert here[1].item() == there[1].item()


@pytest.fixture
def as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention, as it is before it is compiled; on the CPU it knows no gradient."""
    monkeypatch.setattr(packing, "packing", lambda tokens: packing.Packing((), packing.block_mask(tokens)))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.usefixtures("as_on_gpus")
@pytest.mark.parametrize("name", ["gpt2", "llama", "granite"])  # which has a scale of its own
def test_the_block_mask_of_gpus_says_the_same(name: str) -> None:
    model = made(PolicyModel, name).requires_grad_(False)
    expected = model(plain(LONG))
    assert pack(model, LONGEST)
    torch.testing.assert_close(model(packed(LONG)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_on_gpus_too_attention_is_cast_where_autocast_casts_it() -> None:
    """Rotations turn queries and keys in single precision and values stay in half: FlexAttention takes no mixture."""
    tokens = packed([text(5, 3, 2)])
    q, k, v = torch.randn(3, 1, 2, tokens.ids.shape[1], 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, single = (
            packing.attend_in_blocks(q, k, each, packing.block_mask(tokens), None) for each in (v.bfloat16(), v)
        )
    assert mixed.dtype is single.dtype is torch.bfloat16
    exact = packing.attend_in_blocks(q, k, v, packing.block_mask(tokens), None)
    torch.testing.assert_close(mixed.float(), exact, rtol=0.02, atol=0.02)
    assert torch.equal(mixed, single)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_a_scale_of_its_own_and_shared_keys_reach_the_kernel_of_gpus(heads: int) -> None:
    texts = [text(5, 3, 2), text(2, 1, 4)]
    tokens = packed(texts)
    n = tokens.ids.shape[1]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, n, 8, generator=generator, dtype=torch.float64) for h in (4, heads, heads))
    by_text = packing.attend(nn.Identity(), q, k, v, None, scaling=0.7, packing=packing.packing(tokens))[0]
    by_block = packing.attend_in_blocks(q, k, v, packing.block_mask(tokens), 0.7).transpose(1, 2)
    torch.testing.assert_close(by_block, by_text)


def visible(sizes: NDArray[np.int64]) -> Tensor:
    """Which tokens of a row see which, [N, N], written down text by text."""
    n = int(sizes.sum())
    sees, start = torch.zeros(n, n, dtype=torch.bool), 0
    for prompt, *answers in sizes:
        begin = start + prompt
        sees[start:begin, start:begin] = True
        for answer in answers:
            sees[begin : begin + answer, start : start + prompt] = True
            sees[begin : begin + answer, begin : begin + answer] = True
            begin += answer
        start = begin
    return sees.tril()


@pytest.mark.parametrize(
    "shapes",
    [
        [(5, 3, 2)],
        [(128, 128, 128), (256, 1, 1)],
        [(0, 700, 300), (20, 30, 40), (1, 128, 127)],
        [(600, 90, 200), (300, 300, 300), (3, 2, 1)],
        [(23, 35, 48)] * 12,
    ],
)
def test_blocks_that_are_skipped_hold_nothing_and_blocks_taken_whole_hold_all(shapes: list[tuple[int, ...]]) -> None:
    tokens = packed([text(*shape) for shape in shapes])
    mask, seen = packing.block_mask(tokens), visible(tokens.sizes)
    n, size = len(seen), packing.BLOCK
    q, k = torch.arange(n)[:, None], torch.arange(n)
    assert torch.equal(mask.mask_mod(torch.tensor(0), torch.tensor(0), q, k), seen)
    whole = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    partly = listed(mask.kv_num_blocks, mask.kv_indices)
    assert not whole & partly
    for row, column in itertools.product(range(-(-n // size)), repeat=2):
        block = seen[row * size : (row + 1) * size, column * size : (column + 1) * size]
        if (row, column) in whole:
            assert block.all()
            assert block.shape == (size, size)
        elif (row, column) not in partly:
            assert not block.any()
    expected = create_block_mask(mask.mask_mod, None, None, n, n, device="cpu")
    possible = listed(expected.full_kv_num_blocks, expected.full_kv_indices)
    assert whole <= possible
    assert len(whole) >= 0.8 * len([block for block in possible if block[0] > block[1]])
    assert mask.seq_lengths == expected.seq_lengths


def listed(counts: Tensor, indices: Tensor) -> set[tuple[int, int]]:
    rows = zip(counts[0, 0].tolist(), indices[0, 0].tolist(), strict=True)
    return {(row, column) for row, (count, columns) in enumerate(rows) for column in columns[:count]}


# --- models that cannot -----------------------------------------------------------------------------------------------


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(packing, "_lines", set())
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name == packing.__name__]


def refused(model: Model, longest: int = LONGEST) -> None:
    """It is as it was before it was asked."""
    before = model.backbone.config._attn_implementation
    assert not pack(model, longest)
    assert model.backbone.config._attn_implementation == before
    with torch.no_grad():
        model(plain(SHORT))


def test_an_attention_that_cannot_be_replaced_is_said_once(said: Callable[[], list[str]]) -> None:
    torch.manual_seed(0)
    model = RewardModel(AutoModel.from_config(BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=VOCABULARY)))
    nn.init.normal_(model.head.weight)
    refused(model)
    refused(model)
    [line] = said()
    assert line == "bloom has an attention of its own: every answer gets a row of its own"


def test_a_window_is_wide_enough_for_texts_that_fit_into_it(said: Callable[[], list[str]]) -> None:
    refused(made(PolicyModel, "mistral"), LONGEST + 1)
    assert said() == ["mistral looks back 17 tokens, and texts have up to 18: every answer gets a row of its own"]
    model = made(PolicyModel, "mistral")
    model.backbone.config.sliding_window = 50
    assert pack(model, 50)
    assert not pack(made(PolicyModel, "gemma2"), LONGEST)  # caps its attention


class Forgetful(nn.Module):
    """Positions by column, whatever is said of them: a table too short for a row of many texts."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.inner, self.config = backbone, backbone.config

    def _can_set_attn_implementation(self) -> bool:
        return True

    def set_attn_implementation(self, name: str) -> None:
        self.inner.set_attn_implementation(name)

    def forward(self, position_ids: Tensor, **inputs: Any) -> Any:
        return self.inner(position_ids=torch.arange(position_ids.shape[1])[None], **inputs)


def test_positions_by_column_are_seen(said: Callable[[], list[str]]) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=VOCABULARY, **NO_IDS)
    backbone = AutoModel.from_config(config)
    nn.init.normal_(backbone.wpe.weight)
    model = RewardModel(Forgetful(backbone).eval())  # type: ignore[arg-type]
    nn.init.normal_(model.head.weight)
    refused(model)
    assert "scores packed rows otherwise" in said()[0]


def test_chunks_are_read_from_the_config_too(said: Callable[[], list[str]]) -> None:
    model = made(PolicyModel, "llama")
    model.backbone.config.attention_chunk_size = 6
    refused(model)
    assert said() == ["llama looks back 6 tokens, and texts have up to 17: every answer gets a row of its own"]


def test_what_a_precision_does_not_take_is_not_packed(said: Callable[[], list[str]]) -> None:
    """In the precision of the weights all is well."""

    def picky(module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.is_autocast_enabled("cpu") and kwargs["attention_mask"] is None:
            raise RuntimeError("expected scalar type Float but found BFloat16")

    model = made(PolicyModel, "gpt2").float()
    model.backbone.register_forward_pre_hook(picky, with_kwargs=True)
    before = model.backbone.config._attn_implementation
    assert not pack(model, LONGEST, precision="bf16-mixed")
    assert model.backbone.config._attn_implementation == before
    assert "reads no packed rows (expected scalar type Float" in said()[0]
    assert pack(model, LONGEST)


@pytest.mark.parametrize("kind", [RewardModel, PolicyModel])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_saved_of_a_packed_model_is_what_is_saved_of_any(kind: type, name: str, tmp_path: Path) -> None:
    """And a model of the same folder begins with the usual attention."""
    for place in ("plain", "packed"):
        model = made(kind, name)
        assert place == "plain" or pack(model, LONGEST)
        model.save(tmp_path / place, Nothing())
    folders = (tmp_path / place / "model" for place in ("plain", "packed"))
    one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == other
    assert kind.load(tmp_path / "packed").backbone.config._attn_implementation == "sdpa"


class Nothing:
    """A tokenizer that leaves no files."""

    def save_pretrained(self, folder: Path) -> None: ...


def test_a_memory_that_is_full_says_nothing_about_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    model = made(PolicyModel, "gpt2")
    monkeypatch.setattr(packing, "packed", full)
    with pytest.raises(torch.OutOfMemoryError):
        pack(model, LONGEST)
