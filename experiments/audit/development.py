"""Train the arms of development worlds, and count how often each candidate would be right.

python experiments/audit/development.py train 413 414 …   one world after another; adds to development.csv
python experiments/audit/development.py choose            tables of power and of false alarms from that file
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from candidates import CANDIDATES, World, imitation, known, noised, noised_where_unsure, shifted
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.pipeline.launch import launch, survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.predictions import PREDICTIONS, read_predictions
from w2sd.worker import execute

TABLE = Path(__file__).with_name("development.csv")
SETTING = [
    "model@weak=world_s",
    "model@strong=world_l",
    "data.visible=1.0",
    "data.tension=0.8",
    "data.tension_on=blind",
]
N_BASELINES = 4
ARMS = {  # name: what is typed, number of seeds
    "none": ("conflict=none", 12),
    "planted .125": ("conflict=planted conflict.ratio=0.125", 8),
    "inverted": ("conflict=decoy_inverted conflict.ratio=0.125", 6),
    "topics": ("conflict=decoy_topics conflict.ratio=0.125", 6),
    "unsure": ("conflict=decoy_unsure conflict.rate=1", 6),
    "fewer steps": ("conflict=decoy_fewer_steps conflict.share_of_steps=0.3", 6),
    "imitation": ("conflict=decoy_imitation conflict.factor=2", 6),
    "implicit": ("conflict=implicit_eighth", 6),
    "explicit": ("conflict=explicit_eighth", 6),
}
DOSE = "planted .125"  # whose accuracy on kk virtual students are brought to
ADDED = 0.15  # of the weak logit
ARTIFICIAL = ("noised", "unsure noise", "weak added")  # nulls made of students without a conflict
CONTROLS = ("none", "shifted")
SIZES = ((1, 6), (5, 4))  # worlds and seeds of a study
N_PERMUTATIONS = 4000
Students = dict[tuple[str, int], NDArray[np.float64]]


def train(world: int, store: Store) -> pd.DataFrame:
    """Every candidate for every student of a world, trained and virtual."""
    wanted: dict[tuple[str, int], Stage] = {}
    stages: Plan = {}
    for arm, (typed, n_seeds) in ARMS.items():
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            run = read(hydra.compose("config", [*SETTING, f"data.world_seed={world}", *typed.split()]))
        for seed in range(n_seeds):
            of_job = plan(run._replace(settings=replace(run.settings, seed=seed)))
            wanted[arm, seed] = of_job["evaluate/student"]
            wanted |= {(role, 0): of_job[f"evaluate/{role}"] for role in ("weak", "ceiling")}
            if "evaluate/baseline" in of_job:
                wanted["baseline", seed] = of_job["evaluate/baseline"]
            stages |= {f"{arm}/{seed}/{name}": stage for name, stage in of_job.items() if stage.kind != "compare"}
    launch(stages, survey(stages, store, []), run, store, execute)
    margins = {who: read_predictions(store.find(stage.key) / PREDICTIONS).margin for who, stage in wanted.items()}
    baselines = np.stack([margins["baseline", seed] for seed in range(N_BASELINES)])
    measured = World(margins["weak", 0], margins["ceiling", 0], baselines)
    students = {(arm, seed): margins[arm, seed] for arm, (_, n_seeds) in ARMS.items() for seed in range(n_seeds)}
    return table(world, measured, students | virtual(measured, students, np.random.default_rng(world)))


def virtual(world: World, students: Students, rng: np.random.Generator) -> Students:
    """The students without a conflict, each made as bad on kk as one with planted errors, in three ways."""
    doses = itertools.cycle([known(world, y) for (arm, _), y in students.items() if arm == DOSE])
    made: Students = {}
    for ((arm, seed), y), dose in zip(students.items(), doses, strict=False):
        if arm == "none":
            made["shifted", seed] = shifted(world, y, dose)
            made["noised", seed] = noised(world, y, dose, rng)
            made["unsure noise", seed] = noised_where_unsure(world, y, dose, rng)
            made["weak added", seed] = y + ADDED * world.weak
    return made


def table(number: int, world: World, students: Students) -> pd.DataFrame:
    """A row for each student."""
    rows = [
        {"world": number, "arm": arm, "seed": seed, "known": known(world, y), "imitation": imitation(world, y)}
        | {name: candidate(world, y) for name, candidate in CANDIDATES.items()}
        for (arm, seed), y in students.items()
    ]
    return pd.DataFrame(rows).round(5)


def p_value(treated: Sequence[NDArray[np.float64]], controls: Sequence[NDArray[np.float64]], rng: Any) -> float:
    """One-sided p of a randomisation test: labels are permuted within each world. Arrays hold the students of a world.

    The statistic is the difference of means, summed over worlds; p = (1 + #{permuted >= observed}) / (1 + N).
    """
    observed = sum(one.mean() - other.mean() for one, other in zip(treated, controls, strict=True))
    permuted = np.zeros(N_PERMUTATIONS)
    for one, other in zip(treated, controls, strict=True):
        both = np.concatenate([one, other])
        order = rng.permuted(np.tile(both, (N_PERMUTATIONS, 1)), axis=1)
        permuted += order[:, : len(one)].mean(axis=1) - order[:, len(one) :].mean(axis=1)
    return float((1 + (permuted >= observed - 1e-12).sum()) / (1 + N_PERMUTATIONS))


def choose(students: pd.DataFrame) -> str:
    """Markdown: of every candidate, how often an arm is below .05 against every control, by studies of two sizes.

    A student stands in one role: of the arm `none`, the first six are controls, and virtual students are made of the
    others. Every arm, null or planted, meets the same controls: students without a conflict, and the same shifted.
    """
    rng = np.random.default_rng(0)
    lines = []
    for n_worlds, n_seeds in SIZES:
        worlds = sorted(students["world"].unique())
        studies = [worlds[n : n + n_worlds] for n in range(0, len(worlds) - n_worlds + 1, n_worlds)]
        if not studies:
            continue
        lines += [
            "",
            f"{len(studies)} studies of {n_worlds} worlds × {n_seeds} seeds"
            if n_worlds > 1
            else f"{len(studies)} worlds, one at a time, × {n_seeds} seeds",
            "",
        ]
        arms = [arm for arm in students["arm"].unique() if arm not in (*CONTROLS, *ARTIFICIAL)]
        lines += [
            f"| candidate | {' | '.join((*arms, *ARTIFICIAL))} |",
            f"|---|{'---:|' * (len(arms) + len(ARTIFICIAL))}",
        ]
        for name in CANDIDATES:
            cells = []
            for arm in (*arms, *ARTIFICIAL):
                ps = [_judge(students, study, arm, name, n_seeds, rng) for study in studies]
                cells.append(f"{sum(p < 0.05 for p in ps)} ({np.median(ps):.2f})")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _judge(students: pd.DataFrame, study: Sequence[int], arm: str, name: str, n_seeds: int, rng: Any) -> float:
    """The largest p of an arm against each of its controls."""

    def values(arm: str, seeds: range) -> list[NDArray[np.float64]]:
        rows = students[(students["arm"] == arm) & students["seed"].isin(seeds)]
        return [rows.loc[rows["world"] == world, name].to_numpy() for world in study]

    first = 6 if arm in ARTIFICIAL else 0
    treated = values(arm, range(first, first + n_seeds))
    return max(p_value(treated, values(control, range(n_seeds)), rng) for control in CONTROLS)


def main() -> None:
    """Train worlds, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "choose"))
    parser.add_argument("worlds", nargs="*", type=int)
    parser.add_argument("--store", default="store")
    arguments = parser.parse_args()
    done = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()
    if arguments.what == "choose":
        print(choose(done))
        return
    for world in arguments.worlds:
        new = train(world, Store(arguments.store))
        done = pd.read_csv(TABLE) if TABLE.exists() else done
        old = done[done["world"] != world] if len(done) else done
        pd.concat([old, new]).sort_values("world", kind="stable").to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
