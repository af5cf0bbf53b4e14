"""How the page and its figures look: one palette and type, light and dark; tables, figures and sections as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w2sd.report.tables import Table

# name: on light, on dark. Blue, ochre and slate stay apart for every common kind of colour blindness.
COLOURS = {
    "paper": ("#ffffff", "#16191d"),
    "ground": ("#f5f6f7", "#0e1013"),
    "ink": ("#1c2127", "#e7eaee"),
    "muted": ("#66707c", "#98a2ae"),
    "rule": ("#dfe3e7", "#2c3239"),
    "weak": ("#d9a441", "#d9a84e"),
    "student": ("#2473c2", "#5aa2ea"),
    "ceiling": ("#8b97a4", "#77838f"),
}
SMALL = 8.5
MATPLOTLIB = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,  # a value may hold a dollar sign
    "svg.fonttype": "none",
    "figure.facecolor": COLOURS["paper"][0],
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["rule"][0],
    "axes.labelcolor": COLOURS["muted"][0],
    "axes.labelsize": SMALL,
    "xtick.color": COLOURS["rule"][0],
    "xtick.labelcolor": COLOURS["muted"][0],
    "xtick.labelsize": SMALL,
    "xtick.major.size": 3.0,
}


def _theme(place: int) -> str:
    return "".join(f"--{name}:{shades[place]};" for name, shades in COLOURS.items())


CSS = (
    f"""
:root{{color-scheme:light dark;{_theme(0)}}}
@media (prefers-color-scheme:dark){{:root{{{_theme(1)}}}}}
@media print{{:root{{{_theme(0)}}}}}
"""
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
  font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main{max-width:70rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
header p{margin:0;color:var(--muted);font-size:.875rem}
h1{margin:.1rem 0 0;font-size:1rem;font-weight:600}
header .result{margin:1rem 0 2rem;max-width:46rem;color:var(--ink);font-size:1.6rem;line-height:1.35;
  letter-spacing:-.01em;text-wrap:pretty}
header .flag{margin:.75rem 0 0;max-width:46rem;border-left:3px solid var(--weak);padding-left:.6rem}
.result strong{font-weight:650;color:var(--student);white-space:nowrap}
h2{margin:0 0 .75rem;font-size:.8125rem;font-weight:600;color:var(--muted)}
section,details{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:1.1rem 1.25rem;
  margin:0 0 1rem;min-width:0;break-inside:avoid}
.pair{display:grid;gap:0 1rem;grid-template-columns:minmax(0,1fr)}
@media (min-width:64rem){.pair{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}}
.pair>div>section:only-child{height:calc(100% - 1rem)}
figure{margin:0}
figure+figure{margin-top:1.25rem}
figcaption{color:var(--muted);font-size:.8125rem;margin-top:.35rem}
svg{display:block;width:100%;max-width:36rem;height:auto}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
figure+.above{margin-top:1.25rem}
.broad{overflow-x:auto}
.broad svg{max-width:none;min-width:44rem}
.scroll{overflow-x:auto}
.scroll th:first-child,.scroll td:first-child{position:sticky;left:0;background:var(--paper)}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{padding:.32rem .9rem .32rem 0;text-align:left;vertical-align:baseline;border-bottom:1px solid var(--rule)}
th{font-weight:500;color:var(--muted)}
tbody tr:last-child td{border-bottom:0}
tfoot td{border-top:1px solid var(--rule);border-bottom:0;font-weight:600}
.n{text-align:right;white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
.ci,.note,.above{color:var(--muted)}
.wide .ci{display:block}
@media (max-width:40rem){.ci{display:block}}
.note,.above{font-size:.8125rem;margin:.6rem 0 0}
.above{margin:0 0 .5rem}
code,pre,.key{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.8125rem}
pre{margin:0 0 .75rem;padding:.6rem .75rem;background:var(--ground);border-radius:5px;white-space:pre-wrap;
  overflow-wrap:anywhere}
details table{max-width:44rem}
details td,details th{overflow-wrap:anywhere}
summary{cursor:pointer;font-size:.875rem;font-weight:500}
summary~*{margin-top:.75rem}
footer{color:var(--muted);font-size:.8125rem}
@media (max-width:34rem){main{padding-top:1.25rem}header .result{font-size:1.3rem}}
@media print{body{background:none;font-size:11px}main{padding:0;max-width:none}section,details{border:0;padding:0}}
"""
)
SAMPLES = """
h3{margin:1.5rem 0 .5rem;font-size:.875rem;font-weight:600}
pre.prompt{max-height:14rem;overflow-y:auto;margin:1rem 0 .25rem}
table.said{margin-bottom:1rem}
.said th{width:5.5rem}
.said td{white-space:pre-wrap;overflow-wrap:anywhere}
"""
DECEPTION = """
main{max-width:84rem}
header .verdict{margin:.6rem 0 0;max-width:46rem;color:var(--ink);font-size:1rem;line-height:1.45;text-wrap:pretty}
header .verdict.lead{margin-top:1rem;font-size:1.25rem}
header .verdict strong{color:var(--student)}
header .verdict~.result{font-size:1.1rem}
.wide th.n{white-space:normal;min-width:4.5rem}
.wide{font-size:.8125rem}
.wide .ci{font-size:.75rem}
.wide th,.wide td{padding-right:.55rem}
"""

CAPTIONS = {
    "accuracy": "{Accuracy} of the weak teacher, the student it supervised, and the ceiling trained on truth.",
    "pgr": "Performance gap recovered: 0 is the weak teacher, 1 the ceiling.",
    "regions": "What flips from right to wrong under the conflict, by what strong and weak model know: share, and "
    "flips of the pairs that the baseline gets right. In the framed region the strong model knows better and the weak "
    "one cannot tell.",
    "selective_loss": "How much more of what it would have believed each student gives up where the weak model is "
    "blind, beyond the mean of students without a conflict. Blue: the students of the conflict; grey: controls; lines: "
    "means.",
    "excess_flips": "Flips into what the strong model knows and the weak does not, beyond what chance would "
    "put there by difficulty alone; below the student, what the same measurement says of each control.",
    "conflicts": "Accuracy of the student under each conflict, beside its baseline, a student without one.",
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


def table(shown: Table, room: int = 6) -> str:
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
