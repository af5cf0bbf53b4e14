"""Texts made of a row's cells: `"Q: {question} A: {answer}"` has the cell of a column in place of its name.

{column}          text, a number, or a list of texts, one a line
{choices.text}    what a column of records holds under that name
{scenario:[SEP]}  what stands in a cell before the first such mark; the whole cell where there is none
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from w2sd.errors import Refused, nearest, require

NAMELESS = re.compile(r"\{(:[^{}]*)?\}")
FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


def paths(template: str) -> list[str]:
    """The columns that a template asks for.

    >>> paths("{passage} {choices.text:,}")
    ['passage', 'choices.text']
    """
    return [path for path, _ in FIELD.findall(template)]


def require_names(knob: str, template: str) -> None:
    """Refuse braces without the name of a column, which would be read as they stand."""
    nameless = NAMELESS.search(template)
    require(not nameless, knob, template, f"{{COLUMN}} and not {nameless and nameless[0]}, for the cell of a column")


def fill(template: str, row: Mapping[str, Any], where: str) -> str:
    """The text of a row, without spaces around it.

    >>> fill("{day}: {say:.}", {"day": 3, "say": "Yes. No."}, "rows.jsonl:1")
    '3: Yes'
    """

    def replacement(match: re.Match[str]) -> str:
        path, mark = match.groups()
        text = as_text(cell(row, path, where), path, where)
        return text.partition(mark)[0] if mark else text

    return FIELD.sub(replacement, template).strip()


def cell(row: Mapping[str, Any], path: str, where: str) -> Any:
    """What a row has under the name of a column, or under NAME.KEY of a column of records."""
    value: Any = row
    for key in [path] if path in row else path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            names = list(value) if isinstance(value, Mapping) else list(row)
            accepted = f"a column {path!r} (data.format asks for it)"
            raise Refused(where, names, accepted, nearest=nearest(key, names))
        value = value[key]
    return value


def as_text(value: Any, path: str, where: str) -> str:
    """The text of a cell; what is none is refused."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Refused(where, value, f"text in column {path!r}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer or hash can read
        raise Refused(where, value, f"valid Unicode in column {path!r}") from None
    return value
