"""Which jobs have a conflict, and which of them repeat each other."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from w2sd.pipeline.plan import SAMPLES
from w2sd.pipeline.store import Store
from w2sd.report import knobs, results

WORLD, SEED = "data.world_seed", "seed"  # what makes a replicate of a student, and nothing else
ASIDE = (*knobs.RUNTIME, "controls", "twin_seeds", "training_pairs")  # what a student does not depend on
MODELS = ("weak", "strong")


class Group(NamedTuple):
    """Jobs that differ in world and seed alone: a row each of `jobs`, and what tells the group from the others."""

    settings: dict[str, str]
    jobs: pd.DataFrame
    values: list[dict[Hashable, Any]]  # the same jobs as plain values
    inputs: list[dict[str, str]]  # of each job's comparison: keys of its evaluations by role

    @property
    def family(self) -> dict[str, str]:
        """What tells this group from others of the same models: the settings of groups of other pairs of models."""
        return {name: said for name, said in self.settings.items() if name.partition(".")[0] not in MODELS}


def groups(frame: pd.DataFrame, store: Path) -> list[Group]:
    """The jobs with a conflict and a baseline, each with its replicates, in the order of their settings.

    A replicate that was run twice counts once, with the most arms that it had.
    """
    jobs, inputs = _measured(frame, Store(store))
    science = [knob for knob in frame.attrs["knobs"] if _identifies(knob, frame)]
    keys = list(zip(*(knobs.text(jobs, column) for column in ("name", *science)), strict=True))
    places: dict[tuple[str, ...], dict[tuple[str, str], int]] = {}
    for place, (key, replicate) in enumerate(zip(keys, worlds_and_seeds(jobs), strict=True)):
        members = places.setdefault(key, {})
        before = members.get(replicate)
        if before is None or len(inputs[place]) >= len(inputs[before]):
            members[replicate] = place
    members_of = [sorted(members.values()) for members in places.values()]
    settings, values = _settings(jobs.iloc[[members[0] for members in members_of]]), results.rows(jobs)
    found = [
        Group(said, jobs.iloc[members], [values[place] for place in members], [inputs[place] for place in members])
        for said, members in zip(settings, members_of, strict=True)
    ]
    return sorted(found, key=lambda group: knobs.order(tuple(group.settings.values())))


def worlds_and_seeds(jobs: pd.DataFrame) -> list[tuple[str, str]]:
    """World and seed of each job; data that are no world are one world, `data`."""
    worlds, seeds = (knobs.text(jobs, column) if column in jobs else ["null"] * len(jobs) for column in (WORLD, SEED))
    return list(zip(("data" if world == "null" else world for world in worlds), seeds, strict=True))


def _measured(frame: pd.DataFrame, store: Store) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """The jobs with a conflict whose comparison has a baseline, and the inputs of each comparison."""
    column, there, inputs = "conflict._target_", [], []
    targets = knobs.text(frame, column) if column in frame else [""] * len(frame)
    for place, (target, key) in enumerate(zip(targets, frame["compare"], strict=True)):
        if not target or target.endswith(".NoConflict"):
            continue
        roles: dict[str, str] = {}
        with frame.attrs["damages"].noted():
            roles = (store.spec("compare", key) or {}).get("inputs") or {}
        if "baseline" in roles:
            there.append(place)
            inputs.append({role: of for role, of in roles.items() if not role.startswith(SAMPLES)})
    return frame.iloc[there], inputs


def _identifies(knob: str, frame: pd.DataFrame) -> bool:
    """Whether students with other values of this knob are other students; a part is identified by its fields."""
    part = f"{knob}._target_" in frame.attrs["knobs"]
    return not part and knob not in (WORLD, SEED) and knob.partition(".")[0] not in ASIDE


def _settings(first: pd.DataFrame) -> list[dict[str, str]]:
    """The conflict, and whatever else tells the groups apart, from the first job of each."""
    first = first.copy()
    apart = [knob for knob in first.attrs["knobs"] if _identifies(knob, first) or f"{knob}._target_" in first]
    first.attrs = {**first.attrs, "knobs": apart}
    columns = list(dict.fromkeys(("conflict", *knobs.telling(first)))) if len(first) else []
    texts = [knobs.text(first, column) for column in columns]
    return [dict(zip(columns, said, strict=True)) for said in zip(*texts, strict=True)]
