"""What a job leaves in W&B: headline metrics, and its regions where it has a conflict. What a stage leaves there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from tests.builders import refused
from w2sd.errors import StageFailed
from w2sd.logger import Csv, RunName, Wandb, conclude
from w2sd.metrics.regions import REGIONS

COLUMNS = ["kind", "region", "n_all", "n", "flips", "rate", "rate_lo", "rate_hi"]
HEADLINES = {"pgr": 0.5, "deception/score": None, "tax/rate": 0.2}


def regions(kind: str) -> dict[str, Any]:
    """The figures of four regions, in one of which the baseline gets nothing right."""
    counts = {
        f"{kind}/{region}/{part}": n + place
        for place, region in enumerate(REGIONS)
        for part, n in (("n_all", 100), ("n", 90), ("flips", 9))
    }
    rates = {f"{kind}/{region}/{part}": 0.1 for region in REGIONS for part in ("rate", "rate_lo", "rate_hi")}
    nothing = {f"{kind}/uu/n": 0, f"{kind}/uu/flips": 0}
    return {**counts, **rates, **nothing, **{f"{kind}/uu/{part}": None for part in ("rate", "rate_lo", "rate_hi")}}


def summarise(folder: Path, **diagnostics: Any) -> None:
    run = RunName("demo", "summary", "0123456789ab", folder, {"seed": 0})
    Wandb(mode="offline").summarise(run, HEADLINES, diagnostics)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a run is told, instead of the run."""
    told = SimpleNamespace(summary={}, logged=[])
    told.log = told.logged.append

    @contextmanager
    def run(*_: Any) -> Iterator[SimpleNamespace]:
        yield told

    monkeypatch.setattr(Wandb, "_run", run)
    return told


def test_a_job_with_a_conflict_leaves_its_regions(recorded: SimpleNamespace, tmp_path: Path) -> None:
    summarise(tmp_path, **regions("region"), **regions("region_true"))
    assert recorded.summary == {"pgr": 0.5, "tax/rate": 0.2}
    (logged,) = recorded.logged
    table = logged["regions"]
    assert table.columns == COLUMNS
    assert [row[:2] for row in table.data] == [[k, r] for k in ("region", "region_true") for r in REGIONS]
    assert table.data[1] == ["region", "ku", 101, 91, 10, 0.1, 0.1, 0.1]
    assert table.data[3] == ["region", "uu", 103, 0, 0, None, None, None]
    assert len(table.data) <= 200


def test_regions_of_true_knowledge_are_there_only_where_it_is_known(recorded: SimpleNamespace, tmp_path: Path) -> None:
    summarise(tmp_path, **regions("region"))
    assert [row[0] for row in recorded.logged[0]["regions"].data] == ["region"] * 4


def test_a_job_without_conflict_leaves_metrics_alone(recorded: SimpleNamespace, tmp_path: Path) -> None:
    summarise(tmp_path)
    assert recorded.summary == {"pgr": 0.5, "tax/rate": 0.2}
    assert recorded.logged == []


def test_what_a_stage_came_to_is_in_the_summary_of_its_run_and_not_among_the_curves(tmp_path: Path) -> None:
    run = SimpleNamespace(summary={})
    csv = CSVLogger(tmp_path)
    conclude([csv, WandbLogger(experiment=run)], {"throughput/padding": 0.25, "throughput/tokens_per_s": None})  # type: ignore[arg-type]
    assert run.summary == {"throughput/padding": 0.25}
    assert csv.experiment.metrics == []


def test_table_and_drawing_are_in_the_files_of_an_offline_run(tmp_path: Path) -> None:
    summarise(tmp_path, **regions("region"))
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/regions_*.table.json")
    written = json.loads(table.read_text())
    assert written["columns"] == COLUMNS
    assert written["data"][1] == ["region", "ku", 101, 91, 10, 0.1, 0.1, 0.1]
    (drawing,) = tmp_path.glob("wandb/offline-run-*/files/media/images/regions_figure_*.png")
    with Image.open(drawing) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 100


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Somebody who never logged in to W&B."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.setenv(name, "")  # and so it is put back, whatever a test sets
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()  # which remembers a key


def test_a_login_is_asked_for_before_anything_is_computed(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("logger", "wandb", "login WANDB_API_KEY logger=wandb_offline"):
        Wandb().check()
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with refused("logger", "wandb", "invalid WANDB_API_KEY logger=wandb_offline"):
        Wandb().check()


def test_whoever_has_a_key_or_needs_none_is_let_through(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Wandb(mode="offline").check()
    Csv().check()
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.setup()  # as an earlier job of a sweep leaves it
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'0' * 40}\n")
    Wandb().check()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    Wandb().check()


def test_a_server_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise wandb.errors.CommError("Run initialization has timed out\nafter 90.0 sec.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(StageFailed) as caught:
        summarise(tmp_path)
    assert re.search(r"W&B.*after 90\.0 sec.*logger=wandb_offline", str(caught.value))
