"""What the tests share: composing a run without a command line, one torch thread, and an order for several workers."""

from __future__ import annotations

import copy
import gc
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from omegaconf import DictConfig
from safetensors.numpy import save_file

from w2sd.cli import CONF
from w2sd.config import RunConfig, read

os.environ["OMP_NUM_THREADS"] = "1"
pytest.register_assert_rewrite("tests.builders", "tests.report.writing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, the files with long chains and groups of processes come first: what ends the queue is short."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not {"smoke", "ddp"} & {marker.name for marker in item.iter_markers()})


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not walk through all of torch again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_store_of_yours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never writes to the store that the environment names."""
    monkeypatch.delenv("W2SD_STORE", raising=False)


@cache
def _composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


@pytest.fixture
def compose() -> Callable[..., DictConfig]:
    """The composed configuration of some overrides."""
    return lambda *overrides: copy.deepcopy(_composed(*overrides))


@pytest.fixture
def asked() -> Callable[..., RunConfig]:
    """The run of some overrides, built and checked. To compose is most of the work, and is done once in a session."""
    return lambda *overrides: read(_composed(*overrides))


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Overrides for the whole chain in seconds, in a store of the test's own."""
    return ["debug=fast", f"store={tmp_path / 'store'}", f"out={tmp_path / 'report'}"]


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that an option could ask for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("W2SD_DATA", str(tmp_path))
    Path("tokenizer").mkdir()
    Path("tokenizer/tokenizer.json").write_text("{}")
    Path("gpt2").mkdir()
    Path("gpt2/config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 1}))
    save_file({"wte.weight": np.zeros((8, 4), dtype=np.float32)}, "gpt2/model.safetensors")
    rows = "".join(json.dumps({"prompt": str(n), "chosen": "a", "rejected": "b"}) + "\n" for n in range(30)).encode()
    Path("pairs.jsonl").write_bytes(rows)
    items = "".join(json.dumps({"text": str(n), "label": n % 2}) + "\n" for n in range(30)).encode()
    Path("items.jsonl").write_bytes(items)
    said = "\n".join(option.read_text() for option in (CONF / "data").glob("*.yaml"))
    for name in re.findall(r"^\w+: \$W2SD_DATA/(\S+)", said, re.MULTILINE):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(rows) if path.suffix == ".gz" else rows)
    return tmp_path


def artifacts(store: Path) -> dict[str, Any]:
    """The bytes of every metrics.json in a store, by artifact."""
    return {path.parent.name: path.read_bytes() for path in sorted(store.glob("artifacts/*/metrics.json"))}


@pytest.fixture
def command_to_closed_pipe() -> Callable[..., tuple[int, str]]:
    """Run the command of a module, whose standard output nobody reads; its exit code and its errors."""

    def run(module: str, *words: str) -> tuple[int, str]:
        reader, writer = os.pipe()
        os.close(reader)
        program = f"import sys; from {module} import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # as in a shell
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered)
        os.close(writer)
        return done.returncode, done.stderr

    return run
