"""Questions with several candidates and one right answer: each candidate shown makes one text, right or wrong.

Of the wrong candidates a hash of the question decides which one is shown. It knows the candidates as a set, not which
of them is right, and neither the order of rows nor that of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from w2sd.data.formats import Case, Format, check_templates, spelled
from w2sd.data.template import as_text, cell, fill, paths, require_names
from w2sd.errors import Refused, choose, nearest, require
from w2sd.identity import digest

SHOW = ("pair", "coin", "all")
ANSWER_IS = ("index", "number", "letter", "text")
SLOT = "candidate"  # its place in the text


@dataclass(frozen=True)
class MultipleChoice(Format):
    """Is this candidate the right answer? The classes are wrong and right."""

    text: str = "Q: {question} A: {candidate}"  # what is read: {COLUMN} stands for a cell
    candidates: list[str] = field(default_factory=lambda: ["{choices}"])  # texts of columns, or one column with a list
    answer: str = "answer"  # column that tells the right candidate; "" = it is the first
    answer_is: str = "index"  # how: index (from 0) | number (from 1) | letter (from A) | text
    show: str = "pair"  # the right one and a wrong one (pair), one of these two (coin), or all
    none: str = ""  # a candidate that begins so is never shown, nor a row where it is right
    cluster: str = ""  # rows that agree in this stay in one split; "" = the text without its candidate
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", tuple(self.candidates))  # sources are compared and kept by their values
        require(bool(self.candidates), "candidates", [], "texts of columns, or one {COLUMN} that has a list")
        for template in self.candidates:
            require(bool(paths(template)), "candidates", template, "texts with a {COLUMN}")
            require_names("candidates", template)
        choose("answer_is", self.answer_is, ANSWER_IS)
        choose("show", self.show, SHOW)
        require(SLOT in paths(self.text), "text", self.text, f"a text with {{{SLOT}}}")
        of_candidates = [path for template in self.candidates for path in paths(template)]
        check_templates(self.text, self.cluster, of_candidates)
        same = not self.cluster and set(paths(self.text)) == {SLOT}
        require(not same and SLOT not in paths(self.cluster), "cluster", self.cluster, "columns that a question has")

    @property
    def classes(self) -> tuple[str, ...]:
        return ("wrong", "right")

    @property
    def columns(self) -> tuple[str, ...]:
        texts = [path for template in (self.text, *self.candidates) for path in paths(template) if path != SLOT]
        return tuple(dict.fromkeys([*texts, *([self.answer] if self.answer else [])]))

    @property
    def paired(self) -> bool:
        return self.show == "pair"

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        texts = self._candidates(row, where)
        right = texts[self._right(row, texts, where)]
        wrong = {text for text in texts if self._shown(text)} - {right}
        if not self._shown(right) or not wrong:
            return []
        question = fill(self.text, {**row, SLOT: ""}, where)
        cluster = fill(self.cluster, row, where) or question
        unit = digest(question, *sorted(set(texts)))
        one = min(wrong, key=lambda text: digest("wrong", unit, text))
        shown = [right, *sorted(wrong)] if self.show == "all" else [right, one]
        if self.show == "coin":
            shown = [shown[int(digest("coin", unit), 16) % 2]]
        return [Case(fill(self.text, {**row, SLOT: text}, where), int(text == right), unit, cluster) for text in shown]

    def _shown(self, text: str) -> bool:
        return bool(text) and not (self.none and text.startswith(self.none))

    def _candidates(self, row: Mapping[str, Any], where: str) -> list[str]:
        texts: list[str] = []
        for template in self.candidates:
            [path, *_] = paths(template)
            value = cell(row, path, where) if template == f"{{{path}}}" else None
            if isinstance(value, list):
                texts += [as_text(one, path, where).strip() for one in value]
            else:
                texts.append(fill(template, row, where))
        require(len(texts) > 1, where, texts, "at least two candidates: " + ", ".join(self.candidates))
        return texts

    def _right(self, row: Mapping[str, Any], texts: list[str], where: str) -> int:
        """The index of the right candidate."""
        if not self.answer:
            return 0
        value = cell(row, self.answer, where)
        if self.answer_is == "text":
            known = {text: texts.index(text) for text in texts}
        elif self.answer_is == "letter":
            known = {chr(ord("A") + index): index for index in range(len(texts))}
        else:
            known = {str(index + (self.answer_is == "number")): index for index in range(len(texts))}
        answer = str(value).strip() if self.answer_is == "text" else spelled(value)
        if answer not in known:
            accepted = f"the right candidate's {self.answer_is} in column {self.answer!r}: " + ", ".join(known)
            raise Refused(where, value, accepted, nearest=nearest(answer, known) if answer else None)
        return known[answer]
