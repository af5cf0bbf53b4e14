"""How the page and the figures look: one palette, one type, light and dark."""

from __future__ import annotations

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
