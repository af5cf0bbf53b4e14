"""Adapters: which weights are trained, what is added begins as nothing, and what is saved is an ordinary model."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import assert_refusal, refused
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import CohereConfig, LlamaConfig, PreTrainedTokenizerFast

from w2sd import cli
from w2sd.config import RunConfig
from w2sd.data.layout import Text, Tokens, masked, packed, plain
from w2sd.identity import identity
from w2sd.models.heads import HeadedModel, PolicyModel, RewardModel
from w2sd.models.packing import pack
from w2sd.models.scratch import ARCHITECTURES, Scratch
from w2sd.parts.adapter import Full, HeadOnly, LinearProbe, Lora
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import stream

try:
    import peft
except ImportError:
    peft = None

needs_peft = pytest.mark.skipif(peft is None, reason="peft is not installed (the extra lora)")
Model = RewardModel | PolicyModel
VOCABULARY = 23
IDS, MASK = (
    torch.tensor([[3, 9, 4, 0], [7, 1, 12, 22], [5, 8, 0, 0]]),
    torch.tensor([[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0]]),
)
ANSWERS = torch.tensor([1, 3, 1])
TEXTS = [
    Text(np.array([3, 9, 4]), (np.array([7, 1]), np.array([12]))),
    Text(np.array([22]), (np.array([5, 8, 2]), np.array([1, 6]))),
]
USUAL = dict.fromkeys(ARCHITECTURES, ("q_proj", "v_proj")) | {"gpt2": ("c_attn",)}  # in each of the two layers
TIED = ("gpt2", "opt")  # whose output embedding is the input embedding
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 11}

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_kind = pytest.mark.parametrize("kind", [RewardModel, PolicyModel], ids=["reward", "policy"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 23 words."""
    place = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(place)
    return place


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


@pytest.fixture
def fresh(folder: Path) -> Callable[..., Model]:
    """A small model, always the same, without dropout."""

    def made(kind: type, architecture: str) -> Model:
        part = Scratch(architecture, width=16, layers=2, heads=2, context=32, tokenizer=str(folder), init_seed=3)
        if kind is PolicyModel:
            return PolicyModel(part.open_language_model(None)).eval()
        return RewardModel(part.open_backbone(None), seed=1).eval()

    return made


def ask(model: Model) -> Tensor:
    return model(masked(IDS, MASK, ANSWERS))


def trained(model: Model) -> dict[str, Tensor]:
    return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}


def train(model: Model, steps: int = 2) -> None:
    optimiser = torch.optim.AdamW(trained(model).values(), lr=0.05, weight_decay=0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        (ask(model) * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        optimiser.step()


# --- full and head only -----------------------------------------------------------------------------------------------


@each_architecture
@each_kind
def test_full_trains_everything_and_adds_nothing(fresh: Callable[..., Model], kind: type, architecture: str) -> None:
    model, before = fresh(kind, architecture), fresh(kind, architecture)
    Full().check(model.backbone.config, kind is PolicyModel)
    Full().apply(model, 5)
    Full().merge(model)
    assert list(trained(model)) == [name for name, _ in before.named_parameters()]


@each_architecture
def test_of_a_reward_model_the_scalar_head_alone_is_trained(fresh: Callable[..., Model], architecture: str) -> None:
    model = fresh(RewardModel, architecture)
    HeadOnly().check(model.backbone.config, is_policy=False)  # its transformer may be tied: it has no output embedding
    HeadOnly().apply(model, 5)
    assert set(trained(model)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(TIED)))
def test_of_a_policy_the_output_embedding_alone_is_trained(fresh: Callable[..., Model], architecture: str) -> None:
    model, before = fresh(PolicyModel, architecture), fresh(PolicyModel, architecture)
    HeadOnly().check(model.backbone.config, is_policy=True)
    HeadOnly().apply(model, 5)
    assert set(trained(model)) == {"lm.lm_head.weight"}
    train(model)
    changed = {
        name for name, weights in model.state_dict().items() if not torch.equal(weights, before.state_dict()[name])
    }
    assert changed == {"lm.lm_head.weight"}


@pytest.mark.parametrize("architecture", TIED)
def test_an_output_embedding_that_is_the_input_embedding_is_not_trained_alone(
    fresh: Callable[..., Model], architecture: str
) -> None:
    model = fresh(PolicyModel, architecture)
    with refused("adapter", "head_only", f"full lora {architecture}"):
        HeadOnly().check(model.backbone.config, is_policy=True)
    with refused("adapter", "head_only", f"full lora {architecture}"):
        HeadOnly().apply(model)


# --- lora: what is trained --------------------------------------------------------------------------------------------


@needs_peft
def test_the_head_of_a_classifier_is_trained_beside_what_is_added(fresh: Callable[..., Model]) -> None:
    model = HeadedModel(fresh(RewardModel, "gpt2").backbone, 0, 3)
    Lora(targets=["c_attn"]).apply(model)
    assert {"head.weight", "head.bias"} <= {name for name, weights in model.named_parameters() if weights.requires_grad}


@needs_peft
@each_architecture
@each_kind
def test_low_rank_additions_begin_as_nothing(fresh: Callable[..., Model], kind: type, architecture: str) -> None:
    model = fresh(kind, architecture)
    before = ask(model)
    Lora(r=4, alpha=32.0).apply(model, 5)
    assert torch.equal(ask(model), before)


@needs_peft
@each_architecture
@each_kind
def test_additions_and_a_scalar_head_are_all_that_is_trained_and_each_moves(
    fresh: Callable[..., Model], kind: type, architecture: str
) -> None:
    model = fresh(kind, architecture)
    Lora(r=4).apply(model, 5)
    added = {name for name in trained(model) if ".lora_" in name}
    assert set(trained(model)) - added == ({"head.weight", "head.bias"} if kind is RewardModel else set())
    assert len(added) == 2 * 2 * len(USUAL[architecture])  # A and B, in two layers
    for name in added:
        layer = name.partition(".lora_")[0].rpartition(".")[2]
        assert layer in USUAL[architecture]

    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    train(model)
    changed = {name for name, weights in model.named_parameters() if not torch.equal(weights, before[name])}
    assert changed == set(trained(model))


@needs_peft
@pytest.mark.parametrize(
    ("architecture", "targets", "layers"),
    [
        ("gpt2", ["c_proj"], ["h.*.attn.c_proj", "h.*.mlp.c_proj"]),
        ("gpt2", ["attn.c_proj", "c_fc"], ["h.*.attn.c_proj", "h.*.mlp.c_fc"]),
        ("llama", ["self_attn.o_proj", "up_proj"], ["layers.*.self_attn.o_proj", "layers.*.mlp.up_proj"]),
        ("opt", ["fc1"], ["decoder.layers.*.fc1"]),
        ("qwen2", ["1.self_attn.q_proj"], ["layers.1.self_attn.q_proj"]),
    ],
)
def test_targets_are_the_ends_of_names(
    fresh: Callable[..., Model], architecture: str, targets: list[str], layers: list[str]
) -> None:
    model, before = fresh(RewardModel, architecture), ask(fresh(RewardModel, architecture))
    adapter = Lora(r=2, targets=targets)
    adapter.check(model.backbone.config, is_policy=False)
    adapter.apply(model, 5)
    where = {name.partition(".lora_")[0] for name in trained(model) if ".lora_" in name}
    assert where == {f"backbone.{layer.replace('*', number)}" for layer in layers for number in "01"}
    assert torch.equal(ask(model), before)


@needs_peft
def test_many_layers_are_found_each(folder: Path) -> None:
    part = Scratch("llama", width=8, layers=25, heads=2, context=32, tokenizer=str(folder))
    model = RewardModel(part.open_backbone(None))
    Lora(r=1, targets=["q_proj", "mlp.up_proj"]).apply(model)
    assert len(trained(model)) == 2 * 2 * 25 + 2


@needs_peft
def test_additions_have_a_rank_a_scale_and_a_dropout_of_their_own(fresh: Callable[..., Model]) -> None:
    model = fresh(PolicyModel, "llama")
    before = copy.deepcopy(model)
    Lora(r=3, alpha=12.0, dropout=0.5).apply(model, 5)
    layer: Any = model.backbone.get_submodule("layers.0.self_attn.q_proj")
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    assert (a.shape, b.shape) == ((3, 16), (16, 3))
    with torch.no_grad():
        b.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    old: Any = before.backbone.get_submodule("layers.0.self_attn.q_proj")
    torch.testing.assert_close(layer.eval()(x), old(x) + 12.0 / 3 * x @ a.T @ b.T)
    assert not torch.equal(layer.train()(x), layer.train()(x))


@needs_peft
@each_kind
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_packed_rows_move_additions_as_padded_rows_do(
    fresh: Callable[..., Model], kind: type, architecture: str
) -> None:
    model = fresh(kind, architecture)
    Lora(r=2).apply(model, 5)
    train(model)  # away from nothing

    def gradients(layout: Callable[[list[Text]], Tokens]) -> list[Tensor]:
        loss = (model(layout(TEXTS)) * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(trained(model).values()))]

    padded = gradients(plain)
    assert all(gradient.abs().max() > 1e-4 for gradient in padded)
    assert pack(model, 8)
    for here, there in zip(gradients(packed), padded, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-5)


# --- lora: where its weights come from --------------------------------------------------------------------------------


@needs_peft
@each_architecture
def test_the_seed_alone_decides_the_weights_that_are_added(fresh: Callable[..., Model], architecture: str) -> None:
    def added(seed: int, drawn_before: int) -> dict[str, Tensor]:
        torch.manual_seed(drawn_before)
        torch.rand(drawn_before)
        model = fresh(RewardModel, architecture)
        state = torch.get_rng_state()
        Lora().apply(model, seed)
        assert torch.equal(torch.get_rng_state(), state)  # nor does it disturb what comes after
        return {name: weights for name, weights in trained(model).items() if ".lora_A" in name}

    first, again, other = added(7, 1), added(7, 2), added(8, 1)
    assert all(torch.equal(weights, again[name]) for name, weights in first.items())
    assert not any(torch.equal(weights, other[name]) for name, weights in first.items())
    assert len({weights.flatten()[0].item() for weights in first.values()}) == len(first)


# --- lora: what is saved ----------------------------------------------------------------------------------------------


@needs_peft
@each_architecture
@each_kind
def test_what_was_saved_is_an_ordinary_model_that_scores_the_same_without_peft(
    fresh: Callable[..., Model], kind: Any, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ordinary = fresh(kind, architecture), fresh(kind, architecture)
    adapter = Lora(r=4)
    adapter.apply(model, 5)
    train(model)
    scores = ask(model)
    assert (scores - ask(ordinary)).abs().max() > 0.01

    adapter.merge(model)
    torch.testing.assert_close(ask(model), scores, rtol=0, atol=1e-5)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in ordinary.named_modules()]
    model.save(tmp_path / "merged", tokenizer())
    ordinary.save(tmp_path / "ordinary", tokenizer())
    monkeypatch.setitem(sys.modules, "peft", None)
    loaded = kind.load(tmp_path / "merged").eval()
    torch.testing.assert_close(ask(loaded), scores, rtol=0, atol=1e-5)
    assert list(loaded.state_dict()) == list(ordinary.state_dict())
    files = contents(tmp_path / "merged")
    assert files == contents(tmp_path / "ordinary")
    assert any(name.endswith(".weight") for name in files["model/model.safetensors"])


def contents(folder: Path) -> dict[str, Any]:
    """The files of a saved model: names and shapes of weights, the bytes of everything else."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*.*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = {weights: tuple(value.shape) for weights, value in load_file(path).items()}
        else:
            found[name] = path.read_bytes()
    return found


@needs_peft
@each_kind
def test_a_merged_model_can_be_adapted_again(fresh: Callable[..., Model], kind: type) -> None:
    """Fine-tuning and the training after it each have an adapter of their own."""
    model, adapter = fresh(kind, "gpt2"), Lora(r=2)
    for _ in range(2):
        adapter.apply(model, 5)
        before = ask(model)
        train(model)
        scores = ask(model)
        assert not torch.equal(scores, before)
        adapter.merge(model)
        torch.testing.assert_close(ask(model), scores, rtol=0, atol=1e-5)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("r", 0), ("r", -3), ("alpha", 0.0), ("alpha", float("inf")), ("alpha", float("nan"))),
        *(("dropout", 1.0), ("dropout", -0.1), ("dropout", float("nan"))),
    ],
)
def test_impossible_values_are_refused(asked: Callable[..., RunConfig], knob: str, value: float) -> None:
    with refused(knob, value):
        Lora(**{knob: value})  # type: ignore[arg-type]
    with refused(f"adapter.{knob}"):
        asked("adapter=lora", f"adapter.{knob}={value}")


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with refused("adapter", "lora", "EXTRAS=lora"):
        Lora().check_installed()
    for adapter in (Full(), HeadOnly(), LinearProbe()):
        adapter.check_installed()


@needs_peft
@pytest.mark.parametrize(
    ("architecture", "targets", "refusal"),
    [
        ("gpt2", ["c_atn"], ("c_atn", "gpt2 c_attn c_fc c_proj", "c_attn")),
        ("llama", ["q_proj", "vproj"], ("vproj", "gate_proj k_proj o_proj q_proj up_proj v_proj", "v_proj")),
        ("llama", ["attn.q_proj"], ("attn.q_proj", "", "self_attn.q_proj")),
        ("opt", ["proj"], ("proj", "opt fc1 fc2 k_proj out_proj q_proj v_proj", ANY)),
        ("llama", ["embed_tokens"], ("embed_tokens", "", ANY)),  # no linear layer, and perhaps the head as well
        ("mistral", ["lm_head"], ("lm_head", "", ANY)),
        ("qwen2", ["self_attn"], ("self_attn", "", ANY)),
        ("qwen2", [""], ("", "", ANY)),
    ],
)
@each_kind
def test_a_target_that_matches_nothing_is_refused_in_one_line(
    fresh: Callable[..., Model], kind: type, architecture: str, targets: list[str], refusal: tuple[Any, ...]
) -> None:
    model, adapter = fresh(kind, architecture), Lora(targets=targets)
    for ask_for in (lambda: adapter.check(model.backbone.config, True), lambda: adapter.apply(model)):
        with refused("adapter.targets", *refusal):
            ask_for()
    assert list(trained(model)) == [name for name, _ in fresh(kind, architecture).named_parameters()]


@needs_peft
def test_an_architecture_that_peft_does_not_know_needs_names() -> None:
    config = CohereConfig(**TINY)
    with refused("adapter.targets", [], "cohere q_proj"):
        Lora().check(config, is_policy=True)
    Lora(targets=["q_proj"]).check(config, is_policy=True)


@needs_peft
def test_a_large_model_is_checked_without_its_weights() -> None:
    Lora().check(LlamaConfig(hidden_size=8192, num_hidden_layers=80, intermediate_size=28672), is_policy=True)


# --- keys and a whole run ---------------------------------------------------------------------------------------------


def test_an_adapter_is_part_of_what_it_trains_and_full_is_known_as_it_always_was(
    asked: Callable[..., RunConfig],
) -> None:
    """Keys of whole runs with the full adapter are pinned where plans are tested."""
    assert identity(Full()) == {"_target_": "Full", "VERSION": 1}
    assert identity(HeadOnly()) == {"_target_": "HeadOnly", "VERSION": 1}
    runs = [(), *((f"adapter={name}",) for name in ("full", "head_only", "lora"))]
    runs += [("adapter=lora", f"adapter.{knob}") for knob in ("r=4", "alpha=1", "dropout=0.1", "targets=[q_proj]")]
    stages = [plan(asked(*overrides)) for overrides in runs]
    keys = [each["train/student"].key for each in stages]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1
    assert len({each["pretrain/strong"].key for each in stages}) == 1


def run(*overrides: str) -> int:
    argv = sys.argv
    sys.argv = ["w2sd", *overrides]
    try:
        return cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv


STREAMS = {"weak": 3, "ceiling": 3, "student": 7}


@needs_peft
@pytest.mark.smoke
@pytest.mark.parametrize("objective", ["reward_bce", "simpo"])
def test_a_run_with_low_rank_additions(
    objective: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, apply = [], Lora.apply
    monkeypatch.setattr(Lora, "apply", lambda self, model, seed: (seeds.append(seed), apply(self, model, seed)))
    assert run(f"objective={objective}", "adapter=lora", "adapter.dropout=0.1", "seed=7", "teacher_seed=3", *tiny) == 0
    drawn = [stream({"stream": role, "seed": seed}) for role, seed in STREAMS.items()]
    assert seeds == [seed for seed in drawn for _ in range(1 if objective == "reward_bce" else 2)]
    trainings = list((tmp_path / "store").glob("artifacts/train-*"))
    assert len(trainings) == 3
    for place in trainings:
        counted = json.loads((place / "metrics.json").read_text())
        assert 0 < counted["n/trained"] < counted["n/parameters"]
        assert not list(place.rglob("adapter*"))
        model = (RewardModel if objective == "reward_bce" else PolicyModel).load(place)
        assert not [name for name in model.state_dict() if "lora" in name or "base_layer" in name]


@needs_peft
@pytest.mark.smoke
def test_a_target_that_matches_nothing_is_refused_before_anything_is_trained(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adapter=lora", "adapter.targets=[q_prj]", *tiny) == 2
    assert_refusal(capsys.readouterr().err.splitlines()[-1], "adapter.targets", "q_prj", "", "q_proj")
    assert not list((tmp_path / "store").glob("artifacts/*"))


@pytest.mark.smoke
def test_the_head_alone_of_a_tied_policy_is_refused_before_anything_is_trained(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("objective=simpo", "adapter=head_only", *tiny) == 2
    assert_refusal(capsys.readouterr().err.splitlines()[-1], "adapter", "head_only", "full lora")
    assert not list((tmp_path / "store").glob("artifacts/*"))
