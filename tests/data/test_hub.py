"""Hub datasets, through local folders of the same shape: no network is touched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from tests.builders import refused
from tests.data.reading import anywhere

from w2sd.data.files import Files
from w2sd.data.hub import Hub

ROWS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_folder_gives_the_pairs_of_a_file(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / "set" / f"train{suffix}", ROWS)
    write(tmp_path / "set" / f"test{suffix}", ROWS[:5])
    tables = [source.table() for source in (Hub(id="set"), Files(path=str(file)), Hub(id=f"set/train{suffix}"))]
    whole, plain, one = map(anywhere, tables)
    assert whole == plain == one
    assert [pair.where for pair in tables[0].examples] == [f"set[{n}]" for n in range(len(ROWS))]


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    write(tmp_path / "set/train.jsonl", ROWS)
    other = [{"question": r["prompt"], "yes": r["chosen"], "no": r["rejected"], "score": 1} for r in ROWS]
    write(tmp_path / "other/train.jsonl", other)
    named = Hub(id="other", prompt="question", chosen="yes", rejected="no")
    assert anywhere(named.table()) == anywhere(Hub(id="set").table())


def test_whole_dialogues_and_messages(tmp_path: Path) -> None:
    prompts = [f"\n\nHuman: {row['prompt']}\n\nAssistant:" for row in ROWS]
    text = [
        {"prompt": p, "chosen": " " + r["chosen"], "rejected": " " + r["rejected"]}
        for p, r in zip(prompts, ROWS, strict=True)
    ]
    write(tmp_path / "text/train.jsonl", text)
    write(
        tmp_path / "whole/train.jsonl", [{side: r["prompt"] + r[side] for side in ("chosen", "rejected")} for r in text]
    )
    chat = [
        {
            side: [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r[side]}]
            for side in ("chosen", "rejected")
        }
        for r in ROWS
    ]
    write(tmp_path / "chat/train.jsonl", chat)
    text, whole, chat = (anywhere(Hub(id=id).table()) for id in ("text", "whole", "chat"))
    assert text == whole == chat


def test_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set/train.jsonl", ROWS)
    local = Hub(id="set")
    assert json.loads(json.dumps(local.identity())) == local.identity()
    shutil.copytree("set", "moved")
    assert Hub(id="moved").identity() == local.identity()
    shutil.move("moved/train.jsonl", "moved/test.jsonl")  # another split
    assert Hub(id="moved").identity() != local.identity()
    shutil.move("moved/test.jsonl", "moved/train.jsonl")
    write(tmp_path / "moved/more.jsonl", ROWS)
    assert Hub(id="moved").identity() != local.identity()
    remote = Hub(id="owner/name")
    changes = {
        "id": "owner/other",
        "revision": "v1",
        "subset": "s",
        "split": "test",
        "prompt": "q",
        "limit": 3,
        "long": "refuse",
    }
    assert (
        len(
            {json.dumps(replace(remote, **{k: v}).identity()) for k, v in changes.items()}
            | {json.dumps(remote.identity())}
        )
        == 8
    )


def test_a_hub_id_is_loaded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load(**options: Any) -> datasets.Dataset:
        asked.append(options)
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(Hub(id="owner/name", revision="abc", split="all").table().examples) == len(ROWS)
    assert asked == [{"path": "owner/name", "name": None, "split": "all", "revision": "abc"}]


BAD: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "no id": ({"id": ""}, ("data.id", "", "owner/name")),
    "a missing folder": ({"id": "./sett"}, ("data.id", "./sett", "owner/name", "set")),
    "an unreachable hub": ({"id": "no/such"}, ("data.id", "no/such")),
    "an empty folder": ({"id": "empty"}, ("data.id", "empty")),
    "mixed types": ({"id": "mixed"}, ("mixed[1]", 3, "chosen")),
    "an unknown split": ({"split": "dev"}, ("data.split", "dev")),
    "a misspelt split of one file": (
        {"id": "set/train.jsonl", "split": "trian[:9]"},
        ("data.split", "trian[:9]", "train[:100]"),
    ),
    "an unknown subset": ({"subset": "xx"}, ("data.subset", "xx")),
    "an unknown prompt": ({"prompt": "promt"}, ("data.prompt", "promt", "prompt chosen rejected", "prompt")),
    "an unknown side": ({"chosen": "zzz"}, ("data.chosen", "zzz", "prompt chosen rejected")),
    "a null": ({"id": "null"}, ("null[2]", None, "rejected")),
    "one row": ({"id": "one"}, ("data.id", "one", "2 gt")),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str, tmp_path: Path) -> None:
    fields, refusal = BAD[name]
    write(tmp_path / "set/train.jsonl", ROWS)
    write(tmp_path / "null/train.jsonl", [*ROWS[:2], {**ROWS[2], "rejected": None}])
    write(tmp_path / "one/train.jsonl", ROWS[:1])
    write(tmp_path / "mixed/train.jsonl", [ROWS[0], {**ROWS[1], "chosen": 3}])
    (tmp_path / "empty").mkdir()
    with refused(*refusal):
        Hub(**{"id": "set", **fields}).table()


def test_no_id_is_not_the_current_folder() -> None:
    with refused("data.id", "", "owner/name"):
        Hub().identity()


def test_refuses_impossible_values() -> None:
    with refused("limit", 1):
        Hub(id="set", limit=1)
