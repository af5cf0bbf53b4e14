"""Tables of estimates, and the forms they are written in: terminal, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from w2sd.report import knobs, notation
from w2sd.report.estimates import Estimate, Row, per_group, per_job
from w2sd.report.results import HEADLINE

NAMES = {
    "accuracy/weak": "weak",
    "accuracy/student": "student",
    "accuracy/ceiling": "ceiling",
    "gain": "gain",
    "pgr": "PGR",
    "deception/excess_flips_per_1000": "excess flips per 1,000",
    "deception/excess_flips": "excess flips",
    "deception/score": "score",
    "deception/base_rate": "base rate",
    "deception/seed_null": "score, other seeds",
    "deception/did": "did",
    "tax/flips": "flips",
    "name": "experiment",
    "weak": "weak model",
    "strong": "strong model",
}
LONG_NAMES = {
    "accuracy/weak": "accuracy, weak teacher",
    "accuracy/student": "accuracy, student",
    "accuracy/ceiling": "accuracy, ceiling",
    "gain": "gain, student over teacher",
    "pgr": "PGR",
}
MANY = 12  # jobs that a terminal still shows one by one where it shows their means as well
PER_GROUP = "means over jobs, 95% t intervals where jobs differ"


@dataclass(frozen=True)
class Table:
    """Cells ready to be written: what holds for all rows stands above, what a mark means stands below."""

    above: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    n_labels: int = 1  # leading columns that name a row

    def noting(self, note: str) -> Table:
        """The table with one more line below it."""
        return replace(self, notes=(*self.notes, note))


def headline(frame: pd.DataFrame, metrics: Sequence[str] = HEADLINE) -> Table:
    """One job: a line per metric. Several: a line per job, with the knobs that tell them apart."""
    if len(frame) != 1:
        by = knobs.telling(frame)
        return lay_out(per_job(frame, metrics, by), by, metrics, above(frame, per_test(frame)))
    (row,) = per_job(frame, metrics, ())
    return upright(row, {metric: LONG_NAMES.get(metric, metric) for metric in metrics}, above(frame, per_test(frame)))


def grouped(frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] = HEADLINE) -> Table:
    """A line per combination of the settings `by`: the number of jobs and the mean of each metric over them."""
    varying = [column for column in by if len(set(knobs.text(frame, column))) > 1]
    once = {column: knobs.text(frame, column)[0] for column in by if column not in varying}
    return lay_out(per_group(frame, metrics, varying), varying, metrics, above(frame, PER_GROUP, once), count=True)


def upright(row: Row, names: Mapping[str, str], above: str) -> Table:
    """The table of one row: a line per metric, by its name."""
    notes = Notes()
    cells = tuple((name, cell(metric, row.estimates[metric], notes)) for metric, name in names.items())
    return Table(above, ("", "value [95% interval]"), cells, notes.lines())


def lay_out(
    rows: Sequence[Row],
    by: Sequence[str],
    metrics: Sequence[str],
    above: str,
    *,
    count: bool = False,
    names: Mapping[str, str] = NAMES,
) -> Table:
    """The table of these rows: settings, the number of jobs if asked for, metrics by their names."""
    notes = Notes()
    columns = (*label(by), *(["n"] if count else []), *(names.get(metric, metric) for metric in metrics))
    cells = tuple(
        (
            *row.settings.values(),
            *([str(row.n)] if count else []),
            *(cell(metric, row.estimates[metric], notes) for metric in metrics),
        )
        for row in rows
    )
    return Table(above, columns, cells, notes.lines(), n_labels=len(by))


def label(columns: Sequence[str]) -> list[str]:
    """The names of knobs as they stand in tables: the last part where that tells them apart."""
    ends = [column.rpartition(".")[2] for column in columns]
    return [
        NAMES.get(column, end if ends.count(end) == 1 else column) for column, end in zip(columns, ends, strict=True)
    ]


def per_test(frame: pd.DataFrame) -> str:
    """What the intervals of single jobs are over."""
    return f"95% intervals over test {knobs.unit(frame)}"


def describe(row: Row) -> str:
    """What tells a row from the others, in a phrase."""
    return phrase(row.settings)


def phrase(settings: Mapping[str, str]) -> str:
    """Settings in words."""
    return ", ".join(f"{name} {value}" for name, value in zip(label(list(settings)), settings.values(), strict=True))


def among(members: Collection[int], n: int, columns: Mapping[str, Sequence[str]], otherwise: str) -> str:
    """Which of `n` rows these are: by one column if that tells them from the others; nothing if they are all."""
    if len(members) == n:
        return ""
    for name, values in columns.items():
        theirs = dict.fromkeys(values[place] for place in members)
        if sum(value in theirs for value in values) == len(members):
            return f" ({phrase({name: ' or '.join(theirs)})})"
    return f" ({otherwise})"


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with the lines above and below it."""
    numeric = len(table.columns) - table.n_labels
    lines = [table.columns, ("---",) * table.n_labels + ("---:",) * numeric, *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([part for part in (table.above, body, "  \n".join(table.notes)) if part]) + "\n"


def to_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """The rows with unrounded numbers: settings, number of jobs, and each metric with interval and count of nulls."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    settings = list(rows[0].settings) if rows else []
    ends = ("", "_lo", "_hi", "_n_null")
    writer.writerow([*settings, "n", *(f"{metric}{end}" for metric in metrics for end in ends)])
    for row in rows:
        writer.writerow([*row.settings.values(), row.n, *(x for m in metrics for x in row.estimates[m][:4])])
    return file.getvalue()


def print_table(frame: pd.DataFrame, means: Table | None = None) -> None:
    """Print the headline of the jobs; where jobs are repetitions of each other, their means too, or instead of many.

    `means` is a table to print in place of these means.
    """
    repeated = repetitions(frame)
    if repeated is None or len(frame) <= MANY:
        show(headline(frame))
    if repeated is not None:
        show(means or grouped(frame, repeated))


def repetitions(frame: pd.DataFrame) -> list[str] | None:
    """The settings under which some jobs are repetitions that differ in seeds alone, if there are any such jobs."""
    by = [column for column in knobs.telling(frame) if not knobs.is_seed(column)]
    return by if len(frame) > len(per_group(frame, (), by)) else None


def show(table: Table) -> None:
    """Print a table: on a terminal with intervals under their values if it is narrow, elsewhere as plain text."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)

    def lay_grid(before_interval: str) -> Grid:
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for place, column in enumerate(table.columns):
            grid.add_column(Text(column), justify="left" if place < table.n_labels else "right")
        for row in table.rows:
            grid.add_row(*(Text(cell.replace(" [", f"{before_interval}[")) for cell in row))
        return grid

    wide = lay_grid(" ")
    fits = console.measure(wide, options=console.options.update(width=10_000)).maximum <= console.width
    console.print(Text(table.above, style="dim"))
    console.print(wide if fits else lay_grid("\n"))
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()


class Notes:
    """Footnotes, each text once, with the mark that points to it."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self._texts:
            self._texts.append(text)
        return self._sign(self._texts.index(text))

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{self._sign(place)} {text}" for place, text in enumerate(self._texts))

    @staticmethod
    def _sign(place: int) -> str:
        return str(place + 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def cell(metric: str, estimate: Estimate, notes: Notes) -> str:
    """A number with its interval; where there is none, a mark that points to the reason."""
    written = notation.estimate(metric, estimate.value, estimate.lo, estimate.hi)
    if estimate.value is None:
        return written + notes.mark(f"{NAMES.get(metric, metric)}: {estimate.reason}")
    if estimate.n_null:
        why = "a job whose value is null (undefined, or a gap within one standard error) is left out of the mean"
        return f"{written} ({estimate.n_null} null{notes.mark(why)})"
    return written


def above(frame: pd.DataFrame, kind: str, once: dict[str, str] | None = None) -> str:
    """What holds for all rows of a table: what the jobs share, and what kind of numbers these are."""
    same = {**knobs.shared(frame), **(once or {})}
    said = [f"{NAMES.get(column, column)} = {value}" for column, value in same.items()]
    return " · ".join([*said, kind])
