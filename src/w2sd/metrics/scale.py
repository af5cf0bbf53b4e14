"""The scale of a figure, which no interval of it leaves."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Scale(NamedTuple):
    """The smallest and the largest value that a figure can have."""

    lowest: float
    highest: float


SHARE, DIFFERENCE, POSITIVE = Scale(0.0, 1.0), Scale(-1.0, 1.0), Scale(0.0, math.inf)
UNBOUNDED = Scale(-math.inf, math.inf)

# The first pattern that matches the whole name decides. PGR and excess flips have no bounds of their own.
_SCALES = {
    r".*/null/.*": UNBOUNDED,  # excess flips of a placebo, whose name is anybody's
    r"gain|pgr_gap|curve/gap|tax/net|between/change|.*/(excess|excess_phi|blind_spot_change)": DIFFERENCE,
    r".*/did": Scale(-2.0, 2.0),
    r"(.*/)?(accuracy|agreement|rate|brier|ece|legal|error)(/.*)?": SHARE,
    r".*/(score|base_rate|blind_spot|blind_spot_conditional|length_matched|margin_matched|seed_null|churn)": SHARE,
    r".*/(q\d\d|disagreement|bias2)|variance/risk_\w+|(curve|stopping)/(truth|kept_truth|best|labels)": SHARE,
    r"generation/(ended|repetition|distinct)/.*": SHARE,
    r"n/.*|steps/.*|.*/(n|n_all|flips|reverse|lift|odds_ratio|rate_ratio|rate_ratio_mh|risk_ratio)": POSITIVE,
}


def scale_of(name: str) -> Scale:
    """The scale of a metric by its name; `UNBOUNDED` where it has no bounds.

    >>> [tuple(scale_of(name)) for name in ("accuracy/weak", "gain_mcnemar_p", "gain", "deception/did", "tax/flips")]
    [(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (-2.0, 2.0), (0.0, inf)]
    >>> scale_of("pgr") == scale_of("deception/excess_flips") == UNBOUNDED
    True
    """
    if is_p_value(name):
        return SHARE
    return next((scale for pattern, scale in _SCALES.items() if re.fullmatch(pattern, name)), UNBOUNDED)


def is_p_value(name: str) -> bool:
    """Whether a figure is a p value.

    >>> is_p_value("tax/mcnemar_p"), is_p_value("deception/p_region"), is_p_value("pgr")
    (True, True, False)
    """
    return "/null/" not in name and "p" in name.rpartition("/")[2].split("_")
