"""Everything a report writes to disk: page, tables, figures; each file complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock

from w2sd.report import estimates, figures, html, knobs, results, tables
from w2sd.report.selection import require_jobs


def write_page(
    store: Path, out: Path, *, name: str | None = None, sweep: str | None = None, job: str | None = None
) -> Path:
    """Write the report over these jobs and return the path of its page; concurrent callers take turns."""
    with turn(Path(out)):  # read under the lock too: the last to write has seen every job
        frame = results.load(Path(store), name=name, sweep=sweep, jobs=None if job is None else [job])
        return write(require_jobs(frame, Path(store)), Path(store), Path(out))


@contextmanager
def turn(out: Path) -> Iterator[None]:
    """The right to write in this folder; waits for whoever has it."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        yield


def write(
    frame: pd.DataFrame,
    store: Path,
    out: Path,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Path:
    """Write `index.html, results.csv, table.md, figures/` for this frame, and `groups.csv` where jobs are grouped."""
    jobs = results.distinct(frame)
    drawn = estimates.headline(frame)
    metrics = drawn if metrics is None else metrics
    by = tables.repetitions(frame) if by is None else by
    shown = arrange(frame, by, metrics)
    rows = estimates.per_job(jobs, drawn, knobs.telling(jobs))
    if by is not None:
        rows = estimates.per_group(frame, drawn, _varying(frame, by))
        groups = estimates.per_group(frame, metrics, by)
        _replace(out / "groups.csv", tables.to_csv(groups, metrics).encode())
    else:
        (out / "groups.csv").unlink(missing_ok=True)  # of an earlier report
    drawings: dict[str, str] = {}
    for name, figure in figures.draw(rows).items():
        svg = figures.to_svg(name, figure)
        drawings[name] = figures.inline(name, svg)
        _replace(out / "figures" / f"{name}.svg", svg.encode())
        _replace(out / "figures" / f"{name}.png", figures.to_png(name, figure))
    stages = results.stages(store, *jobs["id"])
    _replace(out / "results.csv", _to_csv(frame).encode())
    written = (f"### {title}\n\n{tables.to_markdown(table)}" for title, table in shown.items())
    _replace(out / "table.md", "\n".join(written).encode())
    _replace(out / "index.html", html.render(frame, stages, drawings, shown).encode())
    return out / "index.html"


def arrange(frame: pd.DataFrame, by: Sequence[str] | None, metrics: Sequence[str]) -> dict[str, tables.Table]:
    """The tables by title: means first where there are any, then the jobs."""
    shown = {}
    if by is not None:
        title = f"Means by {', '.join(tables.label(by))}" if by else "Means over jobs"
        shown[title] = tables.grouped(frame, by, metrics)
    shown["Result" if len(results.distinct(frame)) == 1 else "Jobs"] = tables.headline(frame, metrics)
    return shown


def _varying(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    return [column for column in by if len(set(knobs.text(frame, column))) > 1]


def _to_csv(frame: pd.DataFrame) -> str:
    return frame.assign(overrides=frame["overrides"].map(" ".join)).to_csv(index=False, lineterminator="\n")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
