"""What is read later is checked first, in every layout that a stage reads it in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.data.pairs import read
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


SMALL = ["data=world_classes", "data.gt=64", "data.w2s=64", "data.test=60", "supervision=filtered"]


@pytest.mark.parametrize(
    ("knobs", "which"),
    [
        (["stopping=labels"], "stopping.holdout=0.1 holds"),
        (["stopping=labels", "stopping.holdout=0.9"], "stopping.holdout=0.9 leaves"),
        (["supervision.k=64"], "w2s"),
        (["stopping=labels", "supervision=relabelled", "supervision.probe=topological"], "holds"),
    ],
)
def test_more_neighbours_than_a_half_has_are_refused_before_anything_is_trained(
    asked: Asked, tmp_path: Path, knobs: list[str], which: str
) -> None:
    run = asked(*SMALL, f"store={tmp_path / 'store'}", *knobs)
    with refused("supervision.k", ANY, which):
        preflight.check(run)


def test_as_many_neighbours_as_the_smallest_half_has_are_taken(asked: Asked, tmp_path: Path) -> None:
    words = [*SMALL, f"store={tmp_path / 'store'}", "stopping=labels"]
    with refused("supervision.k") as refusal:
        preflight.check(asked(*words))
    most = int(re.search(r"\d+", refusal.value.accepted)[0])
    preflight.check(asked(*words, f"supervision.k={most}"))
    preflight.check(asked(*words, "supervision.probe=logistic"))
    with refused("supervision.k"):
        preflight.check(asked(*words, f"supervision.k={most + 1}"))


@pytest.mark.parametrize("method", ["labels", "watch"])
@pytest.mark.parametrize(("holdout", "n_held"), [("0.00001", 0), ("0.99999", 64)])
def test_a_holdout_of_no_row_or_of_all_is_refused_before_anything_is_trained(
    asked: Asked, tmp_path: Path, method: str, holdout: str, n_held: int
) -> None:
    words = [*SMALL[:-1], f"store={tmp_path / 'store'}", f"stopping={method}"]
    preflight.check(asked(*words))
    with refused("stopping.holdout", float(holdout), f"64 gt {n_held}"):
        preflight.check(asked(*words, f"stopping.holdout={holdout}"))


def test_a_holdout_of_whole_clusters_is_refused_where_they_are_all_on_one_side(asked: Asked, tmp_path: Path) -> None:
    """All items of w2s are about one text, so that half of them is as good as none, or all."""
    run = asked(
        *SMALL[:-1], "data.w2s_parts=1", f"store={tmp_path / 'store'}", "stopping=labels", "stopping.holdout=.5"
    )
    table = read(run.data)
    together = [row._replace(cluster="one") if row.split == "w2s" else row for row in table.examples]
    preflight._check_trained_rows(run, table, 1)
    with refused("stopping.holdout", 0.5, "64 w2s"):
        preflight._check_trained_rows(run, table._replace(examples=together), 1)


@pytest.mark.parametrize(
    ("knobs", "n"), [(["data.w2s=4"], "4"), (["data.w2s=9", "stopping=labels", "stopping.holdout=.5"], "")]
)
def test_fewer_rows_than_a_threshold_needs_are_refused_before_anything_is_trained(
    asked: Asked, tmp_path: Path, knobs: list[str], n: str
) -> None:
    pairs = ["data.gt=64", "data.helpful=2", "data.unrelated=2", "data.test=60", f"store={tmp_path / 'store'}", *knobs]
    preflight.check(asked(*pairs))
    with refused("objective.min_rows", 8, f"{n} w2s"):
        preflight.check(asked(*pairs, "objective=logconf"))
    preflight.check(asked(*pairs, "objective=logconf", "objective.min_rows=2"))


def test_of_many_classes_no_row_is_too_few_for_a_threshold(asked: Asked, tmp_path: Path) -> None:
    words = [*SMALL[:-1], "data.w2s=6", f"store={tmp_path / 'store'}", "objective=logconf"]
    run = asked(*words)
    with refused("objective.min_rows"):
        preflight.check(run)
    three = SimpleNamespace(classes=("a", "b", "c"))
    preflight._check_trained_rows(run._replace(data=three), read(run.data), 1)  # type: ignore[arg-type]


def test_more_processes_than_cores_are_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "n_cores", lambda: 2)
    knobs = ["trainer=ddp", "trainer.accelerator=cpu"]
    preflight._check_devices(asked(*knobs, "trainer.devices=2").trainer)
    with refused("trainer.devices", 64):
        preflight.check(asked(*knobs, "trainer.devices=64"))


@pytest.mark.parametrize(("batch", "n_warnings"), [(8, 0), (9, 2)])
def test_a_batch_that_is_larger_than_all_rows_is_told_of(
    asked: Asked, caplog: pytest.LogCaptureFixture, batch: int, n_warnings: int
) -> None:
    sizes = [f"data.{knob}=8" for knob in ("gt", "w2s", "test", "helpful", "helpful_test", "unrelated")]
    run = asked(*sizes, f"fit.batch={batch}")
    preflight._check_trained_rows(run, read(run.data), 1)
    assert [record.args for record in caplog.records] == [(batch, 8, split) for split in ("gt", "w2s")][:n_warnings]


@pytest.mark.parametrize(("has_gpu", "said"), [(True, "the GPU (a card)"), (False, "the CPU")])
def test_where_it_computes_is_told(asked: Asked, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, said: str) -> None:
    monkeypatch.setattr(preflight, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a card")
    assert preflight.device(asked().trainer).startswith(said)
