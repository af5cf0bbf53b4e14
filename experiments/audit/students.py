"""Train the students of worlds, and add a row for each to a table.

python experiments/audit/students.py final.csv 500 501 …               eight seeds in each arm
python experiments/audit/students.py final.csv --seeds 4 540 541 …     four
python experiments/audit/students.py final.csv --visible 0 500 501 …   blind spots that no student can see

A world that is in the table already is passed over, so a run that was stopped goes on where it was. Several runs may
share a table and a store.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
import pandas as pd

from candidates import CANDIDATES
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.metrics.regions import KK, KU
from w2sd.metrics.selective_loss import Reference, reference, selective_loss
from w2sd.pipeline.launch import launch, survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.predictions import PREDICTIONS, Column, Predictions, read_predictions
from w2sd.worker import execute

SETTING = ("model@weak=world_s", "model@strong=world_l", "data.tension=0.8", "data.tension_on=blind")
NONE, PLANTED, OTHER_SEED = "none", "planted .125", "other seed"
DECOYS = {  # what is typed; doses are such that students are as bad on kk as those of PLANTED, by development worlds
    OTHER_SEED: "conflict=decoy_seed",
    "inverted": "conflict=decoy_inverted conflict.ratio=0.16",
    "topics": "conflict=decoy_topics conflict.ratio=0.14",
    "weight noise": "conflict=decoy_weight_noise conflict.weight_noise=0.3",
    "unsure": "conflict=decoy_unsure conflict.rate=12",
    "imitation": "conflict=decoy_imitation",
}
VISIBLE = {  # arms where blind spots are visible
    NONE: "conflict=none",
    "more data": "conflict=placebo_more_data conflict.ratio=0.125",
    **{
        f"planted {dose:g}".replace("0.", "."): f"conflict=planted conflict.ratio={dose}"
        for dose in (0.0625, 0.125, 0.25)
    },
    **DECOYS,
}
INVISIBLE = {arm: VISIBLE[arm] for arm in (NONE, "more data", PLANTED)}
VIRTUAL = ("shift", "noise", "noise by entity", "smaller scale", "topics shifted", "noise where unsure", "weak added")
ADDED = 0.15  # of the weak logit


class World(NamedTuple):
    """What was predicted in one world: margins of arms by seed, and everything that is not a student's."""

    weak: Predictions
    ceiling: Predictions
    twins: list[Predictions]
    students: Mapping[tuple[str, int], Predictions]
    topics: Sequence[str]  # of each pair


def train(world: int, visible: float, n_seeds: int, store: Store) -> World:
    """Train what the store lacks, and read what all models predict."""
    arms = VISIBLE if visible else INVISIBLE
    wanted: dict[tuple[str, int], Stage] = {}
    stages: Plan = {}
    for arm, typed in arms.items():
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            where = (f"data.visible={visible}", f"data.world_seed={world}")
            run = read(hydra.compose("config", [*SETTING, *where, *typed.split()]))
        for seed in range(n_seeds):
            settings = replace(run.settings, seed=seed, twin_seeds=list(range(n_seeds)))
            of_job = plan(run._replace(settings=settings))
            wanted[arm, seed] = of_job["evaluate/student"]
            wanted |= {(role, 0): of_job[f"evaluate/{role}"] for role in ("weak", "ceiling")}
            wanted |= {("twin", n): of_job[f"evaluate/twin_{n + 1}"] for n in range(n_seeds) if arm == PLANTED}
            stages |= {f"{arm}/{seed}/{name}": stage for name, stage in of_job.items() if stage.kind != "compare"}
    launch(stages, survey(stages, store, []), run, store, execute)
    found = {who: read_predictions(store.find(stage.key) / PREDICTIONS) for who, stage in wanted.items()}
    topic_of = {row.id: row.prompt for row in run.data.table().split("test")}
    return World(
        weak=found.pop(("weak", 0)),
        ceiling=found.pop(("ceiling", 0)),
        twins=[found.pop(("twin", seed)) for seed in range(n_seeds)],
        students=found,
        topics=[topic_of[id] for id in found[NONE, 0].ids],
    )


def rows(number: int, visible: float, world: World) -> pd.DataFrame:
    """A row for each student, trained and virtual: its selective loss by four twins and by all, and its dose."""
    of_four, of_all = (reference(world.weak, world.ceiling, twins) for twins in (world.twins[:4], world.twins))
    students = {**world.students, **(virtual(world, of_four, np.random.default_rng(number)) if visible else {})}
    everyone = list(students.values())
    return pd.DataFrame(
        {
            "world": number,
            "visible": visible,
            "arm": [arm for arm, _ in students],
            "seed": [seed for _, seed in students],
            "loss": selective_loss(of_four, everyone),
            "loss_all_twins": selective_loss(of_all, everyone),
            "known": [known(of_four, one.margin) for one in everyone],
            "imitation": [imitation(of_four, one.margin) for one in everyone],
            **{name: candidate(of_all, world.twins, everyone) for name, candidate in CANDIDATES.items()},
        }
    ).round(5)


def virtual(world: World, measured: Reference, rng: np.random.Generator) -> dict[tuple[str, int], Predictions]:
    """Nulls made of students of another seed, each as bad on kk as a student with planted errors."""
    doses = [known(measured, one.margin) for (arm, _), one in world.students.items() if arm == PLANTED]
    entities, topics = (np.unique(names, return_inverse=True)[1] for names in (world.weak.clusters, world.topics))
    p = world.weak.p_correct
    made = {}
    for (arm, seed), one in world.students.items():
        if arm != OTHER_SEED:
            continue
        y, dose = one.margin, doses[seed]
        normal = rng.normal(size=(2, len(y)))
        harmed = np.isin(topics, rng.permutation(topics.max() + 1)[: (topics.max() + 1) // 2])
        margins = {
            "shift": degraded(measured, y, -np.ones_like(y), dose),
            "noise": degraded(measured, y, normal[0], dose),
            "noise by entity": degraded(measured, y, rng.normal(size=entities.max() + 1)[entities], dose),
            "smaller scale": 0.5 * y,
            "topics shifted": degraded(measured, y, -harmed.astype(np.float64), dose),
            "noise where unsure": degraded(measured, y, 4 * p * (1 - p) * normal[1], dose),
            "weak added": y + ADDED * world.weak.margin,
        }
        made |= {(name, seed): one._replace(margin=margin) for name, margin in margins.items()}
    return made


def degraded(measured: Reference, y: Column, by: Column, dose: float) -> Column:
    """y + s by, with the least s of a fine grid that takes accuracy on kk down to the dose."""
    sizes = (0.0, *np.geomspace(0.02, 20, 100))
    return next((y + s * by for s in sizes if known(measured, y + s * by) <= dose), y + sizes[-1] * by)


def known(measured: Reference, margin: Column) -> float:
    """Accuracy on kk, by which doses are matched."""
    return float((margin[measured.region == KK] >= 0).mean())


def imitation(measured: Reference, margin: Column) -> float:
    """The slope of margins on the weak logit at a given belief of the reference and truth, over ku and kk."""
    at = np.isin(measured.region, (KU, KK))
    columns = np.stack([measured.weak, measured.belief, np.ones_like(margin)], axis=1)[at]
    return float(np.linalg.lstsq(columns, margin[at], rcond=None)[0][0])


def main() -> None:
    """Train and measure world by world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the table to add to")
    parser.add_argument("worlds", nargs="+", type=int, metavar="WORLD")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--visible", type=float, default=1.0)
    parser.add_argument("--store", default="store")
    asked = parser.parse_args()
    for world in asked.worlds:
        done = pd.read_csv(asked.table) if asked.table.exists() else pd.DataFrame(columns=["world", "visible"])
        if ((done["world"] == world) & (done["visible"] == asked.visible)).any():
            continue
        new = rows(world, asked.visible, train(world, asked.visible, asked.seeds, Store(asked.store)))
        with asked.table.open("a", encoding="utf-8") as file:  # two runs may share a table: a world is one write
            file.write(new.to_csv(index=False, header=file.tell() == 0))


if __name__ == "__main__":
    main()
