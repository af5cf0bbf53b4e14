"""Log-probabilities of answers: those of the full logits, whatever surrounds a row; saved and loaded as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import refused
from tokenizers import Tokenizer
from tokenizers import models as token_models
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from w2sd.data.layout import masked
from w2sd.models import heads, log_probs
from w2sd.models.heads import PolicyModel
from w2sd.models.prepare import silence_dropout
from w2sd.parts.adapter import HeadOnly

VOCABULARY = 23
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
OPT_SHAPE = {name: SHAPE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")} | {
    "ffn_dim": 24,
    "max_position_embeddings": 32,
}
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
PLAIN: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCABULARY, **NO_IDS),
    "opt": OPTConfig(**OPT_SHAPE, word_embed_proj_dim=16, vocab_size=VOCABULARY, **NO_IDS),
    "opt_projected": OPTConfig(**OPT_SHAPE, word_embed_proj_dim=8, vocab_size=VOCABULARY, **NO_IDS),
    "llama": LlamaConfig(**SHAPE, vocab_size=VOCABULARY, **NO_IDS),
    "mistral": MistralConfig(**SHAPE, vocab_size=VOCABULARY, sliding_window=4, **NO_IDS),
    "qwen2": Qwen2Config(**SHAPE, vocab_size=VOCABULARY, **NO_IDS),
    "qwen2_tied": Qwen2Config(**SHAPE, vocab_size=VOCABULARY, tie_word_embeddings=True, **NO_IDS),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8, vocab_size=VOCABULARY, **NO_IDS),
}
PECULIAR: dict[str, PretrainedConfig] = {  # their logits are more than the output embedding of the last state
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, vocab_size=VOCABULARY, final_logit_softcapping=0.5, **NO_IDS),
    "cohere": CohereConfig(**SHAPE, vocab_size=VOCABULARY, logit_scale=0.0625, **NO_IDS),
    "granite": GraniteConfig(**SHAPE, vocab_size=VOCABULARY, logits_scaling=3.0, **NO_IDS),
}
CONFIGS = PLAIN | PECULIAR
# Rows and how many of their last tokens are the answer; some hold 0 and 5, which the tests pad with.
ROWS = [[3, 9, 4], [7, 1, 0, 12, 22], [5, 0], [2, 8, 6, 5, 19, 20, 11], [13, 14, 5], [0, 5, 5, 0]]
ANSWERS = [1, 3, 1, 6, 2, 1]


def policy(name: str) -> PolicyModel:
    """A small policy in double precision, far from the tiny start, so that attention to a wrong token would show."""
    torch.manual_seed(3)
    lm = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float64)
    with torch.no_grad():
        for weights in lm.parameters():
            if weights.ndim > 1:
                weights.mul_(5)
    silence_dropout(lm)
    return PolicyModel(lm).train()


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PolicyModel:
    return policy(request.param)


def padded(rows: list[list[int]], side: str = "right", more: int = 0, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask with `more` columns than needed."""
    width = max(map(len, rows)) + more
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[n, place], mask[n, place] = torch.tensor(row), 1
    return ids, mask


@torch.no_grad()
def ask(model: PolicyModel, rows: list[list[int]], answers: list[int], *how: Any) -> Tensor:
    return model(masked(*padded(rows, *how), torch.tensor(answers)))


def tokens_by_hand(model: PolicyModel, row: list[int]) -> Tensor:
    """The log-probability of every token but the first: one row, no padding, mask or positions; ln of a softmax."""
    logits_TV = model.lm(input_ids=torch.tensor([row])).logits[0, :-1].double()
    exp_TV = (logits_TV - logits_TV.max(dim=1, keepdim=True).values).exp()
    p_TV = exp_TV / exp_TV.sum(dim=1, keepdim=True)
    return torch.stack([p_TV[t, token].log() for t, token in enumerate(row[1:])])


@torch.no_grad()
def by_hand(model: PolicyModel, rows: list[list[int]], answers: list[int]) -> Tensor:
    return torch.stack([tokens_by_hand(model, row)[-n:].sum() for row, n in zip(rows, answers, strict=True)])


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Some architectures turn positions and norms in single precision whatever their weights are."""
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


# --- one function, against vectors and against the full logits --------------------------------------------------------

V13_LOGITS = [[0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [0.5, 0.5, -0.5], [3.0, 0.0, 0.0]]
V13_IDS, V13_ANSWER = [2, 1, 0, 0], 2  # mask [0, 0, 1, 1]
V13_TOKENS = [-1.4076059644443804, -0.5514447139320511, -0.8619948040582511]
V13_SUM, V13_MEAN = -1.413439517990302, -0.706719758995151


class Table(torch.nn.Module):
    """A language model whose logits are a table, by the place of a token."""

    device = torch.device("cpu")

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        states = torch.eye(4, dtype=torch.float64)[: input_ids.shape[1]].expand(len(input_ids), -1, -1)
        logits = states @ torch.tensor(V13_LOGITS, dtype=torch.float64)
        return type("Said", (), {"last_hidden_state": states, "logits": logits})

    @property
    def base_model(self) -> Table:
        return self

    def get_output_embeddings(self) -> Any:
        head = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
        head.weight = torch.nn.Parameter(torch.tensor(V13_LOGITS, dtype=torch.float64).T)
        return head


@pytest.mark.parametrize(("n", "expected"), [(1, V13_TOKENS[2:]), (2, V13_TOKENS[1:]), (3, V13_TOKENS)])
def test_v13(n: int, expected: list[float]) -> None:
    model = PolicyModel(Table())  # type: ignore[arg-type]
    said = model(masked(torch.tensor([V13_IDS]), torch.ones(1, 4, dtype=torch.long), torch.tensor([n])))
    assert said.item() == pytest.approx(sum(expected), abs=1e-12)
    if n == V13_ANSWER:
        assert said.item() == pytest.approx(V13_SUM, abs=1e-12)
        assert said.item() / n == pytest.approx(V13_MEAN, abs=1e-12)


def test_a_score_is_that_of_the_full_logits(model: PolicyModel) -> None:
    expected = by_hand(model, ROWS, ANSWERS)
    assert expected.std() > 0.1  # else everything would be equal
    assert_equal(ask(model, ROWS, ANSWERS), expected)


def test_in_single_precision_too(model: PolicyModel) -> None:
    single = PolicyModel(copy.deepcopy(model.lm).float())
    said = ask(single, ROWS, ANSWERS)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said.double(), by_hand(model, ROWS, ANSWERS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_weights_in_half_precision_are_summed_in_single(name: str) -> None:
    half = PolicyModel(copy.deepcopy(policy(name).lm).bfloat16())
    said = ask(half, ROWS, ANSWERS)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said.double(), by_hand(policy(name), ROWS, ANSWERS), rtol=0.2, atol=0.5)


def test_gradients_are_those_of_the_full_logits(model: PolicyModel) -> None:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(
        sum(tokens_by_hand(model, row)[-n:].sum() for row, n in zip(ROWS, ANSWERS, strict=True)), weights
    )
    said = model(masked(*padded(ROWS, "right", 3), torch.tensor(ANSWERS)))
    for one, other in zip(torch.autograd.grad(said.sum(), weights), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("piece", [1, 3, 14, 1000])
@pytest.mark.parametrize("kept", [0, 7 * VOCABULARY, 2**24])
def test_logits_in_pieces_change_nothing(name: str, piece: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait for their gradient, of which one may be taken twice."""
    model = policy(name)
    weights = list(model.parameters())
    whole = model(masked(*padded(ROWS), torch.tensor(ANSWERS)))
    expected = torch.autograd.grad(whole.sum(), weights)
    monkeypatch.setattr(log_probs, "PIECE", piece)
    monkeypatch.setattr(log_probs, "KEPT", kept)
    monkeypatch.setattr(heads, "PIECE", piece)
    in_pieces = model(masked(*padded(ROWS), torch.tensor(ANSWERS)))
    assert_equal(in_pieces, whole)
    for _ in range(2):
        for one, other in zip(torch.autograd.grad(in_pieces.sum(), weights, retain_graph=True), expected, strict=True):
            assert_equal(one, other)


class Logits(TorchDispatchMode):
    """Notes for how many tokens logits are made at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.n_tokens: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "mm" in str(func) and result.shape[-1] == VOCABULARY:
            self.n_tokens.append(result.numel() // VOCABULARY)
        return result


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("piece", [3, 1000])
@pytest.mark.parametrize("kept", [0, 2**24])
def test_logits_are_made_of_answers_alone_and_few_at_a_time(
    name: str, piece: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the scores, and once more for their gradient where they could not be kept."""
    monkeypatch.setattr(log_probs, "PIECE", piece)
    monkeypatch.setattr(log_probs, "KEPT", kept)
    model = policy(name)
    with Logits() as made:
        model(masked(*padded(ROWS), torch.tensor(ANSWERS))).sum().backward()
    assert max(made.n_tokens) == min(piece, sum(ANSWERS))
    assert sum(made.n_tokens) == sum(ANSWERS) * (1 if kept else 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_whose_logits_are_more_than_its_head_is_known_by_what_it_does(name: str) -> None:
    model = policy(name)
    assert model.has_plain_head == (name in PLAIN)
    fresh = PolicyModel(AutoModelForCausalLM.from_config(CONFIGS[name]))  # whose logits are close to nothing
    assert fresh.has_plain_head == (name in PLAIN)
    assert fresh.training
    assert not PolicyModel(fresh.lm.eval()).lm.training


# --- what surrounds a row ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("more", [0, 1, 9])
@pytest.mark.parametrize("pad", [0, 5])
def test_a_score_does_not_depend_on_side_amount_or_content_of_padding(
    model: PolicyModel, side: str, more: int, pad: int
) -> None:
    if side == "left" and model.lm.config.model_type == "gemma2":
        return  # in double precision its attention is no number where a token has none to attend to
    assert_equal(ask(model, ROWS, ANSWERS, side, more, pad), by_hand(model, ROWS, ANSWERS))


def test_a_score_does_not_depend_on_batch_mates_or_order(model: PolicyModel) -> None:
    together = ask(model, ROWS, ANSWERS)
    for n, (row, answer) in enumerate(zip(ROWS, ANSWERS, strict=True)):
        assert_equal(ask(model, [row], [answer]), together[n : n + 1])
    assert_equal(ask(model, ROWS[::-1], ANSWERS[::-1]), together.flip(0))


def test_an_id_that_looks_like_padding_counts_and_a_declared_pad_id_is_not_believed(model: PolicyModel) -> None:
    expected = by_hand(model, ROWS, ANSWERS)
    declared = model.lm.config.pad_token_id
    for claim in (0, 5, declared):
        model.lm.config.pad_token_id = claim
        assert_equal(ask(model, ROWS, ANSWERS, "right", 2, 5), expected)


def test_the_answer_is_all_that_counts_and_the_prompt_decides_it(model: PolicyModel) -> None:
    row = [3, 9, 4, 7, 2]
    every = tokens_by_hand(model, row)
    for n in range(1, len(row)):
        assert ask(model, [row], [n]).item() == pytest.approx(every[-n:].sum().item(), abs=1e-6)
    assert abs(ask(model, [[3, 9, 4, 7, 2], [3, 9, 5, 7, 2]], [2, 2]).diff().item()) > 1e-4


# --- which weights are trained ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_the_head_alone_is_trained_where_there_is_one(name: str) -> None:
    model = policy(name)
    if model.lm.config.tie_word_embeddings:
        with refused("adapter", "head_only"):
            HeadOnly().apply(model)
    else:
        HeadOnly().apply(model)
        trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
        assert trained == {"lm.lm_head.weight"}


# --- saving and loading -----------------------------------------------------------------------------------------------


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(token_models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


def test_what_was_saved_scores_the_same(model: PolicyModel, tmp_path: Path) -> None:
    single = PolicyModel(copy.deepcopy(model.lm).float()).eval()
    single.save(tmp_path, tokenizer())
    loaded = PolicyModel.load(tmp_path)
    assert loaded.training
    assert {weights.dtype for weights in loaded.parameters()} == {torch.float32}
    assert torch.equal(ask(loaded.eval(), ROWS, ANSWERS), ask(single, ROWS, ANSWERS))
    assert loaded.has_plain_head == single.has_plain_head
    tied = model.lm.config.tie_word_embeddings
    assert (loaded.head.weight is loaded.lm.get_input_embeddings().weight) == tied
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "model")) is type(model.lm)


def test_a_model_without_its_head_is_refused_and_not_filled_with_noise(tmp_path: Path) -> None:
    bare = policy("llama").lm.float().base_model
    bare.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    with refused("id", str(tmp_path / "model"), "lm_head.weight"):
        PolicyModel.load(tmp_path)
