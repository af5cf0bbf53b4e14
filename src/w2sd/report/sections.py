"""The sections of a page below its results: what models say, what was run, on which data, how fast, and where."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd

from w2sd.pipeline.plan import SAMPLED, SAMPLES
from w2sd.pipeline.store import Store
from w2sd.report import knobs, notation, results
from w2sd.report.estimates import of_job, per_job
from w2sd.report.records import Damages
from w2sd.report.style import details, grid, section, table
from w2sd.report.tables import Table

MOST = 3  # jobs whose answers are shown
MEASURED = {"length": "tokens", "ended": "ended by itself", "repetition": "repetition", "distinct": "distinct"}
SAMPLES_NOTE = (
    "Greedy answers to the first test prompts. Ended: the share that came to the model's own end token; "
    "repetition: the share of 4-grams of tokens that the same answer had before."
)
HEADS = ("kind", "stages", "pairs/CPU-s", "tokens/s", "padding", "packed", "peak MB")
SPEED_NOTE = (
    "Medians over stages, peaks their largest; from the end of a stage's first batch to the end of its last. Documents "
    "and answers where there are no pairs. Packed: rows without padding, each prompt once. Stages that ran in one "
    "process share its peak."
)


class Sampled(NamedTuple):
    """The answers of one job's models, by prompt and role, and what was measured of each role's answers."""

    conflict: str
    answers: Mapping[str, Mapping[str, str]]
    figures: Mapping[str, list[str]]


def read_samples(frame: pd.DataFrame, store: Path) -> list[Sampled]:
    """The samples of the first job of each conflict that has any, of the first three conflicts."""
    names = knobs.text(frame, "conflict") if "conflict" in frame else [""] * len(frame)
    found: dict[str, Sampled] = {}
    for name, job in zip(names, results.rows(frame), strict=True):
        if name not in found and len(found) < MOST:
            answers = _answers(Store(store), job["compare"], frame.attrs["damages"])
            if answers:
                roles = [role for role in SAMPLED if any(role in said for said in answers.values())]
                found[name] = Sampled(name, answers, {role: _figures(job, role) for role in roles})
    return list(found.values())


def samples(sampled: list[Sampled]) -> str:
    """What the models say; what they wrote is text here and never markup."""
    if not sampled:
        return ""
    parts = [f'<p class="above">{escape(SAMPLES_NOTE)}</p>']
    for each in sampled:
        if each.conflict and len(sampled) > 1:
            parts.append(f"<h3>conflict {escape(each.conflict)}</h3>")
        for prompt, said in each.answers.items():
            lines = "".join(f"<tr><th>{role}</th><td>{_text(said[role])}</td></tr>" for role in SAMPLED if role in said)
            parts.append(f'<pre class="prompt">{_text(prompt)}</pre><table class="said"><tbody>{lines}</tbody></table>')
        rows = [[role, *cells] for role, cells in each.figures.items()]
        parts.append(grid(("", *MEASURED.values()), rows))
    return section("What the models say", "".join(parts))


def throughput_table(stages: pd.DataFrame) -> Table | None:
    """The kinds among these stages that tell how fast they were, from cause to effect; None where none does."""
    told = stages[stages["padding"].notna()]
    if not len(told):
        return None
    on_gpu = bool(told["peak_gpu_mb"].notna().any())
    rows = []
    for kind, part in told.groupby("kind", sort=False):
        cells = [_of(part["pairs_per_cpu_s"], _rate), _of(part["tokens_per_s"], _rate)]
        cells += [_of(part["padding"], notation.percent), _packed(part["packed"])]
        cells += [_of(part[peak], _rate, max) for peak in ("peak_rss_mb", "peak_gpu_mb")[: 1 + on_gpu]]
        rows.append((str(kind), str(len(part)), *cells))
    return Table("", (*HEADS, "on GPU")[: len(HEADS) + on_gpu], tuple(rows), (SPEED_NOTE,))


def run(jobs: pd.DataFrame, stages: pd.DataFrame) -> str:
    """The commands, and what each stage cost."""
    commands = dict.fromkeys(command for command in jobs["command"] if command)
    shown = [*commands][:12] + ([f"… and {len(commands) - 12} more, see results.csv"] if len(commands) > 12 else [])
    said = f"<pre>{escape(chr(10).join(shown))}</pre>" if shown else ""
    once = stages.drop_duplicates("key")
    cost = [notation.duration(_sum(once[column])) for column in ("seconds", "cpu_seconds")]
    if len(jobs) == 1:
        overrides = jobs["overrides"].iloc[0]
        if any(override not in said for override in map(escape, overrides)):  # one job of a sweep
            said += f"<pre>{escape(' '.join(overrides))}</pre>"
        columns = ("stage", "key", "time", "CPU time")
        rows = [[row.stage, row.key, *_cost(row.seconds, row.cpu_seconds)] for row in stages.itertuples()]
    else:
        columns = ("stage", "artifacts", "time", "CPU time")
        rows = [
            [str(name), str(len(part)), *_cost(_sum(part["seconds"]), _sum(part["cpu_seconds"]))]
            for name, part in once.groupby("stage", sort=False)
        ]
    total = ["total", "" if len(jobs) == 1 else str(len(once)), *cost]
    return section("What was run", said + grid(columns, rows, n_labels=2 if len(jobs) == 1 else 1, total=total))


def speed(stages: pd.DataFrame) -> str:
    """How fast the stages read."""
    speeds = throughput_table(stages.drop_duplicates("key"))
    return section("Throughput", table(speeds)) if speeds else ""


def data(jobs: pd.DataFrame) -> str:
    """Rows per split and what was dropped; a range where jobs differ."""
    names = [name for name in jobs.attrs["metrics"] if name.startswith(("data/", "n/"))]
    unit = knobs.unit(jobs)
    rows = [[_data_name(name, unit), _range(jobs[name])] for name in sorted(names, key=_data_order)]
    return section("Data", grid(("", ""), rows)) if rows else ""


def everything(jobs: pd.DataFrame) -> str:
    """Every metric of a job."""
    (job,) = per_job(jobs, results.estimates(jobs), ())
    rows = [[name, notation.estimate(name, *estimate[:3])] for name, estimate in job.estimates.items()]
    rows += [[name, str(jobs[name].iloc[0])] for name in jobs.attrs["remarks"]]
    return details(f"Every metric ({len(rows)})", grid(("", "value [95% interval]"), rows))


def config(jobs: pd.DataFrame) -> str:
    """The resolved configuration by the names that the command line takes."""
    rows = []
    for name in jobs.attrs["knobs"]:
        values = dict.fromkeys(knobs.text(jobs, name))
        if not any(other.startswith(f"{name}.") for other in jobs.attrs["knobs"]):
            rows.append([name, ", ".join([*values][:6]) + (", …" if len(values) > 6 else "")])
    return details(f"Configuration ({len(rows)} knobs)", grid(("knob", "value"), rows, n_labels=2))


def machines(stages: pd.DataFrame) -> str:
    """Hardware, code and package versions; said once where all stages share them."""
    facts: dict[str, dict[str, list[str]]] = {}
    for stage in stages.drop_duplicates("key").itertuples():
        told = {"processor": stage.cpu, "cores": stage.cores, "GPU": stage.gpu, "git commit": stage.git}
        for name, value in {**told, **(stage.versions or {})}.items():
            text = notation.NOTHING if value is None else notation.knob(value)
            facts.setdefault(name, {}).setdefault(text, []).append(stage.stage)
    rows = [
        [name, value if len(values) == 1 else f"{value} ({', '.join(dict.fromkeys(where))})"]
        for name, values in facts.items()
        for value, where in values.items()
    ]
    return details("Versions and hardware", grid(("", ""), rows, n_labels=2)) if rows else ""


def _answers(store: Store, compare: str, damages: Damages) -> dict[str, dict[str, str]]:
    """What each model of a job said, by prompt and role; nothing of stages that are gone or damaged."""
    answers: dict[str, dict[str, str]] = {}
    inputs: dict[str, str] = {}
    with damages.noted():
        inputs = (store.spec("compare", compare) or {}).get("inputs") or {}
    for role in SAMPLED:
        key, lines = inputs.get(f"{SAMPLES}{role}"), ""
        with damages.noted():
            if key is not None and store.spec("generate", key) is not None:
                lines = store.file("generate", key, "samples.jsonl").read_text(encoding="utf-8")
        for row in map(json.loads, filter(None, lines.split("\n"))):
            answers.setdefault(row["prompt"], {})[role] = row["text"]
    return answers


def _figures(job: Mapping[Any, Any], role: str) -> list[str]:
    found = [of_job(job, f"generation/{figure}/{role}").value for figure in MEASURED]
    return [notation.number(value) for value in found]


def _text(text: str) -> str:
    """Escaped, with a replacement sign for characters that a page cannot hold."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", text))


def _of(column: pd.Series, write: Callable[[float], str], summary: Callable[[Iterable[float]], float] = median) -> str:
    known: list[Any] = [value for value in column if not pd.isna(value)]
    return write(summary(known)) if known else notation.NOTHING


def _packed(column: pd.Series) -> str:
    known = [bool(value) for value in column if not pd.isna(value)]
    if len(set(known)) > 1:
        return f"{sum(known)} of {len(known)}"
    return ("yes" if known[0] else "no") if known else notation.NOTHING


def _rate(value: float) -> str:
    return notation.number(float(value) if value < 10 else round(value))


def _data_order(name: str) -> tuple[int, str]:
    first = ["data/n_gt", "data/n_w2s", "data/n_test", "n/test", "n/clusters", "n/ties"]
    return (first.index(name) if name in first else len(first), name)


def _data_name(name: str, unit: str) -> str:
    known = {
        "data/n_gt": f"{unit} with ground truth (gt)",
        "data/n_w2s": f"{unit} for the weak labels (w2s)",
        "data/n_test": f"test {unit}",
        "n/test": f"test {unit} measured",
        "n/clusters": "clusters among them",
        "n/ties": "exact ties, half right",
        "data/dropped_long": f"test {unit} dropped: response too long",
        "data/dropped_long_training": f"training {unit} dropped: response too long",
    }
    said = name.partition("/")[2].replace("_", " ")
    return known.get(name, said.replace("dropped ", "dropped: ", 1) if said.startswith("dropped ") else said)


def _range(column: pd.Series) -> str:
    low, high = (None if pd.isna(end) else end.item() for end in (column.min(), column.max()))
    return notation.number(low) if low == high else f"{notation.number(low)} to {notation.number(high)}"


def _sum(column: pd.Series) -> float:
    return math.fsum(value for value in column if value is not None)


def _cost(seconds: float | None, cpu_seconds: float | None) -> tuple[str, str]:
    return notation.duration(seconds), notation.duration(cpu_seconds)
