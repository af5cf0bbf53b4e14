"""What is measured, as pure functions: oriented confidences in, one number out. NumPy float64, no torch.

`p_correct` is everywhere the confidence that a model puts on the answer that is truly better: 1 knows, 0 is
confidently wrong, exactly 1/2 is a tie.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from w2sd.metrics.statistics import Column, as_column


def correctness(p_correct: ArrayLike) -> Column:
    """1 for each right row, 0 for each wrong one, 1/2 for an exact tie.

    >>> correctness([0.9, 0.5, 0.2]).tolist()
    [1.0, 0.5, 0.0]
    """
    p = confidences("p_correct", p_correct)
    return (np.sign(p - 0.5) + 1) / 2


def accuracy(p_correct: ArrayLike) -> float:
    """The share of right rows, ties half: (1/n) sum_i 1[p_i > 1/2] + 1/2 1[p_i = 1/2].

    >>> accuracy([0.9, 0.6, 0.5, 0.2])
    0.625
    """
    correct = correctness(p_correct)
    if not len(correct):
        raise ValueError("p_correct: expected at least one row")
    return float(correct.mean())


def n_ties(p_correct: ArrayLike) -> int:
    """How many rows are exact ties.

    >>> n_ties([0.9, 0.5, 0.2])
    1
    """
    return int((confidences("p_correct", p_correct) == 0.5).sum())


def pgr(weak: float, student: float, ceiling: float) -> float | None:
    """The share of the gap between weak model and ceiling that the student recovers; None where there is no gap.

    PGR = (student - weak) / (ceiling - weak), all three accuracies (Burns et al. 2023, arXiv 2312.09390, section 3).
    0 imitates the supervisor, 1 reaches the ceiling; below 0 and above 1 both happen. It is undefined if, and only
    if, ceiling <= weak. It says nothing about noise: whether the gap itself is real is for the caller to ask.

    >>> round(pgr(0.60, 0.72, 0.80), 12)
    0.6
    >>> pgr(0.80, 0.90, 0.80) is None
    True
    """
    for name, value in {"weak": weak, "student": student, "ceiling": ceiling}.items():
        if not 0 <= value <= 1:  # NaN is refused too
            raise ValueError(f"{name}: expected an accuracy from 0 to 1, got {value}")
    return (student - weak) / (ceiling - weak) if ceiling > weak else None


def confidences(name: str, values: ArrayLike) -> Column:
    """One column of numbers in [0, 1] in float64; anything else is a ValueError that names the column."""
    column = as_column(name, values)
    outside = (column < 0) | (column > 1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"{name}: row {row} is {column[row]:g}, outside [0, 1]")
    return column
