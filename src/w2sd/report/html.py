"""One self-contained page: the result in a sentence, the numbers, and everything needed to get them again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from w2sd.report import estimates, knobs, notation, results, samples, style, tables, throughput, verdicts, words
from w2sd.report.samples import Sampled

CAPTIONS = {
    "accuracy": "Pairwise accuracy of the weak teacher, the student it supervised, and the ceiling trained on truth.",
    "pgr": "Performance gap recovered: 0 is the weak teacher, 1 the ceiling.",
    "regions": "What flips from right to wrong under the conflict, by what strong and weak model know: share, and "
    "flips of the pairs that the baseline gets right. In the framed region the strong model knows better and the weak "
    "one cannot tell.",
    "excess_flips": "Flips into what the strong model knows and the weak does not, beyond what chance would "
    "put there by difficulty alone; below the student, what the same measurement says of each control.",
    "conflicts": "Accuracy of the student under each conflict, beside the same student without it.",
    "gap": "Excess flips of each pair of models over its capability gap, with the largest mean of its controls "
    "(hollow) and the trend, weighted by the errors of the excess.",
    "boundary": "How often a training pair flips, by the weak model's confidence in its truth. Pointwise, an explicit "
    "conflict can keep a pair wrong only to the left of its dotted line.",
}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · w2sd</title>
<style>{css}</style></head>
<body><main>
{body}
</main></body></html>
"""


class Deception(NamedTuple):
    """What a page says of jobs with a conflict: verdicts and flags in words, tables by title, figures by name."""

    sentences: Sequence[str]
    flags: Sequence[str]
    tables: Mapping[str, tables.Table]
    drawings: Mapping[str, str]
    findings: Mapping[str, str]  # what the numbers add to the caption of a figure


class Theory(NamedTuple):
    """What a page says of a simulated theory: figures as captions and inline SVG."""

    title: str
    commands: Sequence[str]
    table: tables.Table
    figures: Sequence[tuple[str, str]]


def render(
    jobs: pd.DataFrame,
    stages: pd.DataFrame,
    drawings: Mapping[str, str],
    shown: Mapping[str, tables.Table],
    deception: Deception | None = None,
    sampled: list[Sampled] | None = None,
    theories: Sequence[Theory] = (),
) -> str:
    """The page over these jobs: `stages` of all of them, figures as inline SVG by name, tables by title."""
    title = ", ".join(dict.fromkeys(jobs["name"]))
    one = len(jobs) == 1
    figures = [_figure(name, svg) for name, svg in drawings.items()]
    first, *others = [_section(name, _table(table)) for name, table in shown.items()] or [""]
    if one and first:
        top = _pair(f"<section>{''.join(figures)}</section>", first)
    else:
        top = "".join([first, _pair(*(f"<section>{figure}</section>" for figure in figures)), *others])
    parts = [
        _header(title, jobs, words.result(jobs), deception),
        _deception(deception),
        top,
        _section(samples.TITLE, samples.render(sampled)) if sampled else "",
        *map(_theory, theories),
        _pair(_run(jobs, stages), _data(jobs) + _throughput(stages)),
        _everything(jobs) if one else "",
        _config(jobs),
        _machines(stages),
        f"<footer>Made by w2sd-report from {_jobs(jobs)} in the store{_left_out(jobs)}.</footer>",
    ]
    css = style.CSS + (style.DECEPTION if deception else "") + (style.SAMPLES if sampled else "")
    return PAGE.format(title=escape(title), css=css, body="\n".join(filter(None, parts)))


def _header(title: str, jobs: pd.DataFrame, sentence: str, deception: Deception | None) -> str:
    strong = re.sub(r"(−?[\d.,]+%?(?: \[[^\]]*\])|−?[\d,]+%)", r"<strong>\1</strong>", escape(sentence))
    when = escape(f"w2sd · {_jobs(jobs)} · {max(jobs['finished'])[:10]}")
    said = ""
    if deception:
        lead = " lead" if len(deception.sentences) == 1 else ""
        said += "".join(f'<p class="verdict{lead}">{_verdict(sentence)}</p>' for sentence in deception.sentences)
        said += "".join(f'<p class="flag">{escape(flag)}</p>' for flag in deception.flags)
    return f'<header><p>{when}</p><h1>{escape(title)}</h1>{said}<p class="result">{strong}</p></header>'


def _verdict(sentence: str) -> str:
    """The sentence with its one word set off."""
    words = "|".join((*verdicts.WORDS.values(), verdicts.ALONE))
    return re.sub(rf": ({words}):", r": <strong>\1</strong>:", escape(sentence), count=1)


def _deception(deception: Deception | None) -> str:
    """Verdicts, figures and tables of jobs with a conflict."""
    if deception is None:
        return ""
    sections = [_section(name, _table(table)) for name, table in deception.tables.items()]
    found = deception.findings
    figures = [
        f"<section>{_figure(name, svg, found.get(name, ''))}</section>" for name, svg in deception.drawings.items()
    ]
    pairs = [_pair(*figures[place : place + 2]) for place in range(0, len(figures), 2)]
    return "".join([*sections[:1], *pairs, *sections[1:]])


def _theory(theory: Theory) -> str:
    """The command, the curves and the figures of one theory."""
    said = "".join(f"<pre>{escape(command)}</pre>" for command in theory.commands if command)
    figures = "".join(_captioned(caption, svg) for caption, svg in theory.figures)
    return _section(f"Theory: {theory.title}", said + _pair(figures, _table(theory.table)))


def _figure(name: str, svg: str, finding: str = "") -> str:
    return _captioned(f"{CAPTIONS.get(name, name)} {finding}".strip(), svg)


def _captioned(said: str, svg: str) -> str:
    caption = escape(said)
    return f'<figure role="img" aria-label="{caption}">{svg}<figcaption>{caption}</figcaption></figure>'


def _table(table: tables.Table) -> str:
    above = f'<p class="above">{escape(table.above)}</p>' if table.above else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return f"{above}{_grid(table.columns, table.rows, table.n_labels)}{notes}"


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]], n_labels: int = 1, total: Sequence[str] = ()) -> str:
    """A table whose first columns are words and whose other columns are numbers, with intervals set back."""

    def line(tag: str, cells: Sequence[str]) -> str:
        words = [f"<{tag}>{_cell(text)}</{tag}>" for text in cells[:n_labels]]
        numbers = [f'<{tag} class="n">{_cell(text)}</{tag}>' for text in cells[n_labels:]]
        return f"<tr>{''.join(words + numbers)}</tr>"

    head = f"<thead>{line('th', columns)}</thead>" if any(columns) else ""
    body = "".join(line("td", row) for row in rows)
    foot = f"<tfoot>{line('td', total)}</tfoot>" if total else ""
    wide = ' class="wide"' if len(columns) > 6 else ""
    return f'<div class="scroll"><table{wide}>{head}<tbody>{body}</tbody>{foot}</table></div>'


def _cell(text: str) -> str:
    return re.sub(r" (\[−?[\d.,]+, −?[\d.,]+\])", r' <span class="ci">\1</span>', escape(text))


def _run(jobs: pd.DataFrame, stages: pd.DataFrame) -> str:
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
    return _section("What was run", said + _grid(columns, rows, n_labels=2 if len(jobs) == 1 else 1, total=total))


def _throughput(stages: pd.DataFrame) -> str:
    table = throughput.table(stages.drop_duplicates("key"))
    return _section("Throughput", _table(table)) if table else ""


def _data(jobs: pd.DataFrame) -> str:
    """Rows per split and what was dropped; a range where jobs differ."""
    names = [name for name in jobs.attrs["metrics"] if name.startswith(("data/", "n/"))]
    rows = [[_data_name(name), _range(jobs[name])] for name in sorted(names, key=_data_order)]
    return _section("Data", _grid(("", ""), rows)) if rows else ""


def _data_order(name: str) -> tuple[int, str]:
    first = ["data/n_gt", "data/n_w2s", "data/n_test", "n/test", "n/clusters", "n/ties"]
    return (first.index(name) if name in first else len(first), name)


def _data_name(name: str) -> str:
    known = {
        "data/n_gt": "pairs with ground truth (gt)",
        "data/n_w2s": "pairs for the weak labels (w2s)",
        "data/n_test": "test pairs",
        "n/test": "test pairs measured",
        "n/clusters": "clusters among them",
        "n/ties": "exact ties, half right",
    }
    said = name.partition("/")[2].replace("_", " ")
    return known.get(name, said.replace("dropped ", "dropped: ", 1) if said.startswith("dropped ") else said)


def _everything(jobs: pd.DataFrame) -> str:
    (job,) = estimates.per_job(jobs, results.estimates(jobs), ())
    rows = [[name, notation.estimate(name, *estimate[:3])] for name, estimate in job.estimates.items()]
    rows += [[name, str(jobs[name].iloc[0])] for name in jobs.attrs["remarks"]]
    return _details(f"Every metric ({len(rows)})", _grid(("", "value [95% interval]"), rows))


def _config(jobs: pd.DataFrame) -> str:
    """The resolved configuration by the names that the command line takes."""
    rows = []
    for name in jobs.attrs["knobs"]:
        values = dict.fromkeys(knobs.text(jobs, name))
        if not any(other.startswith(f"{name}.") for other in jobs.attrs["knobs"]):
            rows.append([name, ", ".join([*values][:6]) + (", …" if len(values) > 6 else "")])
    return _details(f"Configuration ({len(rows)} knobs)", _grid(("knob", "value"), rows, n_labels=2))


def _machines(stages: pd.DataFrame) -> str:
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
    return _details("Versions and hardware", _grid(("", ""), rows, n_labels=2)) if rows else ""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _pair(*columns: str) -> str:
    return f'<div class="pair">{"".join(f"<div>{column}</div>" for column in columns if column)}</div>'


def _jobs(jobs: pd.DataFrame) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _left_out(jobs: pd.DataFrame) -> str:
    n = jobs.attrs["missing"]
    return f"; {n} more left out, their results are no longer there" if n else ""


def _range(column: pd.Series) -> str:
    low, high = (None if pd.isna(end) else end.item() for end in (column.min(), column.max()))
    return notation.number(low) if low == high else f"{notation.number(low)} to {notation.number(high)}"


def _sum(column: pd.Series) -> float:
    return math.fsum(value for value in column if value is not None)


def _cost(seconds: float | None, cpu_seconds: float | None) -> tuple[str, str]:
    return notation.duration(seconds), notation.duration(cpu_seconds)
