"""Classification data: texts with a class, from local files or from a Hugging Face dataset, balanced by class.

What rows look like is the business of the part `format` (`formats.py`, `choices.py`); where they are, that of a source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Protocol

from w2sd.data import files, hub
from w2sd.data.balance import evened, first, in_hash_order, refuse_lacking
from w2sd.data.files import check_splits, part_of, split_of
from w2sd.data.formats import Format, TextLabel
from w2sd.data.pairs import SPLITS, Item, Table, clean_items
from w2sd.data.reading import Row, content, read
from w2sd.errors import Refused, require
from w2sd.identity import canonical, digest, identity

ROLES = ("path", *SPLITS)


class Portion(NamedTuple):
    """The raw rows behind one knob, and the splits that they are for: by the hash of the cluster if several."""

    knob: str
    value: str  # what the knob was set to, for refusals
    splits: tuple[str, ...]
    rows: Iterable[Row]


@dataclass(frozen=True)
class ClassFiles:
    """Classification from one file that is split by cluster (`path`), or from three (`gt`, `w2s`, `test`)."""

    path: str = ""  # one file: a third of its clusters each for gt, w2s and test
    gt: str = ""  # rows with ground truth, for the weak model and the ceiling
    w2s: str = ""  # rows that the weak model labels for the student
    test: str = ""  # rows that everything is measured on
    format: Any = field(default_factory=TextLabel)  # what of a row is read, and where its class is
    balance: bool = True  # as many texts of every class in each split: of the others a sample is left out
    limit: int = 0  # texts per split, after balancing; 0 = all
    split_seed: int = 0  # which clusters go where when `path` is split
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 512  # a longer text is cut from the left
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check(self)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order; rows are read for them where the format names none."""
        return settled(self).classes

    def identity(self) -> dict[str, Any]:
        """What decides the rows: contents by role, so that a moved or renamed file keeps its identity."""
        return {
            "source": "class_files",
            "files": {role: content(path) for role, path in self._located().items()},
            **decides(self),
            "split_seed": self.split_seed if self.path else None,
        }

    def portions(self) -> list[Portion]:
        return [
            Portion(f"data.{role}", value, (role,) if role in SPLITS else SPLITS, read(path, value))
            for role, path in self._located().items()
            if (value := getattr(self, role))
        ]

    def table(self) -> Table[Item]:
        """The cleaned and balanced texts of all files together."""
        return gather(self)

    def _located(self) -> dict[str, Any]:
        return files.located({role: getattr(self, role) for role in ROLES})


@dataclass(frozen=True)
class ClassHub:
    """Classification from one split of a dataset, or from two: another one serves as test.

    A local file or folder of that name wins over the hub. Without a `revision` a hub dataset is known by its name
    alone, and whoever changes it upstream changes the rows behind it: pin what is to be reproduced.
    """

    id: str = ""  # owner/name on the hub, or a local folder or file
    revision: str = ""  # commit, tag or branch; "" = the newest
    subset: str = ""  # configuration of the dataset; "" = the default one
    split: str = "train"  # split of the dataset for gt and w2s; train[:20000] = its first rows
    test_split: str = ""  # split of the dataset for test; "" = a third of the other
    format: Any = field(default_factory=TextLabel)  # what of a row is read, and where its class is
    balance: bool = True  # as many texts of every class in each split: of the others a sample is left out
    limit: int = 0  # texts per split, after balancing; 0 = all
    split_seed: int = 0  # which clusters go where
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 512  # a longer text is cut from the left
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check(self)
        another = "another split than data.split, or '' for a part of it"
        require(self.test_split != self.split, "test_split", self.test_split, another)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order; rows are read for them where the format names none."""
        return settled(self).classes

    def identity(self) -> dict[str, Any]:
        """What decides the rows: the contents of a local folder, or the name and revision on the hub."""
        names = {name: getattr(self, name) for name in ("subset", "split", "test_split")}
        return {"source": "class_hub", **hub.origin(self), **names, **decides(self)}

    def portions(self) -> list[Portion]:
        if not self.test_split:
            return [Portion("data.id", self.id, SPLITS, self._rows("split"))]
        if (path := hub.local(self)) and path.is_file():
            raise Refused("data.test_split", self.test_split, f"'' beside one file, of which a third is test ({path})")
        return [
            Portion("data.split", self.split, ("gt", "w2s"), self._rows("split")),
            Portion("data.test_split", self.test_split, ("test",), self._rows("test_split")),
        ]

    def table(self) -> Table[Item]:
        """The cleaned and balanced texts of the dataset."""
        return gather(self)

    def _rows(self, knob: str) -> Iterator[Row]:
        dataset = hub.load(self, knob)
        present, columns = dataset.column_names, {}
        for path in self.format.columns:
            column = path if path in present else path.partition(".")[0]
            hub.check_column("data.format", column, present)
            columns[column] = column
        yield from hub.rows(dataset, columns, f"{self.id} {getattr(self, knob)}")


class Source(Protocol):
    """What both sources have."""

    @property
    def format(self) -> Format: ...

    @property
    def balance(self) -> bool: ...

    @property
    def limit(self) -> int: ...

    @property
    def split_seed(self) -> int: ...

    @property
    def w2s_parts(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    VERSION: ClassVar[int]

    def portions(self) -> list[Portion]:
        """Its raw rows."""


def check(source: Source) -> None:
    """Refuse what cannot be meant by the fields that both sources have."""
    require(hasattr(source.format, "cases"), "format", source.format, "a part that has a _target_ of w2sd.data.formats")
    check_splits(source.limit, source.split_seed, source.w2s_parts)
    require(source.max_tokens >= 1, "max_tokens", source.max_tokens, "at least 1")
    check_limit(source, source.format, "limit")


def check_limit(source: Source, form: Format, knob: str) -> None:
    """Refuse a limit that leaves too few texts of a class, as far as the classes are known."""
    least = files.MIN_ROWS * (len(form.classes) if source.balance else 1)
    accepted = f"0 (all texts) or at least {least}: {files.MIN_ROWS} of each class"
    require(source.limit == 0 or source.limit >= least, knob, source.limit, accepted)


def decides(source: Source) -> dict[str, Any]:
    """What decides the rows of both sources, beside where they are."""
    return {
        "version": source.VERSION,
        "format": identity(source.format),
        **{name: getattr(source, name) for name in ("balance", "limit", "split_seed", "w2s_parts", "max_tokens")},
    }


def settled(source: Source) -> Format:
    """The format of a source with its classes, which are looked for in the rows where none are named."""
    return source.format if source.format.classes else _settled(source, canonical(identity(source)))  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _settled(source: Source, content: str) -> Format:
    portions = source.portions()
    rows = chain.from_iterable(portion.rows for portion in portions)
    first_row = next(rows, None)
    if first_row is None:
        raise Refused(portions[0].knob, portions[0].value, "at least one row; it has none")
    return source.format.settled(chain([first_row], rows))


def gather(source: Source) -> Table[Item]:
    """Read, split, clean, balance and limit all rows; every text is in the table or counted in what was dropped."""
    form, portions = settled(source), source.portions()
    check_limit(source, form, "data.limit")
    items, units, left_out = [], dict[str, str](), 0
    for portion in portions:
        for where, row in portion.rows:
            cases = form.cases(row, where)
            left_out += not cases
            for case in cases:
                cluster, name = digest(case.cluster), digest(case.text)
                split = split_of(cluster, source.split_seed, portion.splits)
                part = part_of(cluster, source.w2s_parts) if split == "w2s" else 0
                items.append(Item(name, cluster, split, case.text, case.label, part=part, where=where))
                units[name] = min(case.unit, units.get(name, case.unit))  # a text of two questions, in any order
    rows, dropped = clean_items(items)
    dropped = {"left_out": left_out, **dropped}
    knobs = {split: (portion.knob, portion.value) for portion in portions for split in portion.splits}
    return _sample(source, form, rows, units, knobs, dropped)


def _sample(
    source: Source,
    form: Format,
    rows: list[Item],
    units: Mapping[str, str],
    knobs: Mapping[str, tuple[str, str]],
    dropped: dict[str, int],
) -> Table[Item]:
    """The rows that remain when classes are balanced and no split has more than the limit, in their order."""
    n, drawn = len(form.classes), in_hash_order(rows, units)
    if source.balance and form.paired:
        drawn = evened(drawn, lambda item: units[item.id], n)
    so_far = dropped | {"unbalanced": len(rows) - len(drawn)}
    refuse_lacking([item._replace(part=0) for item in drawn], form.classes, knobs, 1, so_far)
    by_parts = dict.fromkeys(SPLITS, ("data.w2s_parts", source.w2s_parts))
    refuse_lacking(drawn, form.classes, by_parts, source.w2s_parts, so_far)
    if source.balance:
        drawn = evened(drawn, lambda item: (item.split, item.part), n)
    kept = drawn
    if source.limit and source.balance:
        kept = first(drawn, lambda item: (item.split, item.part, item.label), lambda _: source.limit // n)
    elif source.limit:
        kept = first(drawn, lambda item: (item.split, item.part), lambda _: source.limit)
    dropped |= {"unbalanced": len(rows) - len(drawn), "over_limit": len(drawn) - len(kept)}
    by_limit = dict.fromkeys(SPLITS, ("data.limit", source.limit))  # what is lacking only now
    refuse_lacking(kept, form.classes, by_limit, source.w2s_parts, dropped)
    ids = {item.id for item in kept}
    return Table([item for item in rows if item.id in ids], dropped)
