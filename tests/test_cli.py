"""The command line: what is wrong is one line and exit code 2, before anything is computed or written."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.builders import assert_refusal
from w2sd import __version__, cli
from w2sd.cli import CONF
from w2sd.config import RunConfig, Settings
from w2sd.data import pairs
from w2sd.errors import StageFailed
from w2sd.overrides import refusal
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.store import Store


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def w2sd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command as a function."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it; this puts it back afterwards
    monkeypatch.setattr(cli, "failed", [])

    def call(*words: str) -> Said:
        pairs._read.cache_clear()
        monkeypatch.setattr(sys, "argv", ["w2sd", *words])
        capsys.readouterr()
        try:
            code = cli.main()
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def tokenizer() -> str:
    """A byte-level BPE like GPT-2's, as JSON: 256 bytes and what it saw twice."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["question answer good bad"] * 4, trainer)
    return bpe.to_str()


def some(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(n)]


def write(path: str, rows: list[Any]) -> None:
    Path(path).write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str) -> Path:
    """A folder with models and pairs, good and bad ones."""
    monkeypatch.chdir(tmp_path)
    good = some(30)
    for folder in ("tok", "model", "empty", "weightless", "other"):
        Path(folder).mkdir()
    for folder in ("tok", "model", "weightless"):
        Path(folder, "tokenizer.json").write_text(tokenizer)
    for folder, vocabulary in (("model", 270), ("weightless", 270), ("other", 40)):
        shape = {"model_type": "gpt2", "vocab_size": vocabulary, "n_embd": 4, "bos_token_id": 0, "eos_token_id": 0}
        Path(folder, "config.json").write_text(json.dumps(shape))
        Path(folder, "tokenizer.json").write_text(tokenizer)
        Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    for folder in ("model", "other"):
        save_file({"wte.weight": np.zeros((2, 2), dtype=np.float32)}, f"{folder}/model.safetensors")
    shutil.copytree("model", "cut")
    Path("cut/model.safetensors").write_bytes(Path("model/model.safetensors").read_bytes()[:-1])
    Path("half").mkdir()
    Path("half/tokenizer.json").write_text(tokenizer[: len(tokenizer) // 2])
    write("good.jsonl", good)
    write("typo.jsonl", [{"prompt": "p", "choosen": "a", "rejected": "b"}])
    write("columns.jsonl", [{"text": "p", "label": 1}])
    write("broken.jsonl", [*good[:2], '{"prompt": "p", "chosen": ', *good[2:]])
    write("list.jsonl", [good[0], "[1, 2]"])
    write("silent.jsonl", [*good[:4], {**good[4], "chosen": ""}])
    write("number.jsonl", [good[0], {**good[1], "rejected": 7}])
    write("null.jsonl", [*good[:6], {**good[6], "prompt": None}])
    write("one.jsonl", good[:1])
    write("tagless.jsonl", [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in good])
    write("nothing.jsonl", [])
    write("equal.jsonl", [{**row, "rejected": row["chosen"]} for row in good])
    write("pairs.txt", good)
    Path("cut.jsonl.gz").write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in good))[:-9])
    return tmp_path


SCRATCH = ["model@weak=scratch", "model@strong=scratch", "weak.tokenizer=tok", "strong.tokenizer=tok"]
FILES = ["data=files", *SCRATCH]
BETWEEN_FILES = [*FILES, "data.path=good.jsonl", "chain=bootstrap"]
SMALL = [f"data.{size}=8" for size in ("gt", "w2s", "test", "helpful", "helpful_test", "unrelated")]

KEYS = "lr epochs batch betas"
BAD: dict[str, tuple[list[str], tuple[Any, ...]]] = {
    # words that do not exist
    "a group": (["objetive=x"], ("objetive", "x", "", "objective")),
    "a nested key": (["fit.lrr=1"], ("fit.lrr", "1", KEYS, "lr")),
    "a key below a value": (["fit.lr.x=3"], ("fit.lr.x", "3")),
    "an option": (["data=wrld"], ("data", "wrld", "", "world")),
    "an option of a model": (["model@weak=gtp2"], ("model", "gtp2", "gpt2_xl", "gpt2")),
    "an experiment": (["experiment=dmo"], ("experiment", "dmo", "", "demo")),
    "a swept key": (["-m", "fit.lrr=1,2"], ("fit.lrr", "1", KEYS, "lr")),
    # words that Hydra cannot read
    "half a list": (["fit.betas=[1"], ("fit.betas", "[1", "KEY=VALUE")),
    "braces": (["data.format.text={x}"], ("data.format.text", "{x}", "KEY=VALUE")),
    "a value in a sweep": (["-m", "seed=0,,1"], ("seed", "0,,1", "KEY=VALUE")),
    "no value": (["seed"], ("command line", "seed")),
    "a sweep without -m": (["seed=0,1"], ("seed", "0,1", "-m")),
    "-m in the middle": (["seed=1", "-m", "fit.lr=1,2"], ("command line", "fit.lr=1,2")),
    "an option of others": (["--seed", "3"], ("command line", "--seed")),
    "a folder of options": (["--config-dir", "nowhere"], ("--config-dir", "nowhere")),
    # parts that are none
    "no option": (["fit=null"], ("fit", "null", "world chess")),
    "a group turned off by another word": (["stopping=null"], ("stopping", "null", "labels none", "none")),
    "the same in a sweep": (["-m", "stopping=labels,null"], ("stopping", "labels,null", "labels none", "none")),
    "a word for a part": (
        ["data=class_files", "data.path=good.jsonl", "data.format=text"],
        ("data.format", "text", "data.format.KEY=VALUE"),
    ),
    "a value of no option": (["stopping.every=1"], ("stopping.every", "1")),
    "a value without its part": (["lr=1"], ("lr", "1", "", "fit.lr")),
    "no model": (["weak=null"], ("weak", None, "model@weak=OPTION")),
    "a part taken away": (["~fit"], ("fit", None, "fit=OPTION")),
    "a class of others": (["fit._target_=os.system"], ("fit._target_", "os.system", "w2sd")),
    # values of the wrong type
    "a seed in words": (["seed=zero"], ("seed", "zero", "int")),
    "a list of lists": (["fit.betas=[[1],[2]]"], ("fit.betas", [[1], [2]], "list[float]")),
    "neither yes nor no": (["plan_only=maybe"], ("plan_only", "maybe", "bool")),
    # values that cannot be
    "a negative seed": (["seed=-1"], ("seed", -1)),
    "no end": (["fit.clip=inf"], ("fit.clip", math.inf)),
    "a name with a slash": (["name=a/b", "plan_only=true"], ("name", "a/b")),
    "a store out of reach": (["store=/proc/no/where"], ("store", "/proc/no/where")),
    "a report out of reach": (["out=/proc/no/where"], ("out", "/proc/no/where")),
    "a sweep out of reach": (["-m", "seed=0,1", "out=/proc/no/where"], ("command line", "/proc/no")),
    "a file for a store": (["store=good.jsonl", "plan_only=true"], ("store", "good.jsonl")),
    "a file for a report": (["out=good.jsonl", "plan_only=true"], ("out", "good.jsonl")),
    "a bad job of a sweep": (["-m", "seed=-1"], ("seed", -1)),
    # files that are missing
    "no data": (FILES, ("data.path", "", "data.path data.w2s")),
    "a file": ([*FILES, "data.path=god.jsonl"], ("data.path", "god.jsonl", "", "good.jsonl")),
    "a folder for a file": ([*FILES, "data.path=model"], ("data.path", "model")),
    "a device for a file": ([*FILES, "data.path=/dev/null"], ("data.path", "/dev/null")),
    "a model": (["model@weak=hub", "weak.id=./nowhere"], ("weak.id", "./nowhere")),
    "weights": (["model@weak=hub", "weak.id=weightless"], ("weak.id", "weightless", "*.safetensors")),
    "half of the weights": (
        [*FILES[:2], "weak.tokenizer=tok", "model@strong=hub", "strong.id=cut", "data.path=good.jsonl"],
        ("strong.id", "cut", "model.safetensors"),
    ),
    "half a tokenizer": ([*FILES, "weak.tokenizer=half", "data.path=good.jsonl"], ("weak.tokenizer", "half")),
    "no tokenizer": (["model@strong=scratch"], ("strong.tokenizer", "")),
    "a folder with nothing in it": (
        [*FILES, "strong.tokenizer=empty", "data.path=good.jsonl"],
        ("strong.tokenizer", "empty", "tokenizer.json"),
    ),
    # rows that cannot be read
    "a column": (
        [*FILES, "data.path=typo.jsonl"],
        ("typo.jsonl:1", ["prompt", "choosen", "rejected"], "chosen", "choosen"),
    ),
    "all columns": ([*FILES, "data.path=columns.jsonl"], ("columns.jsonl:1", ["text", "label"], "prompt")),
    "dialogues for pairs": (
        [*FILES, "data.path=tagless.jsonl"],
        ("tagless.jsonl:1", ["chosen", "rejected"], "data=dialogue_files"),
    ),
    "JSON": ([*FILES, "data.path=broken.jsonl"], ("broken.jsonl:3", '{"prompt": "p", "chosen": \n', "JSON")),
    "an object": ([*FILES, "data.path=list.jsonl"], ("list.jsonl:2", [1, 2], "JSON")),
    "a response": ([*FILES, "data.path=silent.jsonl"], ("silent.jsonl:5", "", "chosen")),
    "text": ([*FILES, "data.path=number.jsonl"], ("number.jsonl:2", 7, "rejected")),
    "rows": ([*FILES, "data.path=one.jsonl"], ("data.path", "one.jsonl", "2")),
    "a row": ([*FILES, "data.path=nothing.jsonl"], ("data.path", "nothing.jsonl", "2")),
    "a difference": ([*FILES, "data.path=equal.jsonl"], ("data.path", "equal.jsonl", "30 equal_sides")),
    "the end of a file": ([*FILES, "data.path=cut.jsonl.gz"], ("cut.jsonl.gz", ANY)),
    "room for a response": (
        [*FILES, "data.path=good.jsonl", "data.max_tokens=4", "data.long=refuse"],
        ("good.jsonl:1", ANY, "3 4 data.long=drop weak"),
    ),
    "room in the model": (
        [*FILES, "data.path=good.jsonl", "strong.context=4", "data.long=refuse"],
        ("good.jsonl:1", ANY, "3 4 data.long=drop strong"),
    ),
    "a word for the model": (
        [*FILES[:2], "weak.tokenizer=tok", "model@strong=hub", "strong.id=other", "data.path=good.jsonl"],
        ("good.jsonl:1", ANY, "id ids 40 strong"),
    ),
    # conflicts and their controls
    "a conflict": (["conflict=implict"], ("conflict", "implict", "", "implicit")),
    "a dose": ([*SMALL, "conflict=implicit", "conflict.ratio=1.5"], ("conflict.ratio", 1.5, "1 data.helpful 8")),
    "rows for a conflict": (
        [*FILES, "data.path=good.jsonl", "conflict=implicit"],
        ("conflict.ratio", 1.0, "0 data.helpful"),
    ),
    "rows for a placebo": (
        [*SMALL, "conflict=placebo_unrelated", "data.unrelated=4"],
        ("conflict.ratio", 1.0, "0.5 data.unrelated 4 8"),
    ),
    "a dose of a control": (
        [*SMALL, "conflict=implicit", "data.helpful=99", "conflict.ratio=2", "controls=true"],
        ("conflict.ratio", 2.0, "1 w2s 8"),
    ),
    "no dose": (["conflict=implicit", "conflict.ratio=0"], ("conflict.ratio", 0.0, "0")),
    "a part for a placebo": (
        [*SMALL, "conflict=placebo_more_data", "data.w2s_parts=1"],
        ("conflict.ratio", 1.0, "w2s data.w2s_parts 2"),
    ),
    "a part for a control": (
        [*SMALL, "conflict=implicit", "controls=true", "data.w2s_parts=1"],
        ("conflict.ratio", 1.0, "w2s data.w2s_parts 2"),
    ),
    "a mask": (["conflict=explicit", "conflict.mask=trut"], ("conflict.mask", "trut", "truth weak", "truth")),
    "a strength": (["conflict=explicit", "conflict.alpha=-1"], ("conflict.alpha", -1.0, "0")),
    "a rate": (["conflict=explicit_random_mask", "conflict.rate=2"], ("conflict.rate", 2.0, "[0 1]")),
    "no rate": (["conflict=explicit_random_mask", "conflict.rate=null"], ("conflict.rate", None, "[0 1]")),
    "a twin twice": (["twin_seeds=[1,1]"], ("twin_seeds", 1, "0")),
    "no list of twins": (["twin_seeds=3"], ("twin_seeds", 3, "list[int]")),
    "neither with nor without controls": (["controls=both"], ("controls", "both", "bool")),
    # supervision
    "a supervision": (["supervision=golden"], ("supervision", "golden", "", "gold")),
    "a threshold": (["supervision=confident", "supervision.threshold=1"], ("supervision.threshold", 1.0, "[0.5 1")),
    "a kind of errors": (
        ["supervision=synthetic", "supervision.errors=longst"],
        ("supervision.errors", "longst", "", "longest"),
    ),
    # students in a row
    "parts for a chain": ([*SMALL, "chain=bootstrap", "data.w2s_parts=1"], ("data.w2s_parts", 1, "2")),
    "parts for a longer chain": (
        [*SMALL, "chain=bootstrap", "+model@chain.between.two=world_s", "data.w2s_parts=2"],
        ("data.w2s_parts", 2, "3"),
    ),
    "parts of files for a chain": (
        [*BETWEEN_FILES, "model@chain.between.one=scratch", "chain.between.one.tokenizer=tok"],
        ("data.w2s_parts", 1, "2"),
    ),
    "a part for a placebo beside a chain": (
        [*SMALL, "chain=bootstrap", "conflict=implicit", "controls=true", "data.w2s_parts=2"],
        ("data.w2s_parts", 2, "3"),
    ),
    "no parts": (["data.w2s_parts=0"], ("data.w2s_parts", 0, "1 16")),
    "a key of a model between": (
        ["chain=bootstrap", "+model@chain.between.two_2=scratch", "chain.between.two_2.widht=8"],
        ("chain.between.two_2.widht", "8", "", "width"),
    ),
    "a word between": (["chain=bootstrap", "chain.between.one=world_m"], ("chain.between.one", "world_m")),
    "a number between": (
        ["chain=bootstrap", "+chain.between.two=3"],
        ("chain.between.two", 3, "model@chain.between.two=OPTION"),
    ),
    "nothing between": (
        ["chain=bootstrap", "~model@chain.between.one"],
        ("chain.between", {}, "model@chain.between.one=world_m"),
    ),
    "no model between": (["chain=bootstrap", "chain.between=world_m"], ("chain.between", "world_m", "dict")),
    "a rung between": (["chain=bootstrap", "chain.between.one.rung=4"], ("chain.between.one.rung", 4, "0 3")),
    "a rung between files": (BETWEEN_FILES, ("chain.between.one", "world rung 2")),
    # policies
    "the head alone, where there is none": (
        [*SMALL, "objective=simpo", "adapter=head_only"],
        ("adapter", "head_only", "llama"),
    ),
    "a text by a reward model": (["conflict=explicit", "conflict.form=sft"], ("conflict.form", "sft", "reverse")),
    "a response that fills the context of a policy": (
        [*FILES, "objective=dpo", "data.path=good.jsonl", "weak.context=4", "data.long=refuse"],
        ("good.jsonl:1", ANY, "3 4 data.long=drop weak"),
    ),
    "dialogues without a tag": (
        ["data=dialogue_files", *SCRATCH, "objective=simpo", "data.path=tagless.jsonl"],
        ("data.path", "tagless.jsonl", "30 unsplittable"),
    ),
    "an end of responses": (
        [*FILES, "objective=simpo", "data.path=good.jsonl", "data.append_eos=always"],
        ("data.append_eos", "always", "auto never"),
    ),
    "devices without a strategy": (["trainer.devices=2"], ("trainer.devices", 2, "1 trainer=ddp trainer=fsdp2")),
    "nodes without a strategy": (["trainer.nodes=2"], ("trainer.nodes", 2, "1 trainer=ddp trainer=fsdp2")),
    "nodes without a job": (
        [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.nodes=2"],
        ("trainer.nodes", 2, "1"),
    ),
    "a share of one job": (["jobs=1/2"], ("jobs", "1/2", "0/1 -m")),
    "a share after the last": (["-m", "jobs=2/2"], ("jobs", "2/2", "K/N")),
    "no share": (["jobs=some"], ("jobs", "some", "K/N")),
    "no device": (["trainer=ddp", "trainer.devices=0"], ("trainer.devices", 0, "1")),
    "a strategy": (["trainer.strategy=fsdp"], ("trainer.strategy", "fsdp", "auto ddp fsdp2", "fsdp2")),
    "a fine-tuning": (["sft=wrld"], ("sft", "wrld", "", "world")),
    "a key of a fine-tuning": (["sft.fit.lrr=1"], ("sft.fit.lrr", "1", KEYS, "lr")),
    "a rate of a fine-tuning": (["sft.fit.lr=0"], ("sft.fit.lr", 0.0, "0")),
}


@pytest.mark.parametrize(("words", "refusal"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2_and_changes_nothing(
    w2sd: Callable[..., Said], here: Path, words: list[str], refusal: tuple[Any, ...]
) -> None:
    before = sorted(here.rglob("*"))
    said = w2sd(*words)
    assert_refusal(said.err, *refusal)
    assert (said.code, said.out) == (2, "")
    assert not Path("store").exists()
    assert "-m" in words or sorted(here.rglob("*")) == before  # Hydra makes a folder for a sweep


def test_an_error_without_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["w2sd", "seed=1"])
    assert refusal(TypeError(), CONF).value == "seed=1"


def test_a_gpu_that_is_not_there_is_refused(
    w2sd: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = w2sd(*FILES, "data.path=good.jsonl", "trainer=gpu")
    assert_refusal(said.err, "trainer.accelerator", "gpu", "cpu")
    assert (said.code, Path("store").exists()) == (2, False)


def test_more_gpus_than_there_are_are_refused(
    w2sd: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    said = w2sd(*FILES, "data.path=good.jsonl", "trainer=ddp", "trainer.devices=3")
    assert_refusal(said.err, "trainer.devices", 3, "2")
    assert (said.code, Path("store").exists()) == (2, False)


def test_bad_input_is_one_line_in_a_process_of_its_own(here: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "w2sd", "fit.lrr=1"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert_refusal(done.stderr, "fit.lrr", "1", KEYS, "lr")


def test_a_broken_row_is_told_without_waiting_for_torch(here: Path) -> None:
    words = [*FILES, "data.path=typo.jsonl"]
    program = (
        f"import sys, w2sd.cli\nsys.argv[1:] = {words!r}\n"
        "try: w2sd.cli.main()\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert_refusal(done.stderr, "typo.jsonl:1", ["prompt", "choosen", "rejected"], "chosen", "choosen")
    assert done.stdout == "2 False\n"


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(
    own: str | None, expected: str, w2sd: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")  # puts it back afterwards
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert w2sd("plan_only=true").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.parametrize("wrong", ["seed=-1", "fit.lrr=1", "data=wrld", "fit=null"])
def test_a_traceback_is_shown_on_request(w2sd: Callable[..., Said], here: Path, wrong: str) -> None:
    said = w2sd(wrong, "debug=traceback")
    assert said.code == 2
    assert "Traceback (most recent call last):" in said.err
    assert said.err.splitlines()[-1].startswith("w2sd: ")


# --- what is asked for without computing anything ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["conflict=implicit", "conflict.ratio=2"], ("conflict.ratio", 2.0, "1")),
        (["objective=logconf", "data.w2s=4"], ("objective.min_rows", 8, "4")),
        (["stopping=labels", "stopping.holdout=0.00001"], ("stopping.holdout", 0.00001, "0")),
        (["supervision=filtered", "data.w2s=16", "supervision.k=16"], ("supervision.k", 16, "15")),
        (["data=files", "data.path=zzz.csv"], ("data.path", "zzz.csv")),
        (["data=files", "data.path=broken.jsonl", "model@weak=gpt2", "model@strong=gpt2"], ("broken.jsonl:1", ANY)),
    ],
)
def test_what_a_plan_accepts_of_rows_a_run_accepts(
    w2sd: Callable[..., Said], here: Path, words: list[str], refusal: tuple[Any, ...]
) -> None:
    Path("broken.jsonl").write_text("no row\n")
    said = w2sd("plan_only=true", *words)
    assert (said.code, said.out) == (2, "")
    assert_refusal(said.err, *refusal)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["trainer=ddp", "trainer.nodes=2"], ("trainer.nodes", 2, "not set")),
        (["adapter=lora"], ("adapter", "lora", "EXTRAS=lora")),
        (["data=chess_puzzles", "model@weak=gpt2", "model@strong=gpt2"], ("data", "chess", "EXTRAS=chess")),
    ],
)
def test_what_a_plan_accepts_of_nodes_and_packages_a_run_accepts(
    w2sd: Callable[..., Said], here: Path, words: list[str], refusal: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    for package in ("peft", "chess"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("W2SD_DATA", str(here))
    (here / "chess").mkdir()
    (here / "chess" / "lichess_puzzles.csv.gz").write_bytes(b"")
    said = w2sd("plan_only=true", *words)
    assert (said.code, said.out) == (2, "")
    assert_refusal(said.err, *refusal)


def test_a_plan_says_that_rows_of_a_hub_were_not_read(w2sd: Callable[..., Said], here: Path) -> None:
    said = w2sd("plan_only=true", "data=hub", "data.id=somebody/pairs", "model@weak=gpt2", "model@strong=gpt2")
    assert said.code == 0
    assert "Rows were not read" in said.out.splitlines()[-1]


def test_a_plan_is_printed_and_nothing_is_made(w2sd: Callable[..., Said], here: Path) -> None:
    before = sorted(here.rglob("*"))
    said = w2sd("plan_only=true", *FILES, "data.path=good.jsonl")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    names = [line.split()[0] for line in lines if "/" in line.split()[0] or line.startswith("compare")]
    assert names == [
        "train/weak", "train/ceiling", "evaluate/weak", "evaluate/ceiling",
        "label/weak", "train/student", "evaluate/student", "compare",
    ]  # fmt: skip
    assert lines[-1] == "8 stages to compute, 0 found in the store"
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_names_every_option_and_every_top_level_value(w2sd: Callable[..., Said], word: str) -> None:
    said = w2sd(word)
    assert (said.code, said.err) == (0, "")
    for path in cli.CONF.glob("[!h]*/*.yaml"):  # a long list goes on in the next line, further in
        assert re.search(rf"^  {path.parent.name} .*(\n   .*)*\b{path.stem}\b", said.out, re.MULTILINE)
    assert re.search(r"^  experiment .*(\n   .*)*\bpaper/simpo_cai\b", said.out, re.MULTILINE)
    for knob in fields(Settings):
        assert re.search(rf"^{knob.name}: ", said.out, re.MULTILINE)
    assert said.out.count("  w2sd ") >= 3
    assert max(map(len, said.out.splitlines())) <= 120


def test_the_configuration_is_printed(w2sd: Callable[..., Said], here: Path) -> None:
    said = w2sd("--cfg", "job", "--resolve", "seed=7", "fit.lr=1e-4")
    assert (said.code, said.err) == (0, "")
    assert "\nseed: 7\n" in said.out
    assert "\n  lr: 0.0001\n" in said.out
    assert "\nstore: store\n" in said.out


def test_your_own_folder_of_options_joins(w2sd: Callable[..., Said], here: Path) -> None:
    Path("mine/fit").mkdir(parents=True)
    Path("mine/fit/slow.yaml").write_text("# Slow.\n_target_: w2sd.parts.fit.Fit\nlr: 1.0e-9\n")
    said = w2sd("--config-dir", "mine", "fit=slow", "--cfg", "job")
    assert (said.code, said.err) == (0, "")
    assert "lr: 1.0e-09" in said.out
    for words in (["--config-dir", "mine"], ["--config-dir=mine"]):
        assert_refusal(w2sd(*words, "fit=slow", "fit.warm=1").err, "fit.warm", "1", "lr")
    known = " ".join([*(path.stem for path in (CONF / "fit").glob("*.yaml")), "slow"])
    assert_refusal(w2sd("--config-dir", "mine", "fit=slw").err, "fit", "slw", known, "slow")


@pytest.mark.parametrize(
    "words", [("--config-dir", "mine", "--help"), ("-h", "--config-dir=mine"), ("--help", "seed=1")]
)
def test_help_is_ours_and_lists_your_own_options(w2sd: Callable[..., Said], here: Path, words: tuple[str, ...]) -> None:
    Path("mine/fit").mkdir(parents=True)
    Path("mine/fit/slow.yaml").touch()
    Path("mine/flavour").mkdir()
    Path("mine/flavour/sweet.yaml").touch()
    said = w2sd(*words)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("w2sd: ")
    listed = [re.search(line, said.out, re.MULTILINE) for line in (r"^  fit .*\bslow\b", r"^  flavour +sweet$")]
    assert list(map(bool, listed)) == [any("mine" in word for word in words)] * 2


def test_the_version_is_that_of_w2sd(w2sd: Callable[..., Said]) -> None:
    assert w2sd("--version") == (0, f"w2sd {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("w2sd model@weak=", {"model@weak=world_s", "model@weak=gpt2", "model@weak=mine"}),
        ("w2sd seed=1 +model@chain.between.two=wor", {"+model@chain.between.two=world_m"}),
        ("w2sd fit=", {"fit=world"}),
    ],
)
def test_options_of_a_place_are_completed(
    w2sd: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch, line: str, completions: set[str]
) -> None:
    Path("mine/model").mkdir(parents=True)
    Path("mine/model/mine.yaml").touch()
    monkeypatch.setenv("COMP_LINE", line)
    said = w2sd("--config-dir", "mine", "-sc", "query=bash")
    assert (said.code, said.err) == (0, "")
    assert completions <= set(said.out.split())


def test_bash_takes_a_place_for_one_word(w2sd: Callable[..., Said]) -> None:
    assert w2sd("-sc", "install=bash").out.startswith("COMP_WORDBREAKS=${COMP_WORDBREAKS//@}\n")


@pytest.mark.parametrize("words", [["--help"], ["plan_only=true"]])
def test_a_reader_that_leaves_ends_it_quietly(
    command_to_closed_pipe: Callable[..., tuple[int, str]], words: list[str]
) -> None:
    assert command_to_closed_pipe("w2sd.cli", *words) == (141, "")


# --- experiments that are sweeps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["plan_only=true"], ["conflict=none"]])
def test_a_sweep_is_not_run_as_one_job(w2sd: Callable[..., Said], here: Path, words: list[str]) -> None:
    said = w2sd("experiment=demo", *words)
    assert (said.code, said.out) == (2, "")
    assert f"did you mean 'w2sd -m {' '.join(['experiment=demo', *words])}'?" in said.err
    assert not Path("store").exists()


def test_one_job_of_a_sweep_is_run_where_every_swept_key_has_a_value(w2sd: Callable[..., Said], here: Path) -> None:
    said = w2sd("experiment=demo", "plan_only=true", "conflict=none", "seed=1")
    assert (said.code, said.err) == (0, "")
    assert "stages to compute" in said.out


# --- what is computed -------------------------------------------------------------------------------------------------


class Launches:
    """In place of the launch: what was asked for, and failures for some seeds."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.concluded: list[int] = []
        self.stores: list[Path] = []
        self.failing: dict[int, str] = {}

    def launch(
        self, stages: Plan, states: dict[str, str], run: RunConfig, store: Any, execute: Any, made: set[str]
    ) -> None:
        self.seeds.append(run.settings.seed)
        self.stores.append(store.root)
        if run.settings.seed in self.failing:
            raise StageFailed(self.failing[run.settings.seed])

    def conclude(self, run: RunConfig, *_: Any) -> float:
        self.concluded.append(run.settings.seed)
        return math.nan


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, here: Path) -> Launches:
    launches = Launches()
    monkeypatch.setattr(cli, "launch", launches.launch)
    monkeypatch.setattr(cli, "_check_inputs", lambda run: None)
    monkeypatch.setattr(cli, "_conclude", launches.conclude)
    return launches


def test_a_job_that_finishes_exits_with_0(w2sd: Callable[..., Said], launches: Launches) -> None:
    assert w2sd("seed=3").code == 0
    assert (launches.seeds, launches.concluded) == ([3], [3])


def test_a_stage_that_fails_is_one_line_and_exit_code_1(w2sd: Callable[..., Said], launches: Launches) -> None:
    launches.failing = {0: "the loss is nan at step 7 with fit.lr at 0.1"}
    assert w2sd("seed=0") == (1, "", "w2sd: the loss is nan at step 7 with fit.lr at 0.1\n")
    assert "Traceback" in w2sd("seed=0", "debug=traceback").err


def test_a_job_that_fails_leaves_the_rest_of_a_sweep_alone_and_the_exit_code_says_so(
    w2sd: Callable[..., Said], launches: Launches
) -> None:
    launches.failing = {1: "the loss is nan"}
    said = w2sd("-m", "seed=1,2")
    assert said.code == 1
    assert (launches.seeds, launches.concluded) == ([1, 2], [2])
    assert [line for line in said.err.splitlines() if line.startswith("w2sd: ")] == ["w2sd: the loss is nan"]
    assert "Traceback" not in said.err


def test_a_sweep_that_finishes_exits_with_0(w2sd: Callable[..., Said], launches: Launches) -> None:
    assert w2sd("-m", "seed=0,1").code == 0
    assert launches.concluded == [0, 1]


def test_a_sweep_is_refused_before_its_first_job(w2sd: Callable[..., Said], launches: Launches) -> None:
    assert w2sd("-m", "fit.lr=1e-3", "model@weak=world_s,wrld_s").code == 2
    assert launches.seeds == []


def test_a_job_of_a_sweep_whose_stages_are_those_of_another_says_so(
    w2sd: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(
        stages: Plan, states: dict[str, str], run: RunConfig, store: Store, execute: Any, made: set[str]
    ) -> None:
        with store.writing(stages["compare"].spec()) as folder:
            (folder / "metrics.json").write_text('{"pgr": null}')
            (folder / "diagnostics.json").write_text("{}")

    monkeypatch.setattr(cli, "launch", launch)
    monkeypatch.setattr(cli, "_check_inputs", lambda run: None)
    monkeypatch.setattr(cli, "show", lambda *_, **__: None)
    said = w2sd("-m", "seed=0", "controls=true,false")  # no conflict, which is all that has controls
    line = "[w2sd] the same stages as the job with controls=True, whose place this one takes in reports"
    assert [of for of in said.err.splitlines() if "the same stages" in of] == [line]
    assert "the same stages" not in w2sd("seed=0").err
    assert len(list((here / "store" / "jobs").iterdir())) == 1


def test_a_share_that_is_none_is_refused_once(w2sd: Callable[..., Said], launches: Launches) -> None:
    said = w2sd("-m", "jobs=3/2", "seed=0,1,2")
    assert_refusal(said.err, "jobs", "3/2", "K/N")
    assert (said.code, launches.seeds) == (2, [])


def test_bugs_are_not_dressed_up(
    w2sd: Callable[..., Said], launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "launch", broken)
    with pytest.raises(ValueError, match="a bug"):
        w2sd("seed=0")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Exception("I/O error: No space left (os error 28)")]
)
def test_a_full_disk_is_one_line_that_names_the_store(
    w2sd: Callable[..., Said], launches: Launches, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fill(*_: Any) -> None:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("what a library makes of it") from cause

    monkeypatch.setattr(cli, "launch", fill)
    said = w2sd("seed=0", f"store={here / 'store'}")
    assert said.code == 1
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(f"w2sd: store: the disk of {here / 'store'} is full; ")


def test_the_store_of_the_environment_is_used(
    w2sd: Callable[..., Said], launches: Launches, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2SD_STORE", str(here / "elsewhere"))
    assert w2sd("seed=0").code == 0
    assert launches.stores == [here / "elsewhere"]


@pytest.mark.parametrize("words", [(), ("-m",)], ids=["a job", "a sweep"])
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_a_run_that_is_told_to_end_says_so_in_one_line(
    w2sd: Callable[..., Said],
    launches: Launches,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    name: str,
    words: tuple[str, ...],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may be run where it is ignored
    monkeypatch.setattr(cli, "launch", lambda *_: os.kill(os.getpid(), number))
    try:
        said = w2sd(*words, "seed=0")
    finally:
        signal.signal(signal.SIGINT, before)
    line = f"w2sd: ended by {name}; the same command goes on from its last checkpoint\n"
    assert (said.code, said.err.removeprefix("[w2sd] job 0: seed=0\n")) == (code, line)


def test_a_report_that_fails_after_a_sweep_is_no_success(
    w2sd: Callable[..., Said], launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(*_: Any, **__: Any) -> None:
        raise KeyError("column")

    monkeypatch.setattr(cli, "show", show)
    said = w2sd("-m", *SMALL, "seed=0,1")
    assert said.code == 1
    assert "report: KeyError('column')" in said.err


def test_what_is_not_installed_is_said_before_anything_is_read(
    w2sd: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(pairs, "read", lambda data: pytest.fail("data were read"))
    said = w2sd("debug=fast", "adapter=lora", f"store={tmp_path / 'store'}", f"out={tmp_path / 'out'}")
    assert (said.code, said.out) == (2, "")
    assert_refusal(said.err, "adapter", "lora", "peft")
    assert not (tmp_path / "store").exists()
