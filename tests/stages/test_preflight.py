"""What is read later is checked first, in every layout that a stage reads it in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.stages import preflight

Asked = Callable[..., RunConfig]
ANSWERS = (" No, I would rather not. Ask a baker, or wait.", " Mix flour, water and yeast.")


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked) -> Callable[..., RunConfig]:
    """Policies on pairs that fit their context to the token, with a tokenizer that puts a space before every text."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    from families import FAMILIES

    tokenizer = FAMILIES["llama2"]()
    tokenizer.save_pretrained(tmp_path / "llama2")
    rows = [{"prompt": f"Human: Tell me {n}.", "chosen": ANSWERS[0], "rejected": ANSWERS[1]} for n in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    longest = len(tokenizer("\n" + ANSWERS[0])["input_ids"]) - len(tokenizer("\n")["input_ids"])
    shape = {"architecture": "llama", "width": 4, "layers": 1, "heads": 1, "tokenizer": tmp_path / "llama2"}
    knobs = [f"{role}.{knob}={value}" for role in ("weak", "strong") for knob, value in shape.items()]
    knobs += [f"data.max_tokens={longest + 2}", "data.append_eos=never"]  # beginning, one token of the prompt, answer
    data = ["data=files", f"data.path={tmp_path / 'pairs.jsonl'}", f"store={tmp_path / 'store'}"]
    models = ["model@weak=scratch", "model@strong=scratch", *knobs, "objective=dpo"]
    return lambda *overrides: asked(*data, *models, *overrides)


def test_what_a_probe_reads_of_a_policy_s_pairs_is_checked_as_it_reads_it(
    policies: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """As reward models do, prompt and answer apart: here with one token more than as a text that goes on."""
    preflight.check(policies())
    with refused(f"{tmp_path / 'pairs.jsonl'}:1", ANY, "strong"):
        preflight.check(policies("supervision=filtered", "data.long=refuse"))
    with refused("strong.context", ANY, "0"):
        preflight.check(policies("supervision=filtered"))


@pytest.mark.parametrize(
    ("knobs", "refusal"),
    [
        (["refinement=in_context"], ("refinement.words", " harmless", "vocabulary")),
        (["refinement=world", "refinement.words=['','haz0']"], ("refinement.words", ANY, "token")),
        (["refinement=world", "refinement.separator=none"], ("refinement.separator", "none")),
    ],
)
def test_words_that_a_refinement_cannot_ask_for_are_refused_before_anything_is_trained(
    asked: Asked, tmp_path: Path, knobs: list[str], refusal: tuple[Any, ...]
) -> None:
    small = ["data=world_classes", "data.gt=64", "data.w2s=64", "data.test=60", f"store={tmp_path / 'store'}"]
    preflight.check(asked(*small, "refinement=world"))
    with refused(*refusal):
        preflight.check(asked(*small, *knobs))


def test_more_processes_than_cores_are_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "n_cores", lambda: 2)
    knobs = ["trainer=ddp", "trainer.accelerator=cpu"]
    preflight._check_devices(asked(*knobs, "trainer.devices=2").trainer)
    with refused("trainer.devices", 64):
        preflight.check(asked(*knobs, "trainer.devices=64"))


@pytest.mark.parametrize(("has_gpu", "said"), [(True, "the GPU (a card)"), (False, "the CPU")])
def test_where_it_computes_is_told(asked: Asked, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, said: str) -> None:
    monkeypatch.setattr(preflight, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a card")
    assert preflight.device(asked().trainer).startswith(said)
