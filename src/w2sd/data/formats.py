"""From a raw row to what is learned from it: two answers to a prompt, or texts with a class.

A format is a frozen dataclass, the part `format` of a source. What it makes of a row depends on the row alone: where
one of several candidates is shown, a hash of the row decides which, never the rows before it. `choices.py` has the
format for multiple choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from w2sd.data.pairs import Item, Pair
from w2sd.data.reading import Row
from w2sd.data.template import as_text, cell, fill, paths, require_names
from w2sd.errors import Refused, nearest, require, within
from w2sd.identity import digest

TAG = "\n\nAssistant:"  # ends the prompt of a dialogue; the answer begins with the space that follows it
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
MOST_FOUND = 100  # classes that nobody named: a column with more values is hardly one of labels
YES, NO = ("true", "yes", "1"), ("false", "no", "0")

Turn = tuple[str, str]  # role, content


class Triple(NamedTuple):
    """One comparison as text: `prompt + chosen` and `prompt + rejected` are the two dialogues."""

    prompt: str
    chosen: str
    rejected: str

    @property
    def cluster(self) -> str:
        return self.prompt

    @property
    def unit(self) -> str:
        return self.prompt

    def example(self, cluster: str, split: str, facet: str, part: int, where: str) -> Pair:
        return Pair(digest(*self, facet), cluster, split, facet, *self, part=part, where=where)


class Case(NamedTuple):
    """One text of a row and its class."""

    text: str
    label: int
    unit: str  # what is balanced and kept as one: the text, or the question that it is an answer to
    cluster: str  # texts that share it stay in one split

    def example(self, cluster: str, split: str, facet: str, part: int, where: str) -> Item:
        return Item(digest(self.text), cluster, split, self.text, self.label, facet, part=part, where=where)


class Format(ABC):
    """How rows are read."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in label order; none yet where the rows decide; None for pairs."""
        return None

    @property
    def paired(self) -> bool:
        """Whether a unit has as many texts of one class as of every other."""
        return False

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """What it reads of a row."""

    @abstractmethod
    def cases(self, row: Mapping[str, Any], where: str) -> Sequence[Triple | Case]:
        """What is learned from a row; nothing where it has nothing to show. A row at fault is refused as `where`."""


@dataclass(frozen=True)
class Pairs(Format):
    """A prompt and two answers, each in a column of its own and taken as it stands."""

    prompt: str = "prompt"  # column
    chosen: str = "chosen"  # column with the better answer
    rejected: str = "rejected"  # column with the worse answer
    VERSION: ClassVar[int] = 1

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.prompt, self.chosen, self.rejected)

    def cases(self, row: Mapping[str, Any], where: str) -> list[Triple]:
        answers = {self.chosen, self.rejected}
        whole = self.prompt not in row and answers <= row.keys()
        if whole or any(isinstance(row.get(column), list) for column in self.columns):
            accepted = (
                f"text in the columns {', '.join(self.columns)}; whole dialogues are read by data=dialogue_files and "
                "dialogue_hub, lists of messages by data=chat_files and chat_hub"
            )
            raise Refused(
                where, list(row), accepted, nearest=nearest(self.prompt, row.keys() - answers - {self.prompt})
            )
        return [Triple(*(_text(cell(row, column, where), column, where) for column in self.columns))]


@dataclass(frozen=True)
class Dialogue(Format):
    """Two whole dialogues as text, as in HH-RLHF: what follows the last assistant tag is the answer.

    Public files have a few rows whose dialogues are not the same up to there, or end in an empty answer: these are left
    out and counted.
    """

    chosen: str = "chosen"  # column with the dialogue that ends in the better answer
    rejected: str = "rejected"  # column with the other
    VERSION: ClassVar[int] = 1

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.chosen, self.rejected)

    def cases(self, row: Mapping[str, Any], where: str) -> list[Triple]:
        chosen, rejected = (_text(cell(row, column, where), column, where) for column in self.columns)
        end, other = (text.rfind(TAG) + len(TAG) if TAG in text else 0 for text in (chosen, rejected))
        if not end or chosen[:end] != rejected[:other] or not chosen[end:].strip() or not rejected[end:].strip():
            return []
        return [Triple(chosen[:end], chosen[end:], rejected[end:])]


@dataclass(frozen=True)
class Chat(Format):
    """Two lists of messages with `role` and `content`, which are written out as a dialogue; the last is the answer.

    Without a column for the prompt, rows are left out and counted whose lists are not the same up to the answer. A row
    that names its prompt is taken at its word: it may give the answers alone, and what is wrong with it is refused.
    """

    prompt: str = ""  # column with the messages before the answers, or a question; "" = they are in the other two
    chosen: str = "chosen"  # column with the messages that end in the better answer
    rejected: str = "rejected"  # column with those that end in the other
    VERSION: ClassVar[int] = 1

    @property
    def columns(self) -> tuple[str, ...]:
        return (*([self.prompt] if self.prompt else []), self.chosen, self.rejected)

    def cases(self, row: Mapping[str, Any], where: str) -> list[Triple]:
        head = self._turns(row, self.prompt, where) if self.prompt else []
        prompts, answers = [], []
        for column in (self.chosen, self.rejected):
            *context, (role, answer) = self._turns(row, column, where)
            require(role == "assistant", where, role, f"the assistant as the last speaker in column {column!r}")
            if context and any(turn not in context for turn in head):
                raise Refused(where, head, f"a prompt that is part of the conversation in column {column!r}")
            whole = f"the whole conversation in column {column!r}, or a prompt column in data.format.prompt"
            require(bool(context or head), where, answer, whole)
            if head:
                _text(answer, column, where)
            prompts.append(context or head)
            answers.append(answer)
        if prompts[0] != prompts[1] or not all(answer.strip() for answer in answers):
            same = "the same conversation before the last answer in chosen and rejected"
            require(not head, where, prompts[1], same)
            return []
        prompt = "".join(f"\n\n{SPEAKERS[role]}: {content}" for role, content in prompts[0])
        return [Triple(prompt + TAG, *(" " + answer for answer in answers))]

    def _turns(self, row: Mapping[str, Any], column: str, where: str) -> list[Turn]:
        """The messages in a column; bare text is one, of the user in the prompt and of the assistant elsewhere."""
        value = cell(row, column, where)
        if isinstance(value, str):
            return [("user" if column == self.prompt else "assistant", _text(value, column, where))]
        require(
            isinstance(value, list) and bool(value), where, value, f"text or a list of messages in column {column!r}"
        )
        turns: list[Turn] = []
        for message in value:
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise Refused(where, message, f"messages with role and content in column {column!r}")
            role, content = message["role"], message["content"]
            if not isinstance(role, str) or role not in SPEAKERS:
                raise Refused(where, role, "a role of " + ", ".join(SPEAKERS), nearest=nearest(role, SPEAKERS))
            if content != "":  # an empty system or user turn is harmless; an empty answer is judged where it is known
                _text(content, column, where)
            turns.append((role, content))
        return turns


def _text(value: Any, column: str, where: str) -> str:
    """A cell that is text as it stands, and not empty."""
    require(isinstance(value, str), where, value, f"text in column {column!r}")
    require(bool(value.strip()), where, value, f"text that is not empty in column {column!r}")
    return as_text(value, column, where)


class Classed(Format):
    """A format that makes one text with a class of each row."""

    text: str
    cluster: str

    def __post_init__(self) -> None:
        check_templates(self.text, self.cluster)

    def case(self, row: Mapping[str, Any], where: str, label: int) -> Case:
        """The text of a row, refused where there is none, with this class."""
        text = fill(self.text, row, where)
        require(bool(text), where, text, "text that is not empty in " + ", ".join(map(repr, paths(self.text))))
        return Case(text, label, text, fill(self.cluster, row, where) or text)


@dataclass(frozen=True)
class TextLabel(Classed):
    """A text of one or several columns, and a column with its class."""

    text: str = "{text}"  # what is read: {COLUMN} stands for a cell
    label: str = "label"  # column with the class, by its value or by its name
    labels: list[str] = field(default_factory=list)  # values in the order of the classes, a|b for two; [] = as found
    names: list[str] = field(default_factory=list)  # of the classes, in the same order; [] = the values
    cluster: str = ""  # rows that agree in this stay in one split; "" = the text
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for knob in ("labels", "names"):  # as tuples: sources are compared and kept by their values
            object.__setattr__(self, knob, tuple(map(spelled, getattr(self, knob))))
        super().__post_init__()
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
        """The same with the classes that the rows have, for a source whose format names none."""
        values: dict[str, None] = {}
        for where, row in rows:
            values[self._value(row, where)] = None
            accepted = f"a column of at most {MOST_FOUND} different values, or its classes in data.format.labels"
            require(len(values) <= MOST_FOUND, "data.format.label", self.label, accepted)
        accepted = f"a column of at least two different values; found {', '.join(map(repr, values)) or 'none'}"
        require(len(values) > 1, "data.format.label", self.label, accepted)
        with within("data.format"):
            return replace(self, labels=sorted(values, key=_by_number))

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        known, value = spellings(tuple(self.labels), tuple(self.names)), self._value(row, where)
        if value not in known:
            accepted = f"a class in column {self.label!r}: " + ", ".join(known)
            raise Refused(where, value, accepted, nearest=nearest(value, known))
        return [self.case(row, where, known[value])]

    def _value(self, row: Mapping[str, Any], where: str) -> str:
        value = cell(row, self.label, where)
        if not isinstance(value, str | int | float) or value != value or not spelled(value):  # nan is no class
            raise Refused(where, value, f"a class in column {self.label!r}")
        return spelled(value)


@dataclass(frozen=True)
class QuestionAnswer(Classed):
    """A question that is answered by yes or no, about a passage or about an answer that is proposed."""

    text: str = "Passage: {passage}\nQuestion: {question}"  # what is read: {COLUMN} stands for a cell
    answer: str = "answer"  # column: true | false, yes | no, 1 | 0
    cluster: str = "{passage}"  # rows that agree in this stay in one split; "" = the text
    VERSION: ClassVar[int] = 1

    @property
    def classes(self) -> tuple[str, ...]:
        return ("no", "yes")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*paths(self.text), self.answer]))

    def cases(self, row: Mapping[str, Any], where: str) -> list[Case]:
        value = cell(row, self.answer, where)
        answer = spelled(value).lower() if isinstance(value, str | int | float) else ""
        if answer not in (*YES, *NO):
            accepted = f"an answer in column {self.answer!r}: " + ", ".join((*YES, *NO))
            raise Refused(where, value, accepted, nearest=nearest(answer, (*YES, *NO)) if answer else None)
        return [self.case(row, where, int(answer in YES))]


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
