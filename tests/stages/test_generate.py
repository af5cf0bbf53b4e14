"""What policies are made to say: greedy, plain, within context and length, to the byte again; and its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from w2sd.atomic import write_json
from w2sd.data.pairs import Pair, read
from w2sd.data.sources import Files
from w2sd.logger import Csv
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.stage import Task
from w2sd.stages import generate
from w2sd.stages.generate import figures, repetition

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from families import FAMILIES

CONTEXT = 48
ENDS = {"gpt2": True, "bare": False, "llama2": True, "qwen": True}
KINDS = [("gpt2", "gpt2"), ("gpt2", "bare"), ("llama", "llama2"), ("llama", "bare"), ("llama", "qwen")]


def model(architecture: str, size: int) -> Any:
    """Random weights, large enough for a model with opinions."""
    torch.manual_seed(0)
    if architecture == "gpt2":
        shape = GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, initializer_range=0.5)
        return GPT2LMHeadModel(shape)
    width = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=size, **width, max_position_embeddings=CONTEXT, initializer_range=0.5)
    )


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """The task of a tiny policy on a file of pairs, some of which share a prompt."""
    rows = []
    for n in range(24):
        prompt = f"\n\nHuman: Tell me {n // 2} of them.\n\nAssistant:"
        rows.append({"prompt": prompt, "chosen": f" No {n}, ask!", "rejected": f" Yes, {n} it is"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def made(
        architecture: str = "gpt2",
        family: str = "gpt2",
        change: Callable[[Any], None] = lambda lm: None,
        **params: Any,
    ) -> Task:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        folders = {folder: place / folder for folder in ("out", "work", "logs")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        tokenizer = FAMILIES[family]()
        lm = model(architecture, len(tokenizer))
        change(lm)
        lm.save_pretrained(place / "trained/model")
        tokenizer.save_pretrained(place / "trained/model")
        write_json(place / "trained/spec.json", {"params": {"append_eos": "auto"}})
        data = Files(path=str(tmp_path / "pairs.jsonl"), max_tokens=CONTEXT)
        asked = {"data": data, "split": "test", "prompts": 3, "max_new_tokens": 64, "seed": 0, **params}
        return Task(
            "0" * 12,
            "generate",
            asked,
            {"model": place / "trained"},
            trainer=Trainer(),
            logger=Csv(),
            name="test",
            advance=lambda done, total: None,
            **folders,
        )

    return made


def samples(task: Task) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (task.out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def by_hand(task: Task, prompt: str, longest: int) -> tuple[list[int], bool]:
    """One likeliest token after the other, each from a whole forward pass."""
    tokenizer = generate.load_tokenizer(task.inputs["model"] / "model")
    lm = generate.load_language_model(task.inputs["model"] / "model").eval()
    ids = tokenizer(prompt)["input_ids"]
    said: list[int] = []
    while len(said) < longest:
        token = int(lm(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            return said, True
        said.append(token)
    return said, False


def longest(task: Task, family: str) -> int:
    """The longest answer of the test split, with the end token where there is one."""
    tokenizer = FAMILIES[family]()
    anchor = len(tokenizer("\n", add_special_tokens=False)["input_ids"])
    sides = [side for pair in read(task.params["data"]).rows("test") for side in (pair.chosen, pair.rejected)]
    lengths = [len(tokenizer("\n" + side, add_special_tokens=False)["input_ids"]) - anchor for side in sides]
    return max(lengths) + ENDS[family]


@pytest.mark.parametrize(("architecture", "family"), KINDS)
def test_answers_are_greedy_and_no_longer_than_those_of_the_data(
    task: Callable[..., Task], architecture: str, family: str
) -> None:
    """Without an end token no model ends: not at the id that its architecture ends with by default either."""
    at = task(architecture, family)
    said = generate.run(at)
    most, tokenizer = longest(at, family), FAMILIES[family]()
    for row in samples(at):
        tokens, ended = by_hand(at, row["prompt"], most)
        assert (row["text"], row["n_tokens"], row["ended"]) == (tokenizer.decode(tokens), len(tokens), ended)
        assert ended or len(tokens) == most
    assert said["n/prompts"] == 3
    assert ENDS[family] or said["generation/ended"] == 0


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_answer_stops_at_the_end_token_which_is_no_part_of_it(task: Callable[..., Task], architecture: str) -> None:
    family = {"gpt2": "gpt2", "llama": "llama2"}[architecture]
    end = FAMILIES[family]().eos_token_id

    def always_end(lm: Any) -> None:
        """A model whose last state is the same whatever it reads, and nearest to the end token."""
        lm.config.tie_word_embeddings = False
        lm.lm_head.weight = torch.nn.Parameter(torch.zeros_like(lm.lm_head.weight))
        final = lm.transformer.ln_f if architecture == "gpt2" else lm.model.norm
        if architecture == "gpt2":
            final.weight.data.zero_()
            final.bias.data.fill_(1.0)
            lm.lm_head.weight.data[end] = 1.0
        else:
            for layer in lm.model.layers:
                layer.self_attn.o_proj.weight.data.zero_()
                layer.mlp.down_proj.weight.data.zero_()
            lm.model.embed_tokens.weight.data.fill_(1.0)
            lm.lm_head.weight.data[end] = 1.0

    at = task(architecture, family, always_end)
    assert generate.run(at) == {
        "n/prompts": 3,
        "generation/length": 0,
        "generation/ended": 1,
        "generation/repetition": 0,
        "generation/distinct": pytest.approx(1 / 3),
    }
    assert {(row["text"], row["n_tokens"], row["ended"]) for row in samples(at)} == {("", 0, True)}


@pytest.mark.parametrize(("architecture", "family"), KINDS[:3])
def test_the_same_stage_writes_the_same_bytes(task: Callable[..., Task], architecture: str, family: str) -> None:
    one, other = task(architecture, family), task(architecture, family, seed=7)
    said = generate.run(one)
    torch.manual_seed(99)
    assert generate.run(other) == said
    assert (one.out / "samples.jsonl").read_bytes() == (other.out / "samples.jsonl").read_bytes()


def test_what_a_model_brings_along_for_its_own_decoding_is_left_out(task: Callable[..., Task]) -> None:
    def configured(lm: Any) -> None:
        lm.generation_config = GenerationConfig(
            do_sample=True, temperature=5.0, repetition_penalty=9.0, no_repeat_ngram_size=1, min_new_tokens=4
        )

    plain, own = task("llama", "llama2"), task("llama", "llama2", configured)
    assert generate.run(plain) == generate.run(own)
    assert samples(plain) == samples(own)


def test_prompts_are_the_first_different_ones_of_the_test_split(task: Callable[..., Task]) -> None:
    at = task(prompts=100)
    rows: dict[str, Pair] = {}
    for pair in read(at.params["data"]).rows("test"):
        rows.setdefault(pair.prompt, pair)
    assert generate.run(at)["n/prompts"] == len(rows) > 1
    assert [(row["id"], row["prompt"]) for row in samples(at)] == [(pair.id, pair.prompt) for pair in rows.values()]
    fewer = task(prompts=1)
    generate.run(fewer)
    assert samples(fewer) == samples(at)[:1]


def test_an_answer_ends_where_the_context_does_and_at_the_limit(task: Callable[..., Task]) -> None:
    lm = model("gpt2", 400).eval()
    import numpy as np

    prompt = np.arange(CONTEXT - 3, dtype=np.int32)
    assert len(generate.answer(lm, prompt, None, None, 64)[0]) == 3
    assert len(generate.answer(lm, prompt[:5], None, None, 64)[0]) == CONTEXT - 5
    limited = task("gpt2", "bare", max_new_tokens=2)
    assert generate.run(limited)["generation/length"] == 2


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "share"),
    [([], 0), ([1, 1, 1], 0), ([1] * 4, 0), ([1] * 5, 1 / 2), ([1] * 13, 9 / 10), ([*range(4)] * 2, 1 / 5)],
)
def test_repetition_is_the_share_of_4_grams_that_were_there_before(tokens: list[int], share: float) -> None:
    assert repetition(tokens) == pytest.approx(share)


def test_figures_are_means_over_answers() -> None:
    answers = [[1] * 5, [1] * 5, [1, 2, 3, 4, 5, 6], []]
    assert figures(answers, [False, False, True, True]) == pytest.approx(
        {"length": 4, "ended": 0.5, "repetition": 0.25, "distinct": 0.75}
    )
