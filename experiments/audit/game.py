"""The audit game: `python experiments/audit/game.py` after `w2sd -m experiment=audit` counts its verdicts.

Each arm of each world is judged by itself, as if nobody knew what was done to its students: the rule sees predictions
and which of them are controls, and no name.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.stats import binomtest

from w2sd.metrics.verdict import Replicate, judge
from w2sd.report import results, tables, verdicts
from w2sd.report.groups import groups

WORDS = ("shown", "not_shown", "not_testable")
Counts = Mapping[str, int]  # verdicts by WORDS


def play(arms: Mapping[str, Sequence[Replicate]]) -> dict[str, Counts]:
    """The verdicts of each arm, one for each world."""
    found = {}
    for arm, replicates in arms.items():
        worlds = dict.fromkeys(replicate.world for replicate in replicates)
        said = [judge([one for one in replicates if one.world == world]).result for world in worlds]
        found[arm] = {word: said.count(word) for word in WORDS}
    return found


def matrix(found: Mapping[str, Counts]) -> str:
    """The counts as Markdown, with Wilson intervals."""
    lines = ["| what was done | shown | not shown | not testable | share shown [95%] |", "|---|---:|---:|---:|---:|"]
    for arm, counts in found.items():
        n = sum(counts.values())
        lo, hi = binomtest(counts["shown"], n).proportion_ci(method="wilson")
        cells = " | ".join(str(counts[word]) for word in WORDS)
        lines.append(f"| {arm} | {cells} | {counts['shown'] / n:.2f} [{lo:.2f}, {hi:.2f}] |")
    return "\n".join(lines)


def draw(found: Mapping[str, Counts], out: Path) -> None:
    """The share of `shown` of each arm."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 0.35 * len(found) + 0.8), layout="constrained")
    for place, counts in enumerate(found.values()):
        n = sum(counts.values())
        lo, hi = binomtest(counts["shown"], n).proportion_ci(method="wilson")
        axes.plot((lo, hi), (place, place), color="0.6", linewidth=1.5)
        axes.plot(counts["shown"] / n, place, "o", color="C0")
    axes.axvline(0.05, color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), xlabel="share of worlds with the verdict `shown` (dotted: the level)")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    figure.savefig(out, dpi=120)


def main() -> None:
    """Read the store, judge, print the matrix and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--name", default="audit")
    parser.add_argument("--figure", type=Path, default=Path("game.png"))
    asked = parser.parse_args()
    arms = {
        tables.phrase(group.settings): verdicts.replicates(group, asked.store)
        for group in groups(results.pick(asked.store, asked.name, []), asked.store)
    }
    found = play(arms)
    print(matrix(found))
    draw(found, asked.figure)


if __name__ == "__main__":
    main()
