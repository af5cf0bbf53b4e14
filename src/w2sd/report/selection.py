"""What was asked for on the command line, found in the frame or refused with the nearest name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from w2sd.errors import Refused, choose, nearest, require
from w2sd.report import knobs, results
from w2sd.report.estimates import headline

DECEPTION = ("deception", "deception_true")
SHORT = ("excess_flips_per_1000", "excess_flips", "score", "did")  # what such a family stands for on the command line
BESIDE = ("score", "base_rate", "seed_null")
COMPANY = {"excess_flips_per_1000": (), "excess_flips": (), **dict.fromkeys(("score", "lift", "excess"), BESIDE)}


def pick(store: Path, name: str | None, conditions: Sequence[str]) -> pd.DataFrame:
    """The jobs of this experiment, or of every one, that meet the conditions: at least one."""
    frame = results.load(store)
    gone = f" ({n} recorded, their results are gone)" if (n := frame.attrs["missing"]) else ""
    accepted = f"a store with finished jobs: run `w2sd -m experiment=demo` first, or name another store{gone}"
    require(len(frame) > 0, "store", str(store), accepted)
    if name is not None:
        choose("--name", name, set(frame["name"]))
        frame = results.load(store, name=name)
    return where(frame, conditions)


def where(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that meet every condition `key=value`; conditions on one key are alternatives."""
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        require(bool(equals), "--where", condition, "KEY=VALUE")
        (column,) = columns(frame, [key], "--where")
        wanted.setdefault(column, []).append(value)
    for key, values in wanted.items():
        there = knobs.text(frame, key)
        for value in values:
            known = sorted(set(there), key=lambda text: knobs.order((text,)))
            require(
                any(knobs.same(text, value) for text in known), f"--where {key}", value, "one of " + ", ".join(known)
            )
        frame = frame[[any(knobs.same(text, value) for value in values) for text in there]]
    return frame


def columns(frame: pd.DataFrame, names: Sequence[str], flag: str = "--by") -> list[str]:
    """The knobs of these names."""
    known = list(
        dict.fromkeys((*knobs.telling(frame), *knobs.overridden(frame), "name", "sweep", *frame.attrs["knobs"]))
    )
    return [_find(flag, name, known) for name in names]


def metrics(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The metrics asked for; the name of a family (`accuracy`) stands for what it holds."""
    known = results.estimates(frame)
    known = list(dict.fromkeys((*headline(frame), *known)))
    wanted = [_find("--metric", metric, known) for name in names for metric in _family(name, known)]
    return list(dict.fromkeys(beside for metric in wanted for beside in (metric, *_company(metric, known))))


def _family(name: str, known: Sequence[str]) -> list[str]:
    """The metrics that the name of a family stands for: its short list if it has one, else all under it."""
    under = [metric for metric in known if metric.startswith(f"{name}/")]
    if name in DECEPTION and under:
        return [metric for part in SHORT for metric in known if metric == f"{name}/{part}"]
    return under or [name]


def _company(metric: str, known: Sequence[str]) -> list[str]:
    """What a metric is never shown without, as far as it was measured: counts, base rate and nulls."""
    family, _, name = metric.partition("/")
    if family not in DECEPTION or name not in COMPANY:
        return []
    nulls = [m for m in known if m.startswith(f"{family}/null/")] if name.startswith("excess_flips") else []
    return [m for m in (*nulls, "tax/flips", *(f"{family}/{part}" for part in COMPANY[name])) if m in known]


def _find(flag: str, name: str, known: list[str]) -> str:
    if name not in known:
        some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        raise Refused(flag, name, f"a name that results.csv has, such as {some}", nearest=nearest(name, known))
    return name
