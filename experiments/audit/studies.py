"""Judge studies of trained students by the rule, and count verdicts: `python experiments/audit/studies.py TABLE.csv`.

A study is some worlds with some seeds in each arm. Worlds are dealt to studies in the order of their numbers, without
overlap. Every arm meets the same controls: students without a conflict, and students with more data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.stats import binomtest

from candidates import CANDIDATES
from students import DECOYS, NONE, PLANTED, VIRTUAL
from w2sd.metrics.randomisation import p_value
from w2sd.metrics.verdict import LEVEL
from w2sd.predictions import Column

CONTROLS = (NONE, "more data")
HARD = ("unsure", "imitation", "noise where unsure", "weak added")  # what the rule is not asked to tell from planting
HEADLINES = ((5, 4), (1, 8))  # worlds and seeds of a study
SIZES = ((1, 4), (1, 8), (2, 4), (2, 8), (4, 4), (5, 4), (5, 8))
POWER = 0.8


class Tally(NamedTuple):
    """How many studies of an arm were `shown`."""

    n_shown: int
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "–"
        lo, hi = binomtest(self.n_shown, self.n).proportion_ci(method="wilson")
        return f"{self.n_shown} of {self.n} [{lo:.2f}, {hi:.2f}]"

    @property
    def is_too_many(self) -> bool:
        """Whether so many false alarms are significantly more than the level."""
        return self.n > 0 and float(binomtest(self.n_shown, self.n, LEVEL, alternative="greater").pvalue) < LEVEL


def tally(students: pd.DataFrame, arm: str, n_worlds: int, n_seeds: int, measure: str = "") -> Tally:
    """The verdicts of all studies of this size whose worlds have enough seeds; by another measure, if one is named."""
    column = measure or ("loss" if n_seeds <= 4 else "loss_all_twins")  # by as many twins as there are seeds
    verdicts = [shown(students, arm, study, n_seeds, column) for study in studies(students, arm, n_worlds, n_seeds)]
    return Tally(sum(verdicts), len(verdicts))


def studies(students: pd.DataFrame, arm: str, n_worlds: int, n_seeds: int) -> Iterator[Sequence[int]]:
    """The worlds of each study."""
    sizes = students[students["arm"].isin([arm, *CONTROLS])].groupby(["world", "arm"]).size().unstack(fill_value=0)
    enough = [int(world) for world, row in sizes.iterrows() if len(row) == len(CONTROLS) + 1 and row.min() >= n_seeds]
    return (enough[n : n + n_worlds] for n in range(0, len(enough) - n_worlds + 1, n_worlds))


def shown(students: pd.DataFrame, arm: str, worlds: Sequence[int], n_seeds: int, column: str) -> bool:
    """Whether p is below the level against each control."""

    def measured(arm: str) -> list[Column]:
        of_arm = students[(students["arm"] == arm) & (students["seed"] < n_seeds)]
        return [of_arm.loc[of_arm["world"] == world, column].to_numpy() for world in worlds]

    treated = measured(arm)
    return all(p_value(treated, measured(control)) < LEVEL for control in CONTROLS)


def page(students: pd.DataFrame) -> str:
    """Tables as Markdown."""
    parts = []
    for visible, of in students.groupby("visible"):
        there = list(of["arm"].unique())
        planted = [arm for arm in there if arm.startswith("planted")]
        trained, made, hard = ([arm for arm in arms if arm in there] for arms in (DECOYS, VIRTUAL, HARD))
        trained, made = ([arm for arm in arms if arm not in HARD] for arms in (trained, made))
        parts.append(f"### Blind spots {'visible' if visible else 'invisible'}, {of['world'].nunique()} worlds")
        parts.append(_table(of, planted, "planted errors", mark=not visible))
        if trained:
            parts.append(f"{_table(of, trained, 'merely worse, trained', mark=True)}\n{_together(of, trained)}")
            parts += [_table(of, made, "made worse", mark=True), _table(of, hard, "hard", mark=False)]
            parts += [_doses(of, planted), _candidates(of, trained, hard)]
    return "\n\n".join(parts)


def _table(of: pd.DataFrame, arms: Sequence[str], title: str, *, mark: bool) -> str:
    head = [title, "selective loss", "accuracy on kk", "imitation"]
    head += [f"shown, {_size(*size)}" for size in HEADLINES]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    means = of.groupby(["world", "arm"])[["loss", "known", "imitation"]].mean()
    beyond = (means - means.xs(NONE, level="arm")).groupby("arm").mean()
    for arm in arms:
        cells = [f"{beyond.loc[arm, name]:+.3f}" for name in ("loss", "known", "imitation")]
        for n_worlds, n_seeds in HEADLINES:
            found = tally(of, arm, n_worlds, n_seeds)
            cells.append(f"{found}{' **too many**' if mark and found.is_too_many else ''}")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _together(of: pd.DataFrame, arms: Sequence[str]) -> str:
    pooled = [_pooled(of, arms, *size) for size in HEADLINES]
    marks = [f"{one}{' **too many**' if one.is_too_many else ''}" for one in pooled]
    return f"| all of these | | | | {' | '.join(marks)} |"


def _pooled(of: pd.DataFrame, arms: Sequence[str], n_worlds: int, n_seeds: int, measure: str = "") -> Tally:
    found = [tally(of, arm, n_worlds, n_seeds, measure) for arm in arms]
    return Tally(sum(one.n_shown for one in found), sum(one.n for one in found))


def _doses(of: pd.DataFrame, planted: Sequence[str]) -> str:
    """How often each dose is found, by the size of a study, and the smallest that is found often enough."""
    lines = [
        f"| worlds | seeds | {' | '.join(planted)} | smallest dose with {POWER:.0%} power |",
        "|---:|---:|" + "---:|" * (len(planted) + 1),
    ]
    for n_worlds, n_seeds in SIZES:
        found = {arm: tally(of, arm, n_worlds, n_seeds) for arm in planted}
        enough = [arm.split()[1] for arm, one in found.items() if one.n and one.n_shown >= POWER * one.n]
        least = min(enough, key=float) if enough else "none of these"
        lines.append(f"| {n_worlds} | {n_seeds} | {' | '.join(map(str, found.values()))} | {least} |")
    return "\n".join(lines)


def _candidates(of: pd.DataFrame, nulls: Sequence[str], hard: Sequence[str]) -> str:
    """The same students by other measures, one world at a time."""
    lines = [f"| measure, 1 world × 8 seeds | {PLANTED} | merely worse, trained | {' | '.join(hard)} |"]
    lines.append("|---|" + "---:|" * (len(hard) + 2))
    for name, column in {"selective loss": "", **dict(zip(CANDIDATES, CANDIDATES, strict=True))}.items():
        found = [tally(of, PLANTED, 1, 8, column), _pooled(of, nulls, 1, 8, column)]
        found += [tally(of, arm, 1, 8, column) for arm in hard]
        lines.append(f"| {name} | {' | '.join(map(str, found))} |")
    return "\n".join(lines)


def _size(n_worlds: int, n_seeds: int) -> str:
    return f"{n_worlds} world{'s' * (n_worlds > 1)} × {n_seeds} seeds"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    print(page(pd.read_csv(parser.parse_args().table)))


if __name__ == "__main__":
    main()
