"""What a reader has to know first: jobs that read the truth that no supervisor has, have few rows or lost some."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from w2sd.report import knobs, notation, tables

SURE = 0.01  # the standard error of an accuracy above which a reader is told
LONG = {"data/dropped_long": "test", "data/dropped_long_training": "training"}
ERRORS = [f"accuracy/{role}_se" for role in ("weak", "student", "ceiling")]


def flags(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which some of these jobs need care, with which jobs."""
    told: dict[str, list[int]] = {}
    for place, oracle in enumerate(frame["reads_truth"]):
        if oracle:
            told.setdefault(f"Reads the truth: {oracle}. No supervisor could do this without labels.", []).append(place)
    errors = frame.reindex(columns=ERRORS).astype(float)
    largest = errors.max(axis=1).to_numpy()
    if unsure := [place for place, error in enumerate(largest) if error > SURE]:
        most = 100 * max(largest[place] for place in unsure)
        told[f"Tested on few rows or clusters: the standard error of an accuracy is up to {most:.1f} points."] = unsure
    if unknown := [place for place, measured in enumerate(errors.notna().any(axis=1)) if not measured]:
        told["Tested on so few rows or clusters that no accuracy has a standard error."] = unknown
    for metric, which in LONG.items():
        counts = frame[metric].fillna(0).to_list() if metric in frame else []
        if some := [place for place, n in enumerate(counts) if n > 0]:
            most = notation.number(int(max(counts)))
            told[f"Dropped because a response was too long: up to {most} {which} pairs of a model (data.long)."] = some
    return [f"{sentence}{_among(places, frame)}" for sentence, places in told.items()]


def _among(places: Collection[int], frame: pd.DataFrame) -> str:
    columns = {name: knobs.text(frame, name) for name in knobs.telling(frame) if not knobs.is_seed(name)}
    return tables.among(places, len(frame), columns, f"{len(places)} of {len(frame)} jobs")
