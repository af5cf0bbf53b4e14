"""What a reader has to know first: jobs in which something reads the truth that no supervisor has."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from w2sd.report import knobs, tables
from w2sd.stopping import TRUTH

ORACLES = ("OracleConfident", "Gold", "NoisyGold", "Synthetic")  # supervisions that read the truth
DECIDING = ("conflict.mask", "supervision._target_", "stopping.by")


def flags(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which some of these jobs read the truth, with which jobs."""
    columns = [knobs.text(frame, column) for column in DECIDING if column in frame]
    places: dict[tuple[str, ...], list[int]] = {}
    for place, values in enumerate(zip(*columns, strict=True)):
        places.setdefault(values, []).append(place)
    found: dict[str, list[int]] = {}
    for members in places.values():
        if oracle := reads_truth(frame.iloc[members[:1]]):
            found.setdefault(oracle, []).extend(members)
    return [
        f"Reads the truth: {oracle}. No supervisor could do this without labels.{_among(members, frame)}"
        for oracle, members in found.items()
    ]


def reads_truth(jobs: pd.DataFrame) -> str:
    """The parts of these jobs' configuration that no one without the truth could use, in words; else nothing.

    >>> reads_truth(pd.DataFrame({"supervision._target_": ["w2sd.supervision.Gold"]}))
    'supervision Gold'
    """
    said = []
    if "conflict.mask" in jobs and "truth" in knobs.text(jobs, "conflict.mask"):
        said.append("conflict with mask=truth")
    targets = knobs.text(jobs, "supervision._target_") if "supervision._target_" in jobs else []
    said += [f"supervision {name}" for name in ORACLES if any(target.endswith(f".{name}") for target in targets)]
    if "stopping.by" in jobs and TRUTH in knobs.text(jobs, "stopping.by"):
        said.append(f"stopping by {TRUTH}")
    return ", ".join(said)


def _among(members: Collection[int], frame: pd.DataFrame) -> str:
    """Which of the jobs these are, by one knob if that tells them from the others; nothing if they are all."""
    if len(members) == len(frame):
        return ""
    for column in knobs.telling(frame):
        values = knobs.text(frame, column)
        theirs = dict.fromkeys(values[place] for place in members)
        if not knobs.is_seed(column) and sum(value in theirs for value in values) == len(members):
            return f" ({tables.phrase({column: ' or '.join(theirs)})})"
    return f" ({len(members)} of {len(frame)} jobs)"
