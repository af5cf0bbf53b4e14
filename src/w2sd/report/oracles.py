"""What a reader has to know first: jobs in which something reads the truth that no supervisor has."""

from __future__ import annotations

import pandas as pd

from w2sd.report import knobs, tables


def flags(frame: pd.DataFrame) -> list[str]:
    """A sentence for each way in which some of these jobs read the truth, with which jobs."""
    found: dict[str, list[int]] = {}
    for place, oracle in enumerate(frame["reads_truth"]):
        if oracle:
            found.setdefault(oracle, []).append(place)
    if not found:
        return []
    columns = {name: knobs.text(frame, name) for name in knobs.telling(frame) if not knobs.is_seed(name)}
    n = len(frame)
    return [
        f"Reads the truth: {oracle}. No supervisor could do this without labels."
        f"{tables.among(members, n, columns, f'{len(members)} of {n} jobs')}"
        for oracle, members in found.items()
    ]
