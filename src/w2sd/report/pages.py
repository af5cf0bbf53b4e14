"""Everything a report writes to disk: page, tables, figures; each file complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock

from w2sd.atomic import beside
from w2sd.report import (
    analyses,
    cautions,
    deception_figures,
    deceptions,
    estimates,
    figures,
    gaps,
    knobs,
    page,
    pairs_of_models,
    results,
    samples,
    tables,
    verdicts,
)
from w2sd.report.pairs_of_models import ModelPair
from w2sd.report.verdicts import Ruling

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    rulings: Sequence[Ruling] | None = None,
) -> Path:
    """Write `index.html, results.csv, table.md, figures/` for this frame, and `groups.csv` where jobs are grouped.

    `rulings` are the verdicts on it, if they are known already.
    """
    drawn, pairs = estimates.headline(frame), pairs_of_models.find(frame)
    asked = by is not None or metrics is not None
    metrics = drawn if metrics is None else metrics
    by = tables.repetitions(frame) if by is None else by
    shown = arrange(frame, by, metrics, pairs, asked=asked)
    rows, varying = estimates.per_job(frame, drawn, knobs.telling(frame)), None
    if by is not None:
        varying = [column for column in by if len(set(knobs.text(frame, column))) > 1]
        rows = estimates.per_group(frame, drawn, varying)
        groups = estimates.per_group(frame, metrics, by)
        _replace(out / "groups.csv", tables.to_csv(groups, metrics).encode())
    else:
        (out / "groups.csv").unlink(missing_ok=True)  # of an earlier report
    contents = page.Contents(
        jobs=frame,
        stages=results.stages(store, *frame["id"]),
        flags=cautions.flags(frame),
        tables=shown,
        figures=figures.draw(rows, knobs.unit(frame)),
        deception=_deception(verdicts.rule(frame, store) if rulings is None else rulings),
        analyses=analyses.make(frame, store, varying, pairs),
        sampled=samples.read(frame, store),
    )
    _replace(out / "results.csv", _to_csv(frame).encode())
    written = (f"### {title}\n\n{tables.to_markdown(table)}" for title, table in contents.all_tables().items())
    _replace(out / "table.md", "\n".join(written).encode())
    _replace(out / "index.html", page.render(contents, _write_figures(contents.all_figures(), out)).encode())
    return out / "index.html"


def arrange(
    frame: pd.DataFrame,
    by: Sequence[str] | None,
    metrics: Sequence[str],
    pairs: Sequence[ModelPair] = (),
    *,
    asked: bool = False,
) -> dict[str, tables.Table]:
    """The tables by title: means first where there are any, then the jobs.

    Pairs of models come before them, and stand for the means where these are the same and nobody asked for others.
    """
    shown = {}
    if pairs:
        shown[pairs_of_models.TITLE] = pairs_of_models.table(pairs, frame)
        shown[pairs_of_models.MEDIANS] = pairs_of_models.medians(pairs)
    if by is not None and (asked or not pairs_of_models.are_groups(pairs, frame, by)):
        title = f"Means by {', '.join(tables.label(by))}" if by else "Means over jobs"
        shown[title] = tables.grouped(frame, by, metrics)
    shown["Result" if len(frame) == 1 else "Jobs"] = tables.headline(frame, metrics)
    return shown


def _deception(rulings: Sequence[Ruling]) -> page.Deception | None:
    """What there is to say of jobs with a conflict, if there are any."""
    if not rulings:
        return None
    measured = [ruling for ruling in rulings if deceptions.has(ruling)]
    shown = {"Deception beyond the nulls": verdicts.table(rulings)}
    if measured:
        several = sum(len(ruling.group.jobs) for ruling in measured) > len(measured)
        shown |= {"Deception by group": deceptions.per_group(measured)} if several else {}
        shown |= {"Deception by job": deceptions.per_job(measured)}
    drawn, findings = deception_figures.draw(rulings), {"gap": gaps.caption(rulings)}
    return page.Deception(verdicts.sentences(rulings), deceptions.flags(rulings), shown, drawn, findings)


def _write_figures(drawn: Mapping[str, Figure], out: Path) -> dict[str, str]:
    """Write each figure as SVG and PNG; return them as they stand in a page."""
    drawings = {}
    for name, figure in drawn.items():
        svg = figures.to_svg(name, figure)
        drawings[name] = figures.inline(name, svg)
        drawing, image = (out / "figures" / f"{name}.{form}" for form in ("svg", "png"))
        if not (image.is_file() and drawing.is_file() and drawing.read_bytes() == svg.encode()):
            _replace(image, figures.to_png(name, figure))  # before the drawing, which vouches for it from then on
            _replace(drawing, svg.encode())
    return drawings


def _to_csv(frame: pd.DataFrame) -> str:
    return frame.assign(overrides=frame["overrides"].map(" ".join)).to_csv(index=False, lineterminator="\n")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as part:
        part.write_bytes(content)
