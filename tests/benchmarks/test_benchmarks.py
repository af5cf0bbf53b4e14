"""The benchmark's own promises: equal work for both sides, and a table that says what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hydra
import pytest

import ours
import run
import timing
import tokens
import trl_peer
import work
from table import Measured, render
from w2sd.cli import CONF
from w2sd.config import read


@pytest.fixture(autouse=True)
def _no_data_of_yours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("W2SD_DATA", raising=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> work.Work:
    """A little generated work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("W2SD_DATA", raising=False)
        return work.build(tmp_path_factory.mktemp("work"), "tiny", "single", 2 * work.BATCH)


@pytest.mark.parametrize("data", work.WORDS)
def test_generated_pairs_are_the_same_every_time_and_as_long_as_real_ones(data: str) -> None:
    pairs = work.generate(data, 400)
    assert pairs == work.generate(data, 400)
    assert pairs != work.generate(data, 400, seed=1)
    assert all((pair["prompt"].count(work.HUMAN) > 1) == (data == "multi") for pair in pairs)
    for part, (mean, deviation) in zip(("prompt", "chosen", "rejected"), work.WORDS[data], strict=True):
        logs = [math.log(len(pair[part].replace(work.ASSISTANT, "").replace(work.HUMAN, "").split())) for pair in pairs]
        assert sum(logs) / len(logs) == pytest.approx(mean, abs=4 * deviation / math.sqrt(len(logs)))


def test_work_is_built_alike_and_fits_the_context(given: work.Work, tmp_path: Path) -> None:
    again = work.build(tmp_path, "tiny", "single", len(given.pairs))
    assert again._replace(folder=given.folder) == given
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (given.folder / weights).read_bytes()
    assert len(given.pairs) == len(given.lengths) == 2 * work.BATCH
    assert max(max(each.rows) for each in given.lengths) <= work.CONTEXT


@pytest.mark.parametrize("objective", ours.OBJECTIVES)
def test_w2sd_reads_every_token_and_times_every_part(given: work.Work, objective: str, tmp_path: Path) -> None:
    found = ours.run_once(given, objective, len(given.pairs), tmp_path)
    assert (found["pairs"], found["tokens"]) == (len(given.pairs), given.tokens)
    assert found["seconds"].keys() == {"train", "evaluate"} | ({"reference"} if objective == "dpo" else set())
    assert min(found["seconds"].values()) > 0


def test_the_first_loss_is_that_of_no_preference(given: work.Work, tmp_path: Path) -> None:
    """Policy and reference are one model before the first step."""
    first, second = ours.first_losses(given, "dpo", tmp_path, n_steps=2)
    assert first == pytest.approx(math.log(2), rel=1e-5)
    assert second != pytest.approx(first, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", run.OBJECTIVES)
def test_losses_are_those_of_trl(given: work.Work, objective: str, tmp_path: Path) -> None:
    """In processes of their own, as in the benchmark: TRL warns more than these tests allow."""
    pytest.importorskip("trl", reason="TRL is not installed: its trainers' losses are not compared with ours")
    theirs = run.theirs(given, objective, "--check", "2")
    assert ours.first_losses(given, objective, tmp_path, n_steps=2) == pytest.approx(theirs, rel=run.TOLERANCE)


def test_operations_are_counted_by_the_formula(given: work.Work) -> None:
    """One pair of 3, 2 and 4 tokens, by hand: width 64, 2 layers, 4096 words."""
    one = given._replace(lengths=[work.Lengths(3, 2, 4)])
    dense = 24 * 64**2 * 2
    assert work.forward_flops(one, "reward", shared=False) == dense * 12 + 4 * 64 * 2 * (5**2 + 7**2) / 2
    assert work.forward_flops(one, "reward", shared=True) == dense * 9 + 4 * 64 * 2 * (5**2 + 7**2 - 3**2) / 2
    answers = 2 * 64 * 4096 * 6
    assert work.forward_flops(one, "dpo", shared=True) == work.forward_flops(one, "reward", shared=True) + answers


def measured(side: str, name: str, turn: int, **seconds: float) -> Measured:
    return Measured(side, name, turn, 64, seconds, 500 + turn)


def test_the_table_compares_with_the_faster_settings(given: work.Work) -> None:
    found = [Measured("ceiling", "", turn, 0, {"operations": 1e9}, 0) for turn in range(3)]
    for turn, slow in enumerate((1.0, 2.0, 4.0)):
        found.append(measured("w2sd", "dpo", turn, train=2 * slow, reference=2 * slow, evaluate=1 * slow))
        found.append(measured("TRL", "dpo", turn, train=16 * slow, evaluate=8 * slow))
        found.append(measured("TRL", "dpo-cached", turn, train=6 * slow, reference=2 * slow, evaluate=4 * slow))
    rows = {line.split(" | ")[0]: line.split(" | ")[1:4] for line in render("case", given, found)}
    assert rows["| DPO, reference in the run"] == ["4.0 (2.0–8.0)", "8.0 (4.0–16.0)", "2.00 (2.00–2.00)"]
    assert rows["| DPO, reference cached"] == ["5.3 (2.7–10.7)", "16.0 (8.0–32.0)", "3.00 (3.00–3.00)"]
    assert rows["| evaluation, DPO, reference in the run"][2] == "2.00 (2.00–2.00)"
    assert not any("reward" in row for row in rows)
    assert render("case", given, found)[-1].endswith("w2sd dpo 502 MB, TRL dpo 502 MB, TRL dpo-cached 502 MB.")


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["run.py"])
    with pytest.raises(SystemExit, match=r"^the benchmark needs trl, accelerate: make setup EXTRAS=bench$"):
        run.main()


def test_other_work_than_the_other_side_s_is_not_timed(given: work.Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def side(losses: list[float]) -> Any:
        return lambda *_: losses

    monkeypatch.setattr(run, "ours", side([0.7, 0.6]))
    monkeypatch.setattr(run, "theirs", side([0.7, 0.6001]))
    with pytest.raises(SystemExit, match="nothing was timed"):
        run.check(given, "reward")


def test_the_cost_of_a_program_is_its_own() -> None:
    idle, busy = (timing.run("-c", f"sum(range({n}))") for n in (1, 30_000_000))
    assert busy.cpu_s > idle.cpu_s
    with pytest.raises(SystemExit, match="no such thing"):
        timing.run("-c", "raise SystemExit('no such thing')")


def test_every_setting_of_trl_makes_whole_batches() -> None:
    for options in (*trl_peer.BEST.values(), *(trl_peer.Options(**tried) for tried in run.TRIED)):
        assert work.BATCH % options.micro == 0


def test_tokens_found_in_a_file_are_timed_beside_those_made() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = read(hydra.compose("config", ["debug=fast"]))
    n, *costs = (float(cell.replace(",", "")) for cell in tokens.measure(run).strip("| ").split(" | "))
    assert n > 100
    assert len(costs) == 7
    assert min(costs) >= 0
