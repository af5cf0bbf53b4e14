"""Rows of numbers with intervals, read off the frame: one per job, or means over the jobs of a group."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from w2sd.metrics import statistics
from w2sd.metrics.statistics import scale_of
from w2sd.report import knobs, results

SHARED = ("data.world_seed", "data.split_seed", "teacher_seed")  # seeds of what the student seeds of a setting share


class Estimate(NamedTuple):
    """A number with its 95% interval; `value` is None where it is undefined or was not measured."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    n_null: int = 0  # how many jobs of a group have no value and are left out of the mean
    reason: str = ""  # why there is no value


@dataclass(frozen=True)
class Row:
    """A line of a table or a figure: what tells it from the others, and its estimates by metric."""

    settings: dict[str, str]
    estimates: dict[str, Estimate]
    n: int = 1  # jobs with results of their own
    jobs: tuple[dict[str, Estimate], ...] = ()  # the jobs behind a mean


def per_job(frame: pd.DataFrame, metrics: Sequence[str], by: Sequence[str]) -> list[Row]:
    """One row per job with the intervals of its own measurement, ordered by its settings."""
    rows = [
        Row(dict(zip(by, settings, strict=True)), {metric: of_job(job, metric) for metric in metrics})
        for job, settings in _jobs(frame, by)
    ]
    return sorted(rows, key=_order)


def per_group(frame: pd.DataFrame, metrics: Sequence[str], by: Sequence[str]) -> list[Row]:
    """One row per combination of the settings `by`, with means over its jobs; a result counts once in its group."""
    groups: dict[tuple[str, ...], dict[str, dict[str, Estimate]]] = {}
    units: dict[str, tuple[Any, ...]] = {}
    for job, settings in _jobs(frame, by):
        groups.setdefault(settings, {})[job["compare"]] = {metric: of_job(job, metric) for metric in metrics}
        units[job["compare"]] = tuple(job.get(seed) for seed in SHARED)
    rows = []
    for settings, members in groups.items():
        jobs, worlds = tuple(members.values()), [units[key] for key in members]
        means = {metric: over_units(metric, [job[metric] for job in jobs], worlds) for metric in metrics}
        rows.append(Row(dict(zip(by, settings, strict=True)), means, len(jobs), jobs))
    return sorted(rows, key=_order)


def of_job(job: Mapping[Hashable, Any], metric: str) -> Estimate:
    """One metric of one job."""
    value, lo, hi = (_number(job, f"{metric}{end}") for end in ("", "_lo", "_hi"))
    return Estimate(value, lo, hi, reason="" if value is not None else why_null(job, metric))


def over_units(metric: str, jobs: Sequence[Estimate], units: Sequence[Hashable]) -> Estimate:
    """The mean over units (worlds) of the means of their jobs (seeds), with its 95% t interval over units.

    Jobs of one unit share what made it, often a teacher and a ceiling, and are not independent. Where there is one
    unit, the interval is over its jobs and speaks of that unit alone.

    >>> jobs = [Estimate(0.5), Estimate(0.5), Estimate(0.7), Estimate(0.7)]
    >>> over_units("pgr", jobs, "aabb") == over_jobs("pgr", [Estimate(0.5), Estimate(0.7)])
    True
    """
    if len(set(units)) == 1:
        return over_jobs(metric, jobs)
    members: dict[Hashable, list[Estimate]] = {}
    for unit, job in zip(units, jobs, strict=True):
        members.setdefault(unit, []).append(job)
    mean = over_jobs(metric, [over_jobs(metric, inside) for inside in members.values()])
    return mean._replace(n_null=sum(job.value is None for job in jobs))


def over_jobs(metric: str, jobs: Sequence[Estimate]) -> Estimate:
    """The mean over jobs with its 95% t interval; jobs without a value are left out and counted.

    There is no interval where one value is all there is, or is shared by all jobs (a common teacher).

    >>> mean, lo, hi, n_null, _ = over_jobs("pgr", [Estimate(0.5), Estimate(0.7), Estimate(None)])
    >>> round(mean, 3), round(lo, 3), round(hi, 3), n_null
    (0.6, -0.671, 1.871, 1)
    >>> over_jobs("accuracy/student", [Estimate(0.5), Estimate(0.7)])[1:3]
    (0.0, 1.0)
    """
    values = [float(job.value) for job in jobs if job.value is not None]
    n_null = len(jobs) - len(values)
    if not values:
        reasons = dict.fromkeys(job.reason for job in jobs)
        return Estimate(None, n_null=n_null, reason="; ".join(reasons))
    return Estimate(*statistics.mean(values, scale_of(metric)), n_null)


def why_null(job: Mapping[Hashable, Any], metric: str) -> str:
    """Why a job has no value for a metric, as far as its other numbers tell."""
    weak, ceiling, gap, error = (
        _number(job, name) for name in ("accuracy/weak", "accuracy/ceiling", "pgr_gap", "pgr_gap_se")
    )
    if metric == "pgr" and weak is not None and ceiling is not None:
        if ceiling <= weak:
            return f"the ceiling ({ceiling:.3f}) is not above the weak teacher ({weak:.3f})"
        if gap is not None and error is not None and gap <= error:
            return f"the gap between weak teacher and ceiling ({gap:.3f}) is within one standard error ({error:.3f})"
    told = job.get(f"{metric.removesuffix('_per_1000')}_reason")
    return told if isinstance(told, str) else "undefined or not measured"


def _jobs(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[Hashable, Any], tuple[str, ...]]]:
    """Every job as plain values, with its settings as they are written."""
    texts = [knobs.text(frame, column) for column in by]
    settings = zip(*texts, strict=True) if by else [()] * len(frame)
    yield from zip(results.rows(frame), settings, strict=True)


def _number(job: Mapping[Hashable, Any], name: str) -> float | None:
    value = job.get(name)
    return None if pd.isna(value) else value


def _order(row: Row) -> list[tuple[int, float, str]]:
    return knobs.order(tuple(row.settings.values()))
