"""What a reader has to know first: jobs in which something reads the truth that no supervisor has."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from w2sd.report import knobs, tables


def flags(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which some of these jobs read the truth, with which jobs."""
    found: dict[str, list[int]] = {}
    for place, oracle in enumerate(frame["reads_truth"]):
        if oracle:
            found.setdefault(oracle, []).append(place)
    return [
        f"Reads the truth: {oracle}. No supervisor could do this without labels.{_among(members, frame)}"
        for oracle, members in found.items()
    ]


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
