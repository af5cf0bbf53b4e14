"""The benchmark of one GPU: what it says of a measurement, and a run of its own on the CPU."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2sd.data.layout import Text

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
ALONE = f"""
import runpy, sys
sys.modules |= dict.fromkeys(("omegaconf", "hydra", "pytorch_lightning", "torchmetrics"))  # none can be imported
sys.argv[0] = {str(SCRIPT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["gpu_benchmark"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_without_a_gpu_and_needs_torch_and_transformers_alone(tmp_path: Path) -> None:
    asked = ["--cases", "tiny-dpo-multi", "--rounds", "0", "--out", str(tmp_path)]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *asked], capture_output=True, text=True, env=hidden, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert len(told["checks"]) > 20
    assert {each["job"][0] for each in told["results"]} == {"tiny-dpo-multi"}
    ours = [each for each in told["results"] if each["job"][1] != "TRL"]
    assert {each["job"][1] for each in ours} == {"packed", "plain", "by text"}
    assert all(each["pairs_per_s"] > 0 and not each["problem"] for each in ours)
    assert (tmp_path / "gpu.md").read_text().partition("\n\n")[2].strip() in done.stdout


def test_a_check_that_fails_is_the_end(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "checks", lambda: [gpu.Check("one", 0.0, 1.0), gpu.Check("other", math.nan, 1.0)])
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "one: difference 0, allowed 1: ok",
        "other: difference nan, allowed 1: FAILED",
    ]


@pytest.mark.parametrize("data", ["single", "multi"])
def test_pairs_are_as_long_as_those_of_hh(gpu: Any, data: str) -> None:
    """The means of the design: 23.5, 34.7 and 48.2 tokens; and a dialogue saves 35 to 40% by one copy of its prompt."""
    texts = gpu.texts_of(data, 4000)
    prompt = np.mean([len(text.prompt) for text in texts])
    first, second = (np.mean([len(text.answers[slot]) for text in texts]) for slot in (0, 1))
    assert (first, second) == (pytest.approx(34.7, rel=0.1), pytest.approx(48.2, rel=0.1))
    assert prompt / (2 * prompt + first + second) == pytest.approx(0.375 if data == "multi" else 0.18, abs=0.02)
    assert all(len(text.prompt) + max(map(len, text.answers)) <= gpu.CONTEXT for text in texts)


@pytest.mark.parametrize("objective", ["reward", "dpo"])
def test_operations_of_one_pair_counted_by_hand(gpu: Any, objective: str) -> None:
    text = Text(np.zeros(4, np.int32), (np.zeros(2, np.int32), np.zeros(6, np.int32)))
    case = gpu.Case("tiny", objective, "single")  # 2 layers, width 32
    head = 0 if objective == "reward" else 2 * 32 * gpu.VOCABULARY * 8
    linear, attended = 24 * 32**2 * 2, 4 * 32 * 2
    assert gpu.flops([text], case, shared=False) == 3 * (linear * 16 + attended * (36 + 100) / 2 + head)
    assert gpu.flops([text], case, shared=True) == 3 * (linear * 12 + attended * (36 + 100 - 16) / 2 + head)


def test_the_ratio_is_of_turns_and_failures_are_lines(gpu: Any) -> None:
    """The first measurement chooses, those after it count."""
    case = gpu.Case("large", "reward", "single")
    packed, peer, larger = gpu.Job(case, "packed", 8192), gpu.Job(case, "TRL", 64), gpu.Job(case, "packed", 65536)
    rates = [(packed, 100.0), (peer, 50.0), (larger, 120.0), (packed, 60.0), (peer, 20.0), (packed, 80.0), (peer, 80.0)]
    results = [gpu.Result(job, rate, rate, rate, 1.0) for job, rate in rates]
    results.append(gpu.Result(gpu.Job(case, "TRL", 256), 0.0, 0.0, 0.0, 0.0, "out of memory"))
    lines = gpu.table(results, top=100.0).splitlines()
    assert "| large-reward-single | TRL | 256 | out of memory | | | | |" in lines
    assert lines[-1] == (
        "| large-reward-single | 70.0 pairs/s (packed, 8192 tokens) | 70% | 50.0 pairs/s (64 pairs) | 2.00 |"
    )
