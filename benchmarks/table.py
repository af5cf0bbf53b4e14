"""From measurements to a Markdown table: pairs per CPU-second, ratios, memory, and the share of the ceiling."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from work import Work, forward_flops


class Measured(NamedTuple):
    """One process."""

    side: str  # w2sd | TRL | ceiling
    name: str  # reward | simpo | dpo | dpo-cached: TRL's settings; w2sd's `dpo` knows both
    turn: int
    pairs: int
    seconds: dict[str, float]
    peak_mb: int


class Row(NamedTuple):
    """What is timed, and which parts of which processes that is."""

    title: str
    objective: str
    passes: int  # forward passes that it is worth: a step of training is three
    ours: tuple[str, ...]
    theirs: dict[str, tuple[str, ...]]  # TRL's settings, each with its parts; the faster ones count


ROWS = (
    Row("reward", "reward", 3, ("train",), {"reward": ("train",)}),
    Row("SimPO", "simpo", 3, ("train",), {"simpo": ("train",)}),
    Row(
        *("DPO, reference in the run", "dpo", 4, ("reference", "train")),
        {"dpo": ("train",), "dpo-cached": ("reference", "train")},
    ),
    Row("DPO, reference cached", "dpo", 3, ("train",), {"dpo-cached": ("train",)}),
    Row("evaluation, reward", "reward", 1, ("evaluate",), {"reward": ("evaluate",)}),
    Row("evaluation, SimPO", "simpo", 1, ("evaluate",), {"simpo": ("evaluate",)}),
    Row(
        *("evaluation, DPO, reference in the run", "dpo", 2, ("reference", "evaluate")),
        {"dpo": ("evaluate",), "dpo-cached": ("reference", "evaluate")},
    ),
    Row("evaluation, DPO, reference cached", "dpo", 1, ("evaluate",), {"dpo-cached": ("evaluate",)}),
)


def rates(found: list[Measured], side: str, name: str, parts: tuple[str, ...]) -> list[float]:
    """Pairs per CPU-second in each turn."""
    return [
        one.pairs / sum(one.seconds[part] for part in parts) for one in found if (one.side, one.name) == (side, name)
    ]


def render(case: str, given: Work, found: list[Measured]) -> list[str]:
    """The table of one case, with a line above it that says what was measured."""
    peak = median(one.seconds["operations"] for one in found if one.side == "ceiling")
    n = len(given.pairs)
    turns = max(one.turn for one in found) + 1
    lines = [
        f"\n**{case}**: {n} pairs ({given.origin}), {given.tokens / n:.1f} tokens each with prompts counted twice;"
        f" {turns} turn{'s' * (turns > 1)}; ceiling {peak / 1e9:.0f} GFLOP/s",
        "",
        "| | TRL | w2sd | ratio | of the ceiling: TRL | w2sd |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        left = rates(found, "w2sd", row.objective, row.ours)
        right = max((rates(found, "TRL", *each) for each in row.theirs.items()), key=lambda r: median(r or [0.0]))
        if left and right:
            lines.append(_line(row, given, left, right, peak))
    return [*lines, "", _memory(found)]


def _line(row: Row, given: Work, left: list[float], right: list[float], peak: float) -> str:
    ratio = [a / b for a, b in zip(left, right, strict=True)]
    shares = [
        " / ".join(
            f"{median(side) * row.passes * forward_flops(given, row.objective, shared) / len(given.pairs) / peak:.0%}"
            for shared in (False, True)
        )
        for side in (right, left)
    ]
    cells = [row.title, _spread(right, ".1f"), _spread(left, ".1f"), _spread(ratio, ".2f"), *shares]
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def _memory(found: list[Measured]) -> str:
    peaks: dict[str, int] = {}
    for one in found:
        if one.side != "ceiling":
            name = f"{one.side} {one.name}"
            peaks[name] = max(peaks.get(name, 0), one.peak_mb)
    return "Peak memory: " + ", ".join(f"{name} {peak} MB" for name, peak in peaks.items()) + "."
