"""What an arm costs is told of jobs of one setting, and of no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.builders import refused

import arm_cost
from w2sd.atomic import write_json
from w2sd.pipeline.store import Store

PARTS = {"data": {"_target_": "World", "gt": 64, "split_seed": 0}, "trainer": {"micro_tokens": 512}}


class Jobs:
    """Jobs whose students were trained in a second and by seed more, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root, self.n = root, 0

    def add(self, objective: str, cpu: str = "one", fit: float = 0.1, **knobs: Any) -> None:
        key = f"{self.n:012x}"
        seconds = {"cpu_seconds": 1.0 + self.n, "hardware": {"cpu": cpu}}
        with Store(self.root).writing({"kind": "train", "key": key, "inputs": {}}) as out:
            write_json(out / "runtime.json", seconds)
        config = {
            **PARTS,
            "objective": {"_target_": objective},
            "fit": {"lr": fit},
            "seed": self.n,
            "out": key,
            **knobs,
        }
        stages = {"train/student": {"kind": "train", "key": key}}
        Store(self.root).record({"id": key, "stages": stages, "choices": {"objective": objective}, "config": config})
        self.n += 1


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    jobs = Jobs(tmp_path)
    jobs.add("simpo", fit=0.2)
    jobs.add("reward_bce")
    jobs.add("reward_bce", data={**PARTS["data"], "split_seed": 1})
    return jobs


def test_seeds_are_pooled_by_arm(jobs: Jobs) -> None:
    found = arm_cost.costs(jobs.root)
    assert {arm: [cost["train"] for cost in costs] for arm, costs in found.items()} == {
        "simpo": [1.0],
        "reward_bce": [2.0, 3.0],
    }
    assert "| reward_bce | 2 |  |  |  | 2.50 |" in arm_cost.table(found)


@pytest.mark.parametrize(
    ("knobs", "differ"),
    [
        ({"data": {**PARTS["data"], "gt": 32}}, "data.gt"),
        ({"trainer": {"micro_tokens": 256}}, "trainer.micro_tokens"),
        ({"fit": 0.3}, "fit.lr"),
        ({"cpu": "another"}, "'another' 'one'"),
    ],
)
def test_jobs_of_several_settings_are_refused(jobs: Jobs, knobs: dict[str, Any], differ: str) -> None:
    jobs.add("simpo", **{"fit": 0.2, **knobs})
    with refused("STORE", str(jobs.root), differ):
        arm_cost.costs(jobs.root)
