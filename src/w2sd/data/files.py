"""Pairs from local files: JSON lines, CSV or Parquet, one file for everything or one for each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from w2sd.data import dialogue
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, UNRELATED, Pair, Table, clean
from w2sd.data.reading import Row, content, locate, read
from w2sd.errors import Refused, choose, require
from w2sd.identity import digest

ROLES = {  # field → (split, facet); no split: by the hash of the prompt
    "path": ("", TARGET),
    "gt": ("gt", TARGET),
    "w2s": ("w2s", TARGET),
    "test": ("test", TARGET),
    "helpful": ("w2s", CONFLICTING),
    "helpful_test": ("test", CONFLICTING),
    "unrelated": ("w2s", UNRELATED),
}
LONG = ("drop", "refuse")
APPEND_EOS = ("auto", "never")
MIN_ROWS = 2  # in a split: one row has no standard error


@dataclass(frozen=True)
class Files:
    """Pairs from one file that is split by prompt (`path`), or from three (`gt`, `w2s`, `test`).

    Paths are taken from the current directory; `~` and `$NAME` are expanded.
    """

    path: str = ""  # one file: a third of its prompts each for gt, w2s and test
    gt: str = ""  # rows with ground truth, for the weak model and the ceiling
    w2s: str = ""  # rows that the weak model labels for the student
    test: str = ""  # rows that everything is measured on
    helpful: str = ""  # rows of the conflicting facet, beside w2s
    helpful_test: str = ""  # rows of the conflicting facet, beside test
    unrelated: str = ""  # rows about something else altogether, for a placebo
    limit: int = 0  # rows per split and facet, after cleaning; 0 = all
    split_seed: int = 0  # which prompts go where when `path` is split
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 512  # prompt and response together; the prompt is cut from the left
    long: str = "drop"  # a response that does not fit: drop the pair and count it | refuse the run
    append_eos: str = "auto"  # policies: an end token after a response: auto (where the tokenizer has one) | never
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check(self.limit, self.split_seed, self.w2s_parts, self.max_tokens, self.long, self.append_eos)

    def identity(self) -> dict[str, Any]:
        """What decides the rows: contents by role, so that a moved or renamed file keeps its identity.

        `append_eos` decides no row; stages that train policies have it among their own parameters.
        """
        return {
            "source": "files",
            "version": self.VERSION,
            "files": {role: content(path) for role, path in self._located().items()},
            "limit": self.limit,
            "split_seed": self.split_seed if self.path else None,
            "w2s_parts": self.w2s_parts,
            "max_tokens": self.max_tokens,
            "long": self.long,
        }

    def table(self) -> Table:
        """The cleaned rows of all files together."""
        parts = [
            Part(f"data.{role}", getattr(self, role), *ROLES[role], read(path, getattr(self, role)))
            for role, path in self._located().items()
        ]
        return gather(parts, self.limit, self.split_seed, self.w2s_parts)

    def _located(self) -> dict[str, Path]:
        return located({role: getattr(self, role) for role in ROLES})


class Part(NamedTuple):
    """The raw rows behind one knob, and where they belong."""

    knob: str
    value: str  # what the knob was set to, for refusals
    split: str  # "" = by the hash of the prompt
    facet: str
    rows: Iterable[Row]


def located(files: Mapping[str, str]) -> dict[str, Path]:
    """The file of every role that has one; refuse a set of roles that makes no experiment."""
    given = [role for role in SPLITS if files[role]]
    if files["path"] and given:
        raise Refused(f"data.{given[0]}", files[given[0]], f"nothing beside data.path={files['path']}")
    if not files["path"] and len(given) < len(SPLITS):
        lacking = next(role for role in SPLITS if role not in given) if given else "path"
        raise Refused(f"data.{lacking}", "", "a file: either data.path, or all of data.gt, data.w2s, data.test")
    return {role: locate(f"data.{role}", value) for role, value in files.items() if value}


def check_splits(limit: int, split_seed: int, w2s_parts: int) -> None:
    """Refuse what cannot be meant by the fields that all sources of text share."""
    require(limit == 0 or limit >= MIN_ROWS, "limit", limit, f"0 (all rows) or at least {MIN_ROWS}")
    require(split_seed >= 0, "split_seed", split_seed, "0 or more")
    require(w2s_parts >= 1, "w2s_parts", w2s_parts, "an integer of 1 or more")


def check(limit: int, split_seed: int, w2s_parts: int, max_tokens: int, long: str, append_eos: str) -> None:
    """The same for the fields that all sources of pairs share."""
    check_splits(limit, split_seed, w2s_parts)
    require(max_tokens >= 2, "max_tokens", max_tokens, "at least 2 (a token of the prompt and one of the response)")
    choose("long", long, LONG)
    choose("append_eos", append_eos, APPEND_EOS)


def gather(parts: Iterable[Part], limit: int, split_seed: int, w2s_parts: int) -> Table:
    """Read, split, clean and limit all rows; every row is in the table or counted in what was dropped."""
    parts, pairs, unsplittable = list(parts), [], 0
    for part in parts:
        for where, row in part.rows:
            triple = dialogue.split(row, where)
            if triple is None:
                unsplittable += 1
                continue
            cluster = digest(triple.prompt)
            split = part.split or split_of(cluster, split_seed)
            pairs.append(Pair(digest(*triple, part.facet), cluster, split, part.facet, *triple, where=where))
    rows, dropped = clean(pairs)
    kept, counts, per_part = [], Counter[tuple[str, str]](), Counter[tuple[str, str, int]]()
    for pair in rows:
        counts[pair.split, pair.facet] += 1
        number = part_of(pair.cluster, w2s_parts) if (pair.split, pair.facet) == ("w2s", TARGET) else 0
        per_part[pair.split, pair.facet, number] += 1
        if not limit or per_part[pair.split, pair.facet, number] <= limit:
            kept.append(pair._replace(part=number))
    dropped = {"unsplittable": unsplittable, **dropped, "over_limit": len(rows) - len(kept)}
    for part in parts:
        for split in [part.split] if part.split else SPLITS:
            if counts[split, part.facet] < MIN_ROWS:
                raise _too_few(part, split, counts[split, part.facet], dropped)
    return Table(kept, dropped)


def _too_few(part: Part, split: str, found: int, dropped: dict[str, int]) -> Refused:
    why = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    accepted = f"at least {MIN_ROWS} {part.facet} rows for split {split}, found {found} (dropped in all: {why})"
    if dropped["unsplittable"]:
        accepted += f"; rows without a prompt column must be two dialogues that differ after the last {dialogue.TAG!r}"
    return Refused(part.knob, part.value, accepted)


def split_of(cluster: str, split_seed: int, splits: Sequence[str] = SPLITS) -> str:
    """The split of a prompt when its source has none: an equal share each, by a hash of the prompt and the seed."""
    return splits[int(digest("split", str(split_seed), cluster), 16) % len(splits)]


def part_of(cluster: str, w2s_parts: int) -> int:
    """The part of a w2s prompt: whole prompts, so that no hop of a chain has seen the prompts of another."""
    return int(digest("part", cluster), 16) % w2s_parts
