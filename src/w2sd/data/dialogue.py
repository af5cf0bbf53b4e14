"""From a raw row to one prompt and two answers, split once, at the door.

Three spellings are read, row by row:

    text        prompt, chosen, rejected: three strings, taken as they are
    dialogues   chosen, rejected: two whole dialogues, split at the last assistant tag
    messages    lists of {role, content}, rendered as a dialogue; with a prompt column or without one, and with
                chosen and rejected as whole conversations or as the last assistant turn alone

A row that names its prompt is taken at its word, and what is wrong with it is refused. Whole dialogues come from
public files in which a few rows have no common prompt or an empty last answer: those rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from w2sd.errors import Refused, nearest

TAG = "\n\nAssistant:"  # ends the prompt; the answer begins with the space that follows it
COLUMNS = ("prompt", "chosen", "rejected")
SIDES = COLUMNS[1:]
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}

Turn = tuple[str, str]  # role, content


class Triple(NamedTuple):
    """One comparison as text: `prompt + chosen` and `prompt + rejected` are the two dialogues."""

    prompt: str
    chosen: str
    rejected: str


def split(row: Mapping[str, Any], where: str) -> Triple | None:
    """The comparison in `row`; None for whole dialogues that cannot be split; a row at fault is refused as `where`.

    >>> prompt = "\\n\\nHuman: Hi\\n\\nAssistant:"
    >>> split({"chosen": prompt + " Hello", "rejected": prompt + " No"}, "train.jsonl:1")
    Triple(prompt='\\n\\nHuman: Hi\\n\\nAssistant:', chosen=' Hello', rejected=' No')
    """
    for column in SIDES:
        if column not in row:
            _refuse_missing(column, row, where)
    if any(isinstance(row.get(column), list) for column in COLUMNS):
        return _from_messages(row, where)
    if "prompt" in row:
        return Triple(*(_text(row[column], column, where) for column in COLUMNS))
    return _from_dialogues(row, where)


def _from_dialogues(row: Mapping[str, Any], where: str) -> Triple | None:
    chosen, rejected = (_text(row[column], column, where) for column in SIDES)
    if TAG not in chosen and TAG not in rejected and nearest("prompt", row.keys() - set(SIDES)):
        _refuse_missing("prompt", row, where)
    end, other = (text.rfind(TAG) + len(TAG) if TAG in text else 0 for text in (chosen, rejected))
    if not end or chosen[:end] != rejected[:other] or not chosen[end:].strip() or not rejected[end:].strip():
        return None
    return Triple(chosen[:end], chosen[end:], rejected[end:])


def _from_messages(row: Mapping[str, Any], where: str) -> Triple | None:
    head = _turns(row["prompt"], "prompt", where) if "prompt" in row else []
    sides = [_turns(row[column], column, where) for column in SIDES]
    prompts, answers = [], []
    for column, turns in zip(SIDES, sides, strict=True):
        *context, (role, answer) = turns
        if role != "assistant":
            raise Refused(where, role, f"the assistant as the last speaker in column {column!r}")
        if context and any(turn not in context for turn in head):
            raise Refused(where, head, f"a prompt that is part of the conversation in column {column!r}")
        if not context and not head:
            raise Refused(where, answer, f"a prompt column, or the whole conversation in column {column!r}")
        prompts.append(context or head)
        answers.append(answer)
    if prompts[0] != prompts[1] or not all(answer.strip() for answer in answers):
        if not head:
            return None
        for column, answer in zip(SIDES, answers, strict=True):
            _text(answer, column, where)
        raise Refused(where, prompts[1], "the same conversation before the last answer in chosen and rejected")
    prompt = "".join(f"\n\n{SPEAKERS[role]}: {content}" for role, content in prompts[0])
    return Triple(prompt + TAG, *(" " + answer for answer in answers))


def _turns(value: Any, column: str, where: str) -> list[Turn]:
    """The conversation in one column; bare text is one turn, of the user in `prompt` and of the assistant elsewhere."""
    if isinstance(value, str):
        return [("user" if column == "prompt" else "assistant", value)]
    if not isinstance(value, list) or not value:
        raise Refused(where, value, f"text or a list of messages in column {column!r}")
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
    if not isinstance(value, str):
        raise Refused(where, value, f"text in column {column!r}")
    if not value.strip():
        raise Refused(where, value, f"text that is not empty in column {column!r}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer or hash can read
        raise Refused(where, value, f"valid Unicode in column {column!r}") from None
    return value


def _refuse_missing(column: str, row: Mapping[str, Any], where: str) -> None:
    accepted = f"a column {column!r} (columns prompt, chosen, rejected; or whole dialogues in chosen, rejected)"
    written = nearest(column, row.keys() - set(COLUMNS))
    if written:
        raise Refused(where, written, accepted, nearest=column)
    raise Refused(where, list(row), accepted)
