"""What a setting changes: differences between jobs that are alike in all but one knob, paired within worlds.

    python experiments/w2sg/effects.py STORE w2sg_ladder method naive --within weak strong data

prints, for every other value of the knob, the mean difference in the student's accuracy and in PGR to the value named,
with a 95% t interval over worlds: first in the mean over all jobs of a world, then in each combination `within`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from w2sd.metrics.statistics import DIFFERENCE, UNBOUNDED, Scale, mean
from w2sd.report import results

METRICS = {"accuracy/student": DIFFERENCE, "pgr": UNBOUNDED}  # the scale of a difference in it
WORLD = "data.world_seed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("name")
    parser.add_argument("knob")
    parser.add_argument("against")
    parser.add_argument("--within", nargs="*", default=[])
    asked = parser.parse_args()
    frame = results.load(asked.store, name=asked.name)
    frame = frame.assign(**{column: frame[column].astype(str) for column in (asked.knob, *asked.within)})
    print(f"| {' | '.join([*asked.within, asked.knob])} | pairs of jobs | Δ accuracy | Δ PGR |")
    print("|" + "---|" * (len(asked.within) + 1) + "---:|---:|---:|")
    for groups in dict.fromkeys((tuple(asked.within[:1]), tuple(asked.within))):
        for line in lines(frame, asked.knob, asked.against, asked.within, list(groups)):
            print(line)


def lines(frame: pd.DataFrame, knob: str, against: str, within: list[str], groups: list[str]) -> list[str]:
    """A row of the table for each value of the knob in each group."""
    table = frame.pivot_table(list(METRICS), [*within, WORLD], knob, dropna=False)
    found = []
    for value in sorted(set(frame[knob]) - {against}):
        delta = pd.DataFrame({metric: table[metric].get(value) - table[metric][against] for metric in METRICS})
        delta = delta.dropna(subset=["accuracy/student"])
        for key, rows in delta.groupby(groups) if groups else [((), delta)]:
            cells = [estimate(rows[metric].groupby(WORLD).mean().dropna(), scale) for metric, scale in METRICS.items()]
            named = dict(zip(groups, key, strict=True))
            label = [named.get(column, "all") for column in within]
            found.append(f"| {' | '.join([*label, value])} | {len(rows)} | {' | '.join(cells)} |")
    return found


def estimate(by_world: pd.Series, scale: Scale) -> str:
    """Mean and t interval over worlds."""
    if by_world.nunique() < 2:
        return "–"
    value, lo, hi = mean(by_world.tolist(), scale)
    return f"{value:+.3f} [{lo:+.3f}, {hi:+.3f}]".replace("-", "−")


if __name__ == "__main__":
    main()
