"""The replication presets for real models: what they say, and that they run on tiny models of the same kinds."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPT2Config, MistralConfig, OPTConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from tests.builders import comparisons, refused
from tests.data.families import FAMILIES
from tests.smoke.test_chain import results, run
from w2sd.cli import CONF
from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict
from w2sd.conflicts.explicit import Explicit
from w2sd.conflicts.implicit import Implicit
from w2sd.data.pairs import read
from w2sd.data.sources import Files
from w2sd.identity import target
from w2sd.objectives.preference import DPO, SimPO
from w2sd.objectives.reward import RewardBCE
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.checks import check_rows
from w2sd.pipeline.plan import plan
from w2sd.stages import preflight
from w2sd.supervision.teacher import Hard, Soft

PRESETS = sorted(path.stem for path in (CONF / "experiment/paper").glob("*.yaml"))
CONFLICTS = {"none": NoConflict(), "implicit": Implicit(ratio=1.0), "explicit": Explicit(alpha=0.5, mask="truth")}
README = Path(__file__).parents[1] / "experiments/paper/README.md"
each_preset = pytest.mark.parametrize("name", PRESETS)

# methods.md 2.10, column by column
CONSTANT = {"schedule": "constant", "warmup": 0.1}
SHARED = {"batch": 32, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 0.0, "dropout": False}
PAPER: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "reward": (RewardBCE(), Soft(), {"lr": 1e-5, "epochs": 1, "schedule": "cosine", "warmup": 0.0, "floor": 0.0}),
    "simpo": (SimPO(beta=2.0, gamma=1.0, sft_weight=0.0), Hard(), {"lr": 1e-6, "epochs": 1, **CONSTANT}),
    "dpo": (DPO(beta=0.1, label_smoothing=0.0), Hard(), {"lr": 1e-6, "epochs": 3, **CONSTANT}),
}
SFT = {"lr": 1e-6, "epochs": 1, **CONSTANT, **SHARED}
REAL: dict[str, PretrainedConfig] = {  # the published shapes, for their numbers of parameters
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "facebook/opt-2.7b": OPTConfig(hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, ffn_dim=10240),
    "facebook/opt-6.7b": OPTConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, ffn_dim=16384),
    "mistralai/Mistral-7B-v0.1": MistralConfig(tie_word_embeddings=False),
}


def kind_of(name: str) -> str:
    return name.removeprefix("bootstrap_").removesuffix("_cai")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of the names and columns that the presets ask for, with few rows."""
    monkeypatch.setenv("W2SD_DATA", str(tmp_path))
    folder = tmp_path / "cai_harmless_w2s"
    folder.mkdir()
    n_rows = {"harmless_train_gt": 20, "harmless_train_w2s": 48, "harmless_test": 20, "helpful_train": 36}
    for name, n in n_rows.items():
        asked = [f"\n\nHuman: {name} number {i}?\n\nAssistant:" for i in range(n)]
        rows = [
            {"chosen": f"{prompt} No, ask a baker.", "rejected": f"{prompt} Mix {i}"} for i, prompt in enumerate(asked)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a tiny model of each architecture and a tokenizer with the habits of its family."""
    shapes: dict[str, Callable[[int], PretrainedConfig]] = {
        "gpt2": lambda n: GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=n),
        "opt": lambda n: OPTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, word_embed_proj_dim=8, vocab_size=n
        ),
        "mistral": lambda n: MistralConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=16,
            vocab_size=n,
        ),
    }
    made = {}
    for family, shape in shapes.items():
        place, tokenizer = tmp_path_factory.mktemp(family), FAMILIES[family]()
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(shape(len(tokenizer))).save_pretrained(place)
        tokenizer.save_pretrained(place)
        made[family] = str(place)
    return made


def family(hub_id: str) -> str:
    return next(name for name in ("gpt2", "opt", "mistral") if name in hub_id.lower())


def small(name: str, asked: Callable[..., RunConfig], tiny_models: dict[str, str]) -> list[str]:
    """The preset with every model replaced by a tiny one of its architecture, on the CPU."""
    meant = asked(f"experiment=paper/{name}")
    models = {"weak": meant.weak, "strong": meant.strong}
    models |= {f"chain.between.{hop}": model for hop, model in meant.chain.hops(meant.weak, meant.strong).items()}
    ids = [f"{role}.id={tiny_models[family(model.id)]}" for role, model in models.items()]
    return [f"experiment=paper/{name}", *ids, "trainer=cpu", "trainer.devices=1"]


def shrunk(run: RunConfig, tiny_models: dict[str, str]) -> RunConfig:
    """The same of a run that is composed already."""

    def tiny(model: Any) -> Any:
        return dataclasses.replace(model, id=tiny_models[family(model.id)])

    between = {hop: tiny(model) for hop, model in run.chain.hops(run.weak, run.strong).items()}
    chain = dataclasses.replace(run.chain, between=between) if between else run.chain
    return run._replace(weak=tiny(run.weak), strong=tiny(run.strong), chain=chain, trainer=Trainer())


# --- what they say ----------------------------------------------------------------------------------------------------


def test_there_is_a_preset_for_each_objective_with_and_without_a_chain() -> None:
    assert {f"{chain}{kind}_cai" for chain in ("", "bootstrap_") for kind in PAPER} == set(PRESETS)


@each_preset
def test_a_preset_has_the_values_of_the_paper(name: str, asked: Callable[..., RunConfig]) -> None:
    run = asked(f"experiment=paper/{name}")
    objective, supervision, fit = PAPER[kind_of(name)]
    assert (run.objective, run.supervision) == (objective, supervision)
    found = dataclasses.asdict(run.fit)
    assert {knob: found[knob] for knob in fit | SHARED} == fit | SHARED
    assert (run.data.limit, run.data.max_tokens, run.data.w2s_parts) == (4000, 512, 2)
    assert run.settings.controls
    assert target(run.adapter) == "w2sd.parts.adapter.Full"
    if kind_of(name) != "reward":
        found = dataclasses.asdict(run.sft.fit)
        assert {knob: found[knob] for knob in SFT} == SFT


@each_preset
@pytest.mark.parametrize(("conflict", "expected"), CONFLICTS.items())
def test_a_preset_sweeps_over_the_conflicts_of_the_paper(
    name: str, conflict: str, expected: Any, asked: Callable[..., RunConfig]
) -> None:
    text = (CONF / f"experiment/paper/{name}.yaml").read_text()
    assert "\n      conflict: none,implicit,explicit\n      seed: 0,1,2,3\n" in text
    assert asked(f"experiment=paper/{name}", f"conflict={conflict}").conflict == expected


@each_preset
def test_a_preset_names_the_models_of_the_paper(name: str, asked: Callable[..., RunConfig]) -> None:
    run = asked(f"experiment=paper/{name}")
    chain = [run.weak.id, *(model.id for model in run.chain.hops(run.weak, run.strong).values()), run.strong.id]
    if not name.startswith("bootstrap_"):
        assert chain == ["gpt2", "facebook/opt-2.7b"]
        return
    assert chain == ["gpt2-large", "facebook/opt-2.7b", "mistralai/Mistral-7B-v0.1"]
    assert run.chain.reuse_prompts
    assert not run.chain.conflict_everywhere
    other = asked(f"experiment=paper/{name}", "model@chain.between.one=opt_6_7b")
    assert other.chain.between["one"].id == "facebook/opt-6.7b"


# --- what they are said to cost ---------------------------------------------------------------------------------------


@cache
def parameters() -> dict[str, int]:
    """How many each published model has."""
    with torch.device("meta"):
        models = {name: AutoModelForCausalLM.from_config(shape) for name, shape in REAL.items()}
    return {name: sum(weights.numel() for weights in model.parameters()) for name, model in models.items()}


def test_the_table_of_memory_follows_from_the_numbers_of_parameters() -> None:
    """Weights, gradients and two moments of Adam, 4 bytes each; activations as the presets say."""
    rows = re.findall(
        r"^\| `(\w+)` \| ([^ ]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (yes|no) \|$", README.read_text(), re.M
    )
    ids = {
        re.findall(r"^id: (\S+)", (CONF / f"model/{option}.yaml").read_text(), re.M)[0]: row for option, *row in rows
    }
    assert ids.keys() == REAL.keys()
    for name, n in parameters().items():
        states, activations = 16 * n / 1e9, 64 * REAL[name].hidden_size * REAL[name].num_hidden_layers * 2048 / 1e9
        fits = "yes" if states + activations < 80 else "no"
        assert ids[name] == [name, f"{n / 1e6:.0f}", f"{states:.1f}", f"{activations:.1f}", fits]


def work(runs: list[RunConfig]) -> tuple[float, float]:
    """FLOP and bytes of weights of all distinct stages: 4,000 rows, two answers of 512 tokens each."""
    size, total, stored = parameters(), 0.0, 0.0
    rows = {"gt": 4000, "test": 4000, "w2s": 12000}  # w2s: two parts, and helpful rows
    for stage in {stage.key: stage for one in runs for stage in plan(one).values()}.values():
        model: Any = stage.params.get("model") or getattr(stage.inputs.get("model"), "params", {}).get("model")
        if stage.kind in ("train", "sft"):
            extra = getattr(stage.params["conflict"], "ratio", 0.0)
            answers = 4000 * (1 + extra) * stage.params["fit"].epochs * (2 if stage.kind == "train" else 1)
            total += 6 * size[model.id] * 512 * answers
            stored += 4 * size[model.id]
        elif stage.kind in ("label", "evaluate", "reference"):
            total += 2 * size[model.id] * 512 * 2 * rows[stage.params["split"]]
    return total, stored


@pytest.mark.slow
@each_preset
def test_the_cost_in_a_preset_is_that_of_its_plan(name: str, at_home: Path, asked: Callable[..., RunConfig]) -> None:
    runs = []
    for conflict in CONFLICTS:
        one = asked(f"experiment=paper/{name}", f"conflict={conflict}")
        runs += [one._replace(settings=dataclasses.replace(one.settings, seed=seed)) for seed in range(4)]
    flop, stored = work(runs)
    said = (CONF / f"experiment/paper/{name}.yaml").read_text().replace("\n#", "")
    expected = (f"{flop:.1e} FLOP for all jobs", f"{flop / 3e13 / 3600:.0f} hours", f"{stored / 1e9:.0f} GB in all")
    assert [text for text in expected if text not in said] == []


# --- that they run ----------------------------------------------------------------------------------------------------


@each_preset
@pytest.mark.parametrize("conflict", CONFLICTS)
def test_a_preset_plans_and_passes_every_check_on_tiny_models(
    name: str, conflict: str, at_home: Path, asked: Callable[..., RunConfig], tiny_models: dict[str, str]
) -> None:
    run = shrunk(asked(f"experiment=paper/{name}", f"conflict={conflict}"), tiny_models)
    assert isinstance(run.data, Files)
    stages = plan(run)
    assert list(stages)[-1] == "compare"
    assert ("train/student_hop_1" in stages) == name.startswith("bootstrap_")
    assert ("sft/student" in stages) == (kind_of(name) != "reward")
    preflight.check(run)


def test_controls_need_more_rows_than_the_paper_had(
    at_home: Path, asked: Callable[..., RunConfig], tiny_models: dict[str, str]
) -> None:
    run = shrunk(asked("experiment=paper/reward_cai", "conflict=implicit", "conflict.ratio=.5"), tiny_models)
    run = run._replace(data=dataclasses.replace(run.data, w2s_parts=1))
    with refused("conflict.ratio", ANY, "data.w2s_parts 2"):
        check_rows(run, read(run.data))
    check_rows(run._replace(settings=dataclasses.replace(run.settings, controls=False)), read(run.data))


@pytest.mark.smoke
def test_simpo_runs_one_step_from_gpt2_to_opt_under_the_explicit_conflict(
    at_home: Path, asked: Callable[..., RunConfig], tiny_models: dict[str, str]
) -> None:
    words = [*small("simpo_cai", asked, tiny_models), "conflict=explicit", "seed=0", "twin_seeds=[1]", "samples=1"]
    ran = run(at_home, *words, fast=False)
    assert ran.code == 0
    [compared] = comparisons(ran.store).values()
    assert compared["data/n_test"] == 20
    steps = [json.loads(text)["n/steps"] for name, text in results(ran.store).items() if name.startswith("train")]
    assert set(steps) == {1}  # in every arm
    for path in ran.store.glob("artifacts/evaluate-*/predictions.parquet"):
        assert all(value < 0 for value in pq.read_table(path)["logp_chosen"].to_pylist())
