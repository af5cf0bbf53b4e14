"""What the models say: the answers of policies to a few test prompts, side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from w2sd.pipeline.plan import SAMPLED, SAMPLES
from w2sd.pipeline.store import Store
from w2sd.report import estimates, knobs, notation, results

MOST = 3  # jobs whose answers are shown
TITLE = "What the models say"
FIGURES = {"length": "tokens", "ended": "ended by itself", "repetition": "repetition", "distinct": "distinct"}
NOTE = (
    "Greedy answers to the first test prompts. Ended: the share that came to the model's own end token; "
    "repetition: the share of 4-grams of tokens that the same answer had before."
)


class Sampled(NamedTuple):
    """The answers of one job's models, by prompt and role, and what was measured of each role's answers."""

    conflict: str
    answers: Mapping[str, Mapping[str, str]]
    figures: Mapping[str, list[str]]


def read(frame: pd.DataFrame, store: Path) -> list[Sampled]:
    """The samples of the first job of each conflict that has any, of the first three conflicts."""
    names = knobs.text(frame, "conflict") if "conflict" in frame else [""] * len(frame)
    found: dict[str, Sampled] = {}
    for name, job in zip(names, results.rows(frame), strict=True):
        if name not in found and len(found) < MOST:
            answers = _answers(Store(store), job["compare"])
            if answers:
                roles = [role for role in SAMPLED if any(role in said for said in answers.values())]
                found[name] = Sampled(name, answers, {role: _figures(job, role) for role in roles})
    return list(found.values())


def render(sampled: list[Sampled]) -> str:
    """The body of the section; what models wrote is text here and never markup."""
    parts = [f'<p class="above">{escape(NOTE)}</p>']
    for each in sampled:
        if each.conflict and len(sampled) > 1:
            parts.append(f"<h3>conflict {escape(each.conflict)}</h3>")
        for prompt, said in each.answers.items():
            lines = "".join(f"<tr><th>{role}</th><td>{_text(said[role])}</td></tr>" for role in SAMPLED if role in said)
            parts.append(f'<pre class="prompt">{_text(prompt)}</pre><table class="said"><tbody>{lines}</tbody></table>')
        rows = "".join(_line("td", role, cells) for role, cells in each.figures.items())
        head = _line("th", "", FIGURES.values())
        parts.append(f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>')
    return "".join(parts)


def _answers(store: Store, compare: str) -> dict[str, dict[str, str]]:
    """What each model of a job said, by prompt and role; nothing of stages that are gone."""
    answers: dict[str, dict[str, str]] = {}
    inputs = (store.spec("compare", compare) or {}).get("inputs") or {}
    for role in SAMPLED:
        key = inputs.get(f"{SAMPLES}{role}")
        if key is None or not store.has("generate", key):
            continue
        lines = store.file("generate", key, "samples.jsonl").read_text(encoding="utf-8")
        for row in map(json.loads, lines.rstrip("\n").split("\n")):
            answers.setdefault(row["prompt"], {})[role] = row["text"]
    return answers


def _figures(job: Mapping[Any, Any], role: str) -> list[str]:
    found = [estimates.of_job(job, f"generation/{figure}/{role}").value for figure in FIGURES]
    return [notation.number(value) for value in found]


def _line(tag: str, role: str, cells: Iterable[str]) -> str:
    numbers = "".join(f'<{tag} class="n">{cell}</{tag}>' for cell in cells)
    return f"<tr><{tag}>{role}</{tag}>{numbers}</tr>"


def _text(text: str) -> str:
    """Escaped, with a replacement sign for characters that a page cannot hold."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", text))
