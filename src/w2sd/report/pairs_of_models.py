"""PGR of each pair of models, weak and strong, under each method; what the released notebooks leave out is marked.

The notebooks released with Burns et al. 2023 average the accuracies of weak models and ceilings over seeds, leave out
pairs of equal models and pairs whose ceiling is then not above the weak model, and give the median over what remains.
What remains are pairs with something to gain; so all pairs are shown here, and medians with and without those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import pandas as pd

from w2sd.report import estimates, knobs, notation, tables
from w2sd.report.estimates import Row
from w2sd.report.groups import ASIDE, MODELS
from w2sd.report.results import HEADLINE

TITLE, MEDIANS = "PGR by pair of models", "Medians over pairs of models"
EQUAL, NO_GAP = "equal models", "ceiling ≤ weak"
NOTHING = 1e-9  # of a gap between means: less is rounding
AGREEMENT = ("agreement/student/weak_right", "agreement/student/weak_wrong")
THERE = (
    "There: the notebooks released with Burns et al. 2023, which average accuracies over seeds first (PGR of means) "
    "and leave out pairs of equal models and pairs whose ceiling is not above the weak model: pairs with nothing to "
    "gain."
)
TURNED = (
    "Where the ceiling is below the weak model, a student that falls from its teacher to the ceiling has a PGR of 1: "
    "there the gain says more."
)


class ModelPair(NamedTuple):
    """A weak and a strong model under one method: means over its jobs."""

    method: dict[str, str]  # what tells the method from others, seeds aside
    weak: str
    strong: str
    sizes: tuple[float | None, float | None]  # parameters of weak and strong model
    row: Row
    pgr: float | None  # of the mean accuracies, whatever the sign of the gap; None without any
    excluded: str  # why the notebooks leave it out, or nothing


def find(frame: pd.DataFrame) -> list[ModelPair]:
    """The pairs of models by method and size, where there are several; nothing where there is one."""
    named = frame.copy().assign(**_names(frame))
    if len(set(zip(named["weak"], named["strong"], strict=True))) < 2:
        return []
    methods = methods_of(frame)
    metrics = [*HEADLINE, *(metric for metric in AGREEMENT if metric in frame)]
    rows = estimates.per_group(named, metrics, [*methods, *MODELS])
    sizes = {role: _sizes(named, role) for role in MODELS}
    found = [_pair(row, methods, sizes) for row in rows]
    return sorted(
        found, key=lambda pair: (knobs.order(tuple(pair.method.values())), [size or 0 for size in pair.sizes])
    )


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The knobs, neither of models nor seeds, that tell jobs apart: what is compared over pairs of models."""
    columns = [knob for knob in frame.attrs["knobs"] if _is_method(knob)]
    fields = ["name", *(knob for knob in columns if f"{knob}._target_" not in frame)]  # a part is its fields
    first: dict[tuple[str, ...], int] = {}
    for place, values in enumerate(zip(*(knobs.text(frame, knob) for knob in fields), strict=True)):
        first.setdefault(values, place)
    apart = frame.iloc[list(first.values())]
    apart.attrs = {**frame.attrs, "knobs": columns}
    return knobs.telling(apart)


def are_groups(pairs: Sequence[ModelPair], frame: pd.DataFrame, by: Sequence[str]) -> bool:
    """Whether the means by these settings are those of the pairs, so that one table says both."""
    return bool(pairs) and len(pairs) == len(estimates.per_group(frame, (), by))


def table(pairs: Sequence[ModelPair], frame: pd.DataFrame) -> tables.Table:
    """A line per pair and method; what the notebooks leave out says why."""
    notes, methods = tables.Notes(), list(pairs[0].method)
    lines = []
    for pair in pairs:
        cells = [tables.cell(metric, pair.row.estimates[metric], notes) for metric in HEADLINE]
        cells += [notation.number(pair.pgr), f"yes: {pair.excluded}" if pair.excluded else "no"]
        lines.append((*pair.method.values(), pair.weak, pair.strong, str(pair.row.n), *cells))
    columns = (*tables.label([*methods, *MODELS]), "n", *(tables.NAMES[metric] for metric in HEADLINE))
    columns += ("PGR of means", "left out there")
    above = tables.above(frame, tables.PER_GROUP)
    return tables.Table(above, columns, tuple(lines), (*notes.lines(), THERE), len(methods) + 2)


def medians(pairs: Sequence[ModelPair]) -> tables.Table:
    """A line per method: medians over its pairs, without those that the notebooks leave out and with them."""
    methods: dict[tuple[str, ...], list[ModelPair]] = {}
    for pair in pairs:
        methods.setdefault(tuple(pair.method.values()), []).append(pair)
    lines, notes = [], tables.Notes()
    for values, members in methods.items():
        kept = [pair for pair in members if not pair.excluded]
        cells = [str(len(members)), str(len(members) - len(kept))]
        cells += [_median(pair.pgr for pair in kept), _median(pair.pgr for pair in members)]
        if none := sum(pair.pgr is None for pair in members):
            cells[-1] += f" ({none} null{notes.mark('a pair without any gap has no PGR and is in no median of it')})"
        cells += [_median(pair.row.estimates["gain"].value for pair in part) for part in (kept, members)]
        lines.append((*values, *cells))
    columns = (*tables.label(list(pairs[0].method)), "pairs", "left out there", "median PGR, as there")
    columns += ("median PGR, all", "median gain, as there", "median gain, all")
    turned = any(pair.excluded and pair.pgr is not None for pair in pairs)
    above = "medians over pairs of models, of the PGR of mean accuracies and of the gain in accuracy"
    return tables.Table(above, columns, tuple(lines), (*notes.lines(), *[TURNED] * turned), len(pairs[0].method))


def _pair(row: Row, methods: Sequence[str], sizes: Mapping[str, Mapping[str, float]]) -> ModelPair:
    weak, strong = (row.settings[role] for role in MODELS)
    low, reached, high = (row.estimates[f"accuracy/{role}"].value for role in ("weak", "student", "ceiling"))
    of_means, excluded = None, EQUAL if weak == strong else ""
    if low is not None and reached is not None and high is not None:
        of_means = (reached - low) / (high - low) if abs(high - low) > NOTHING else None
        excluded = excluded or (NO_GAP if high - low <= NOTHING else "")
    method = {knob: row.settings[knob] for knob in methods}
    of_models = (sizes["weak"].get(weak), sizes["strong"].get(strong))
    return ModelPair(method, weak, strong, of_models, row, of_means, excluded)


def _names(frame: pd.DataFrame) -> dict[str, list[str]]:
    """A name for the weak and the strong model of each job, one for each configuration of a model."""
    configs = {role: _configurations(frame, role) for role in MODELS}
    parts = {role: knobs.text(frame, role) if role in frame else [""] * len(frame) for role in MODELS}
    of_part: dict[str, dict[tuple[tuple[str, str], ...], None]] = {}
    for role in MODELS:
        for part, config in zip(parts[role], configs[role], strict=True):
            of_part.setdefault(part, {})[config] = None
    return {
        role: [_name(part, config, of_part[part]) for part, config in zip(parts[role], configs[role], strict=True)]
        for role in MODELS
    }


def _configurations(frame: pd.DataFrame, role: str) -> list[tuple[tuple[str, str], ...]]:
    """The fields of each job's model and what they are; those that another kind of model has are left out."""
    fields = [knob for knob in frame.attrs["knobs"] if knob.startswith(f"{role}.") and f"{knob}._target_" not in frame]
    columns = [knobs.text(frame, field) for field in fields]
    there = [frame[field].notna().to_list() for field in fields]
    names = [field.partition(".")[2] for field in fields]
    return [
        tuple((name, column[n]) for name, column, known in zip(names, columns, there, strict=True) if known[n])
        for n in range(len(frame))
    ]


def _name(part: str, config: tuple[tuple[str, str], ...], others: Iterable[tuple[tuple[str, str], ...]]) -> str:
    """The option, with the fields that tell this configuration from others of the same option."""
    known = [dict(other) for other in others]
    apart = [f"{field} {value}" for field, value in config if len({other.get(field) for other in known}) > 1]
    return f"{part} ({', '.join(apart)})" if apart else part


def _sizes(frame: pd.DataFrame, role: str) -> dict[str, float]:
    """The parameters of each model of this role, by its name, as far as they are known."""
    sizes = frame.get(f"parameters/{role}", pd.Series(dtype=float)).dropna()
    return {str(frame.at[place, role]): float(size) for place, size in sizes.items()}


def _is_method(knob: str) -> bool:
    return knob.partition(".")[0] not in (*MODELS, *ASIDE) and not knobs.is_seed(knob)


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return notation.number(float(median(known)) if known else None)
