"""The page over a store, or over one of its jobs, as the program writes it."""

from __future__ import annotations

from pathlib import Path

from w2sd.report import pages, results


def write_page(store: Path, out: Path, job: str | None = None) -> Path:
    frame = results.load(store, jobs=None if job is None else [job])
    with pages.turn(out):
        return pages.write(frame, store, out)
