"""From a raw row to texts with a class: what of its columns is read, and which class that belongs to.

A format is a frozen dataclass, the part `format` of a source of classification data. A row's texts depend on the row
alone: where one of several candidates is shown, a hash of the row decides which, never the rows before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple, Protocol

from w2sd.data.reading import Row
from w2sd.data.template import cell, fill, paths, require_names
from w2sd.errors import Refused, nearest, require, within

MOST_FOUND = 100  # classes that nobody named: a column with more values is hardly one of labels
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


class Case(NamedTuple):
    """One text of a row and its class."""

    text: str
    label: int
    unit: str  # what is balanced and kept as one: the text, or the question that it is an answer to
    cluster: str  # texts that share it stay in one split


class Format(Protocol):
    """How rows become texts with a class."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order; none where the rows decide."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads of a row."""

    @property
    def paired(self) -> bool:
        """Whether a unit has as many texts of one class as of every other."""

    def settled(self, rows: Iterable[Row]) -> Format:
        """The same format, with the classes that the rows have where none are named."""

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        """The texts of a row; none where it has nothing to show. A row at fault is refused as `where`."""


@dataclass(frozen=True)
class TextLabel:
    """A text of one or several columns, and a column with its class."""

    text: str = "{text}"  # what is read: {COLUMN} stands for a cell
    label: str = "label"  # column with the class, by its value or by its name
    labels: list[str] = field(default_factory=list)  # values in the order of the classes, a|b for two; [] = as found
    names: list[str] = field(default_factory=list)  # of the classes, in the same order; [] = the values
    cluster: str = ""  # rows that agree in this stay in one split; "" = the text
    VERSION: ClassVar[int] = 1
    paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for knob in ("labels", "names"):  # as tuples: sources are compared and kept by their values
            object.__setattr__(self, knob, tuple(map(spelled, getattr(self, knob))))
        check_templates(self.text, self.cluster)
        require(len(self.labels) != 1, "labels", list(self.labels), "at least two classes, or [] for those in the rows")
        as_many = f"as many names as data.format.labels ({len(self.labels)}), or []"
        require(not self.names or len(self.names) == len(self.labels), "names", list(self.names), as_many)
        spellings(tuple(self.labels), tuple(self.names))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.names or self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*paths(self.text), self.label]))

    def settled(self, rows: Iterable[Row]) -> TextLabel:
        if self.labels:
            return self
        found: dict[str, None] = {}
        for where, row in rows:
            found[self._value(row, where)] = None
            accepted = f"a column of at most {MOST_FOUND} different values, or its classes in data.format.labels"
            require(len(found) <= MOST_FOUND, "data.format.label", self.label, accepted)
        accepted = f"a column of at least two different values; found {', '.join(map(repr, found)) or 'none'}"
        require(len(found) > 1, "data.format.label", self.label, accepted)
        with within("data.format"):
            return replace(self, labels=sorted(found, key=_by_number))

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        known, value = spellings(tuple(self.labels), tuple(self.names)), self._value(row, where)
        if value not in known:
            accepted = f"a class in column {self.label!r}: " + ", ".join(known)
            raise Refused(where, value, accepted, nearest=nearest(value, known))
        text = filled(self.text, row, where)
        return [Case(text, known[value], text, fill(self.cluster, row, where) or text)]

    def _value(self, row: Mapping[str, Any], where: str) -> str:
        value = cell(row, self.label, where)
        if not isinstance(value, str | int | float) or value != value or not spelled(value):  # nan is no class
            raise Refused(where, value, f"a class in column {self.label!r}")
        return spelled(value)


@dataclass(frozen=True)
class QuestionAnswer:
    """A question that is answered by yes or no, about a passage or about an answer that is proposed."""

    text: str = "Passage: {passage}\nQuestion: {question}"  # what is read: {COLUMN} stands for a cell
    answer: str = "answer"  # column: true | false, yes | no, 1 | 0
    cluster: str = "{passage}"  # rows that agree in this stay in one split; "" = the text
    VERSION: ClassVar[int] = 1
    paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_templates(self.text, self.cluster)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("no", "yes")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*paths(self.text), self.answer]))

    def settled(self, rows: Iterable[Row]) -> QuestionAnswer:
        return self

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        value = cell(row, self.answer, where)
        said = spelled(value).lower() if isinstance(value, str | int | float) else ""
        if said not in (*YES, *NO):
            accepted = f"an answer in column {self.answer!r}: " + ", ".join((*YES, *NO))
            raise Refused(where, value, accepted, nearest=nearest(said, (*YES, *NO)) if said else None)
        text = filled(self.text, row, where)
        return [Case(text, int(said in YES), text, fill(self.cluster, row, where) or text)]


def check_templates(text: str, cluster: str, other: Iterable[str] = ()) -> None:
    """Refuse texts without columns, and clusters that could part equal texts: these would leak between splits."""
    known = [*paths(text), *other]
    require_names("text", text)
    require_names("cluster", cluster)
    require(bool(known), "text", text, "a text with the {COLUMN} that is read")
    for path in paths(cluster):
        accepted = "columns that the text has as well: " + ", ".join(dict.fromkeys(known))
        require(path in known, "cluster", cluster, accepted)
    require(not cluster or bool(paths(cluster)), "cluster", cluster, 'a text with a {COLUMN}, or ""')


def filled(template: str, row: Mapping[str, Any], where: str) -> str:
    """The text of a row, refused where there is none."""
    text = fill(template, row, where)
    require(bool(text), where, text, "text that is not empty in " + ", ".join(map(repr, paths(template))))
    return text


def spelled(value: Any) -> str:
    """The one spelling of a label: CSV, JSON and Parquet have 1, 1.0 and "1", true and "True".

    >>> spelled(1.0), spelled(True), spelled(" True"), spelled("Yes")
    ('1', 'true', 'true', 'Yes')
    """
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text


@cache
def spellings(labels: tuple[str, ...], names: tuple[str, ...]) -> dict[str, int]:
    """The class that each accepted spelling means: its values and its name."""
    known: dict[str, int] = {}
    for index, label in enumerate(labels):
        for word in [label, *label.split("|"), *names[index : index + 1]]:
            if known.setdefault(word.strip(), index) != index:
                raise Refused("labels", list(labels), f"classes of their own values and names; {word!r} is in two")
    return known


def _by_number(label: str) -> tuple[float, str]:
    """Numbers by size and before words."""
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label
