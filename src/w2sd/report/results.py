"""The store as one tidy frame: a row per job, its knobs by their dotted names, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from w2sd.config import recorded
from w2sd.errors import Refused, choose, nearest, require
from w2sd.identity import canonical
from w2sd.pipeline.store import Damaged, Store
from w2sd.report.knobs import RUNTIME, order, overridden, same, telling, text
from w2sd.report.records import Damages, Job, figures, measures, read_jobs

IDENTITY = ("id", "name", "sweep", "finished", "compare", "command", "overrides", "reads_truth")
COSTS = {  # the columns of what a stage's `runtime.json` calls so
    "throughput/pairs_per_cpu_s": "pairs_per_cpu_s",
    "throughput/tokens_per_s": "tokens_per_s",
    "throughput/padding": "padding",
    "throughput/packed": "packed",
    "memory/peak_rss_mb": "peak_rss_mb",
    "memory/peak_gpu_mb": "peak_gpu_mb",
}
MADE = ("created", "git", "cpu", "cores", "gpu", "versions")
STAGE = ["stage", "kind", "key", "seconds", "cpu_seconds", *COSTS.values(), *MADE]
HEADLINE = ("accuracy/weak", "accuracy/student", "accuracy/ceiling", "gain", "pgr")  # what every job measures
DECEPTION = ("deception", "deception_true")
SHORT = ("excess_flips_per_1000", "excess_flips", "score", "did")  # what such a family stands for on the command line
BESIDE = ("score", "base_rate", "seed_null")
COMPANY = {"excess_flips_per_1000": (), "excess_flips": (), **dict.fromkeys(("score", "lift", "excess"), BESIDE)}


class Names(list[str]):
    """Names that nobody changes: pandas copies `attrs` in depth for every row and column that it takes out."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Names:
        return self


def load(
    store: Path, *, name: str | None = None, sweep: str | None = None, jobs: Iterable[str] | None = None
) -> pd.DataFrame:
    """One row per finished job, in the order in which they finished.

    Columns: `IDENTITY`, the resolved configuration (a part is also there as a whole, by its option), the metrics,
    among them what the job's trainings tell (`trained.measures`).
    `attrs` names them: `knobs`, `metrics` (numbers), `remarks` (metrics that are words), and counts in `missing` the
    jobs that are left out because their results are no longer in the store. `damages` are the damaged files: those that
    were left out here, and those that whatever reads more of these jobs adds. A knob that a record lacks because its
    version did not have it yet reads `not recorded`; one that has the name of another column is given as
    `config.<knob>`; `method`, which sets other knobs, is one where every job took one. Of jobs of one configuration,
    which a later version of w2sd measures anew, only the last is there.
    """
    wanted = None if jobs is None else set(jobs)
    knobs: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    identities: list[dict[str, Any]] = []
    missing, damages = 0, Damages()
    trainings: dict[str, dict[str, Any]] = {}
    latest: dict[str, Job] = {}
    for job in read_jobs(Path(store), damages):
        if name in (None, job.name) and sweep in (None, job.sweep) and (wanted is None or job.id in wanted):
            latest.pop(_asked_for(job), None)
            latest[_asked_for(job)] = job
    has_methods = all("method" in job.choices for job in latest.values())
    for job in latest.values():
        measured: dict[str, Any] = {}
        with damages.noted():
            measured = _measured(Store(store), job.compare) or {}
            missing += not measured
        if not measured:
            continue
        identities.append({column: getattr(job, column) for column in IDENTITY})
        knobs.append({key: value for key, value in _flatten(recorded(job.config), job.choices) if key != "name"})
        if has_methods:
            knobs[-1]["method"] = job.choices["method"]
        metrics.append(measured | measures(job, Store(store), trainings, damages))
    frame = _assemble(identities, knobs, metrics)
    frame.attrs |= {"missing": missing, "damages": damages}
    return frame


def _measured(store: Store, compare: str) -> dict[str, Any] | None:
    """Every figure of a comparison; None where it is gone. Up to version 4 all of them were in `metrics.json`."""
    if (spec := store.spec("compare", compare)) is None:
        return None
    names = ["metrics.json", *(name for name in spec["digests"] if name == "diagnostics.json")]
    found = {figure: value for name in names for figure, value in figures(store, "compare", compare, name).items()}
    if found.keys() & set(IDENTITY):
        raise Damaged(store.path("compare", compare), store.path("compare", compare))
    return found


def stages(store: Path, *jobs: str, damages: Damages) -> pd.DataFrame:
    """The stages of these jobs, each job's from cause to effect: what each cost, and where and with what it ran.

    Columns: `STAGE`; a value is None where the artifact is gone, damaged or does not tell. A stage that jobs share is
    there once for each of them.
    """
    records = {record.id: record for record in read_jobs(Path(store), damages)}
    known: dict[str, dict[str, Any]] = {}  # a sweep shares most of its stages: each is read once
    rows = []
    for job in jobs:
        named = records[job].stages if job in records else {}
        for at in named.values():
            if at["key"] not in known:
                known[at["key"]] = _stage(Store(store), at["kind"], at["key"], damages)
        own = [{"stage": name, **known[at["key"]]} for name, at in named.items()]
        rows += sorted(own, key=lambda row: (_depth(row["key"], known), row["created"] or "", row["stage"]))
    return pd.DataFrame(rows, columns=STAGE, dtype=object)


def estimates(frame: pd.DataFrame) -> list[str]:
    """The metrics that stand for themselves: not the ends or the standard error of another one's interval."""
    known = set(frame.attrs["metrics"])
    return [m for m in frame.attrs["metrics"] if not (m.endswith(("_lo", "_hi", "_se")) and m[:-3] in known)]


def rows(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return each row as plain values by column: `to_dict("records")` takes three times as long on hundreds of columns.

    >>> rows(pd.DataFrame({"id": ["a"], "pgr": [0.5]}))
    [{'id': 'a', 'pgr': 0.5}]
    """
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy(dtype=object)]


def pick(store: Path, name: str | None, conditions: Sequence[str]) -> pd.DataFrame:
    """The jobs of this experiment, or of every one, that meet the conditions: at least one."""
    frame = load(store)
    gone = f" ({n} recorded, their results are gone)" if (n := frame.attrs["missing"]) else ""
    gone += "".join(f"; {line}" for line in frame.attrs["damages"].lines())
    accepted = f"a store with finished jobs: run `w2sd -m experiment=demo` first, or name another store{gone}"
    require(len(frame) > 0, "store", str(store), accepted)
    if name is not None:
        choose("--name", name, set(frame["name"]))
        frame = load(store, name=name)
    return where(frame, conditions)


def where(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that meet every condition `key=value`; conditions on one key are alternatives."""
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        require(bool(equals), "--where", condition, "KEY=VALUE")
        (column,) = find_columns(frame, [key], "--where")
        wanted.setdefault(column, []).append(value)
    for key, values in wanted.items():
        there = text(frame, key)
        for value in values:
            known = sorted(set(there), key=lambda value: order((value,)))
            require(any(same(one, value) for one in known), f"--where {key}", value, "one of " + ", ".join(known))
        frame = frame[[any(same(one, value) for value in values) for one in there]]
    return frame


def find_columns(frame: pd.DataFrame, names: Sequence[str], flag: str = "--by") -> list[str]:
    """The knobs of these names."""
    known = list(dict.fromkeys((*telling(frame), *overridden(frame), "name", "sweep", *frame.attrs["knobs"])))
    return [_find(flag, name, known) for name in names]


def find_metrics(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The metrics asked for; the name of a family (`accuracy`) stands for what it holds."""
    known = list(dict.fromkeys((*HEADLINE, *estimates(frame))))
    wanted = [_find("--metric", metric, known) for name in names for metric in _family(name, known)]
    return list(dict.fromkeys(beside for metric in wanted for beside in (metric, *_company(metric, known))))


def _asked_for(job: Job) -> str:
    """What decides the results of a job, under one version of the code."""
    science = {key: value for key, value in recorded(job.config).items() if key not in RUNTIME}
    return canonical([job.name, science]) if job.config else job.id


def _assemble(
    identities: list[dict[str, Any]], knobs: list[dict[str, Any]], metrics: list[dict[str, Any]]
) -> pd.DataFrame:
    measured = pd.DataFrame(metrics, dtype=object)
    remarks = [
        name for name in measured if name.endswith("_reason") or any(isinstance(text, str) for text in measured[name])
    ]
    numbers = [name for name in measured if name not in remarks]
    taken = {*IDENTITY, *measured.columns}
    named = [{f"config.{key}" if key in taken else key: value for key, value in row.items()} for row in knobs]
    settings = pd.DataFrame(named, index=measured.index, dtype=object)
    who = pd.DataFrame(identities, columns=list(IDENTITY), dtype=object)
    frame = pd.concat([who, settings, measured[remarks], *(_numeric(measured[name]) for name in numbers)], axis=1)
    names = {"knobs": settings.columns, "metrics": numbers, "remarks": remarks}
    frame.attrs = {kind: Names(columns) for kind, columns in names.items()}
    return frame


def _numeric(column: pd.Series) -> pd.Series:
    """Counts stay integers, so that they are written as counts; null becomes missing."""
    whole = all(isinstance(value, int) for value in column if not pd.isna(value)) and not column.isna().all()
    return pd.to_numeric(column).astype("Int64" if whole else "float64")


def _flatten(config: dict[str, Any], choices: dict[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values; a part as a whole is the option that was taken for it, or else its class."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if part := choices.get(name) or str(value.get("_target_", "")).rpartition(".")[2]:
                yield name, part
            yield from _flatten(value, choices, f"{name}.")
        else:
            yield name, json.dumps(value) if isinstance(value, list) else value


def _depth(key: str, known: dict[str, dict[str, Any]], passed: frozenset[str] = frozenset()) -> int:
    """How many stages lie before this one on the longest way to it, which ends at a stage that it has passed."""
    inputs = known[key]["inputs"] if key in known and key not in passed else {}
    return 1 + max((_depth(upstream, known, passed | {key}) for upstream in inputs.values()), default=0)


def _stage(store: Store, kind: str, key: str, damages: Damages) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    runtime: dict[str, Any] = {}
    with damages.noted():
        spec = store.spec(kind, key) or {}
        told = store.read(kind, key, "runtime.json") or {}
        if not isinstance(told.get("hardware", {}), dict):
            raise Damaged(store.path(kind, key) / "runtime.json", store.path(kind, key))
        runtime = told
    hardware = runtime.get("hardware") or {}
    return {
        "kind": kind,
        "key": key,
        "inputs": spec.get("inputs") or {},
        "seconds": runtime.get("seconds"),
        "cpu_seconds": runtime.get("cpu_seconds"),
        **{column: runtime.get(name) for name, column in COSTS.items()},
        "created": spec.get("created"),
        "git": spec.get("git"),
        **{part: hardware.get(part) for part in ("cpu", "cores", "gpu")},
        "versions": runtime.get("versions"),
    }


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
