"""What a page is built of: sections, tables, figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from w2sd.report import tables

CAPTIONS = {
    "accuracy": "{Accuracy} of the weak teacher, the student it supervised, and the ceiling trained on truth.",
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
    "scaling": "The student over the sizes of models, a line for each weak model (larger: darker). Accuracies: dotted, "
    "the weak model; dashed, the ceiling. Hollow: a pair that the released notebooks leave out. A pair without a PGR "
    "has no point there. Vertical lines are 95% t intervals over jobs, cut off at the frame.",
    "agreement": "How far the student (blue) and the ceiling (grey) say what the weak teacher says, where it is "
    "right and where it is wrong. A student that only imitates is at 1 on both.",
    "curves": "Held-out rows while students were trained: means over jobs, shaded from the lowest to the highest job. "
    "A dot is a student that was kept. Where agreement with the labels goes on rising and the share right does not, "
    "the student learns its teacher's errors.",
}
BROAD = 400  # points: a drawing that is wider needs a whole page


def figure(name: str, svg: str, finding: str = "", unit: str = "pairs") -> str:
    """A drawing above its caption, to which `finding` adds what its numbers say; `unit` is what was tested."""
    accuracy = "Pairwise accuracy" if unit == "pairs" else "Accuracy"
    caption = escape(f"{CAPTIONS.get(name, name).replace('{Accuracy}', accuracy)} {finding}".strip())
    broad = ' class="broad"' if is_broad(svg) else ""
    return f'<figure role="img"{broad} aria-label="{caption}">{svg}<figcaption>{caption}</figcaption></figure>'


def is_broad(svg: str) -> bool:
    """Whether a drawing needs the whole width of a page."""
    found = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    return found is not None and float(found[1]) > BROAD


def table(shown: tables.Table, room: int = 6) -> str:
    """A table between the lines above and below it, where there is room for so many columns with their intervals."""
    above = f'<p class="above">{escape(shown.above)}</p>' if shown.above else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in shown.notes)
    return f"{above}{grid(shown.columns, shown.rows, shown.n_labels, room=room)}{notes}"


def grid(
    columns: Sequence[str], rows: Iterable[Sequence[str]], n_labels: int = 1, total: Sequence[str] = (), room: int = 6
) -> str:
    """A table whose first columns are words and whose other columns are numbers, with intervals set back."""

    def line(tag: str, cells: Sequence[str]) -> str:
        words = [f"<{tag}>{_cell(text)}</{tag}>" for text in cells[:n_labels]]
        numbers = [f'<{tag} class="n">{_cell(text)}</{tag}>' for text in cells[n_labels:]]
        return f"<tr>{''.join(words + numbers)}</tr>"

    head = f"<thead>{line('th', columns)}</thead>" if any(columns) else ""
    body = "".join(line("td", row) for row in rows)
    foot = f"<tfoot>{line('td', total)}</tfoot>" if total else ""
    wide = ' class="wide"' if len(columns) > room else ""
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
