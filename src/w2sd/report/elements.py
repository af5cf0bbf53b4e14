"""What a page is built of: sections, tables, figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from w2sd.report import tables

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


def figure(name: str, svg: str, finding: str = "") -> str:
    """A drawing above its caption, to which `finding` adds what its numbers say."""
    caption = escape(f"{CAPTIONS.get(name, name)} {finding}".strip())
    return f'<figure role="img" aria-label="{caption}">{svg}<figcaption>{caption}</figcaption></figure>'


def table(shown: tables.Table) -> str:
    """A table between the lines above and below it."""
    above = f'<p class="above">{escape(shown.above)}</p>' if shown.above else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in shown.notes)
    return f"{above}{grid(shown.columns, shown.rows, shown.n_labels)}{notes}"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]], n_labels: int = 1, total: Sequence[str] = ()) -> str:
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


def section(title: str, body: str) -> str:
    """A part of the page under its title."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def details(title: str, body: str) -> str:
    """A part that is folded until a reader asks for it."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def pair(*columns: str) -> str:
    """What stands side by side where the page is wide enough."""
    return f'<div class="pair">{"".join(f"<div>{column}</div>" for column in columns if column)}</div>'
