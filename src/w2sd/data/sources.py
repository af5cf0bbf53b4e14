"""Where examples come from: local files, or a Hugging Face dataset. How a row is read is its part `format`.

`table` is the one way from raw rows to examples: split by a hash of the cluster, clean, balance (classes), limit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from w2sd.data.balance import first, sample
from w2sd.data.formats import Format, Pairs
from w2sd.data.pairs import CONFLICTING, MIN_ROWS, SPLITS, TARGET, UNRELATED, Pair, Table, clean, clean_items, reasons
from w2sd.data.reading import Row, absent, content, expand, locate, read
from w2sd.errors import Refused, choose, nearest, require
from w2sd.identity import canonical, digest, identity

ROLES = {  # field of Files → its splits (several: by the hash of the cluster) and its facet
    "path": (SPLITS, TARGET),
    "gt": (("gt",), TARGET),
    "w2s": (("w2s",), TARGET),
    "test": (("test",), TARGET),
    "helpful": (("w2s",), CONFLICTING),
    "helpful_test": (("test",), CONFLICTING),
    "unrelated": (("w2s",), UNRELATED),
}
LONG = ("drop", "refuse")
APPEND_EOS = ("auto", "never")
OF_PAIRS = ("helpful", "helpful_test", "unrelated", "long", "append_eos")  # fields that texts with a class do not read
CONVERTED = "refs/convert/parquet"  # a branch of datasets that have a script; its subsets are folders
WHOLE = "train"  # the only split that a file by itself has


class Part(NamedTuple):
    """The raw rows behind one knob, and where they belong."""

    knob: str
    value: str  # what the knob was set to, for refusals
    splits: Sequence[str]  # several: by the hash of the cluster
    facet: str
    rows: Iterable[Row]


@dataclass(frozen=True)
class _Source(ABC):
    """What both sources do alike, and the fields that they share."""

    format: Any = field(default_factory=Pairs)  # how a row is read
    balance: bool = True  # classes: as many texts of each in a split; of the others a sample is left out
    limit: int = 0  # rows per split and facet, after cleaning and balancing; 0 = all
    split_seed: int = 0  # which clusters go where, if the splits are not given
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 512  # prompt and response together, or a text; what is longer is cut from the left
    long: str = "drop"  # pairs: a response that does not fit: drop the pair and count it | refuse the run
    append_eos: str = "auto"  # policies: an end token after a response: auto (where the tokenizer has one) | never
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        form = self.format
        require(hasattr(form, "cases"), "format", form, "a part that has a _target_ of w2sd.data.formats")
        check(self.limit, self.split_seed, self.w2s_parts, self.max_tokens)
        self.check_limit(form, "limit")
        choose("long", self.long, LONG)
        choose("append_eos", self.append_eos, APPEND_EOS)
        if form.classes is None:
            require(self.balance, "balance", self.balance, "true: pairs have no classes to balance")
            return
        for own in fields(self):
            value, accepted = getattr(self, own.name), f"{own.default!r}: only pairs have anything else"
            require(own.name not in OF_PAIRS or value == own.default, own.name, value, accepted)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in label order, from the rows where the format names none; None for pairs."""
        return self.settled().classes

    @abstractmethod
    def parts(self) -> list[Part]:
        """Its raw rows."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides its rows, as plain JSON."""

    def table(self) -> Table:
        """Read, split, clean, balance and limit all rows; each is in the table or counted in what was dropped."""
        form, parts = self.settled(), self.parts()
        self.check_limit(form, "data.limit")
        examples: list[Any] = []
        units, n_skipped = dict[str, str](), 0
        for part in parts:
            for where, row in part.rows:
                cases = form.cases(row, where)
                n_skipped += not cases
                for case in cases:
                    cluster = digest(case.cluster)
                    split = split_of(cluster, self.split_seed, part.splits)
                    number = part_of(cluster, self.w2s_parts) if (split, part.facet) == ("w2s", TARGET) else 0
                    examples.append(example := case.example(cluster, split, part.facet, number, where))
                    units[example.id] = min(case.unit, units.get(example.id, case.unit))  # of two rows, in any order
        if form.classes is None:
            rows, dropped = clean(examples)
            return _limited(rows, {"unsplittable": n_skipped, **dropped}, parts, self.limit)
        items, dropped = clean_items(examples)
        knobs = {split: (part.knob, part.value) for part in parts for split in part.splits}
        how = (form.classes, form.paired, self.balance, self.limit, self.w2s_parts)
        return sample(items, units, {"left_out": n_skipped, **dropped}, knobs, *how)

    def settled(self) -> Format:
        """The format with its classes, which are looked for in the rows where none are named."""
        return self.format if self.format.classes != () else _settled(self, canonical(identity(self)))

    def check_limit(self, form: Format, knob: str) -> None:
        """Refuse a limit that leaves too few texts of a class, as far as the classes are known."""
        n_classes = len(form.classes or ()) if self.balance else 0
        least = MIN_ROWS * max(n_classes, 1)
        accepted = f"0 (all texts) or at least {least}: {MIN_ROWS} of each class"
        require(self.limit == 0 or self.limit >= least, knob, self.limit, accepted)

    def shared_identity(self) -> dict[str, Any]:
        """What decides the rows of both sources, beside where they are.

        `append_eos` decides no row; stages that train policies have it among their own parameters.
        """
        names = ("balance", "limit", "split_seed", "w2s_parts", "max_tokens", "long")
        return {
            "version": self.VERSION,
            "format": identity(self.format),
            **{name: getattr(self, name) for name in names},
        }


@dataclass(frozen=True)
class Files(_Source):
    """Rows of one file that is split by cluster (`path`), or of three (`gt`, `w2s`, `test`): JSONL, CSV or Parquet.

    Paths are taken from the current directory; `~` and `$NAME` are expanded. The cluster of a pair is its prompt.
    """

    path: str = ""  # one file: a third of its clusters each for gt, w2s and test
    gt: str = ""  # rows with ground truth, for the weak model and the ceiling
    w2s: str = ""  # rows that the weak model labels for the student
    test: str = ""  # rows that everything is measured on
    helpful: str = ""  # pairs: rows of the conflicting facet, beside w2s
    helpful_test: str = ""  # pairs: rows of the conflicting facet, beside test
    unrelated: str = ""  # pairs: rows about something else altogether, for a placebo

    def identity(self) -> dict[str, Any]:
        """What decides the rows: contents by role, so that a moved or renamed file keeps its identity."""
        return {
            "source": "files",
            "files": {role: content(path) for role, path in self._located().items()},
            **self.shared_identity(),
            "split_seed": self.split_seed if self.path else None,
        }

    def parts(self) -> list[Part]:
        """The raw rows of each file."""
        return [
            Part(f"data.{role}", getattr(self, role), *ROLES[role], read(path, getattr(self, role)))
            for role, path in self._located().items()
        ]

    def _located(self) -> dict[str, Path]:
        """The file of every role that has one; a set of roles that makes no experiment is refused."""
        given = [role for role in SPLITS if getattr(self, role)]
        if self.path and given:
            raise Refused(f"data.{given[0]}", getattr(self, given[0]), f"nothing beside data.path={self.path}")
        if not self.path and len(given) < len(SPLITS):
            lacking = next(role for role in SPLITS if role not in given) if given else "path"
            raise Refused(f"data.{lacking}", "", "a file: either data.path, or all of data.gt, data.w2s, data.test")
        return {role: locate(f"data.{role}", value) for role in ROLES if (value := getattr(self, role))}


@dataclass(frozen=True)
class Hub(_Source):
    """Rows of one split of a Hugging Face dataset, or of two: another one serves as test.

    A local file or folder of that name wins over the hub. Without a `revision` a hub dataset is known by its name
    alone, and whoever changes it upstream changes the rows behind it: pin what is to be reproduced.
    """

    id: str = ""  # owner/name on the hub, or a local folder or file
    revision: str = ""  # commit, tag or branch; "" = the newest
    subset: str = ""  # configuration of the dataset; "" = the default one
    split: str = "train"  # split of the dataset for gt and w2s; train[:20000] = its first rows
    test_split: str = ""  # split of the dataset for test; "" = a third of the other

    def __post_init__(self) -> None:
        super().__post_init__()
        another = "another split than data.split, or '' for a part of it"
        require(self.test_split != self.split, "test_split", self.test_split, another)

    def identity(self) -> dict[str, Any]:
        """What decides the rows: the contents of a local folder, or the name and revision on the hub."""
        path = self._local()
        origin = {"content": _contents(path)} if path else {"id": self.id, "revision": self.revision}
        names = {name: getattr(self, name) for name in ("subset", "split", "test_split")}
        return {"source": "hub", **origin, **names, **self.shared_identity()}

    def parts(self) -> list[Part]:
        """The raw rows of each split of the dataset."""
        if not self.test_split:
            return [Part("data.id", self.id, SPLITS, TARGET, self._rows("split"))]
        if (path := self._local()) and path.is_file():
            raise Refused("data.test_split", self.test_split, f"'' beside one file: a third of it is test ({path})")
        return [
            Part("data.split", self.split, ("gt", "w2s"), TARGET, self._rows("split")),
            Part("data.test_split", self.test_split, ("test",), TARGET, self._rows("test_split")),
        ]

    def _local(self) -> Path | None:
        """The local file or folder that is meant, None where the hub is."""
        path = expand(self.id)
        if self.id and path.exists():
            return path
        if not self.id or self.id[0] in "./~$" or self.id.count("/") > 1:
            raise absent("data.id", self.id, "a dataset id (owner/name), or a file or folder")
        return None

    def _rows(self, knob: str) -> Iterator[Row]:
        """The raw rows of a split, with the columns that the format asks for; with all, if it asks for one too many."""
        dataset, number = self._load(knob), 0
        present = dataset.column_names
        asked = dict.fromkeys(path if path in present else path.partition(".")[0] for path in self.format.columns)
        columns = list(asked) if asked.keys() <= set(present) else present
        for batch in dataset.select_columns(columns).iter(batch_size=1000):
            for cells in zip(*(batch[column] for column in columns), strict=True):
                yield f"{self.id} {getattr(self, knob)}[{number}]", dict(zip(columns, cells, strict=True))
                number += 1

    def _load(self, knob: str) -> Any:
        """The dataset's split that the field `knob` names; whatever keeps it from loading is one refusal."""
        path, split = self._local(), getattr(self, knob)
        import datasets  # after the checks that need no second of import

        options: dict[str, Any] = {"path": self.id, "name": self.subset or None, "split": split}
        if path is None:
            options["revision"] = self.revision or None
            if self.revision == CONVERTED and self.subset:
                options.update(name=None, data_dir=self.subset)
        elif path.is_dir():
            options["path"] = str(path.resolve())
        else:
            if split.partition("[")[0] != WHOLE:
                accepted = f"{WHOLE} (or {WHOLE}[:100], its first rows) beside one file, which has no other splits"
                raise Refused(f"data.{knob}", split, accepted, nearest=nearest(split, [WHOLE]))
            options.update(path=str(path.resolve().parent), data_files={WHOLE: path.name})
        try:
            return datasets.load_dataset(**options)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            at_fault, accepted = "id", "a dataset that can be loaded"
            if self.subset and "BuilderConfig" in reason:
                at_fault, accepted = "subset", "a subset of the dataset"
            elif "Unknown split" in reason or "Unrecognized instruction" in reason:
                at_fault, accepted = knob, "a split of the dataset"
            raise Refused(f"data.{at_fault}", getattr(self, at_fault), f"{accepted} ({reason})") from error


def check(limit: int, split_seed: int, w2s_parts: int, max_tokens: int) -> None:
    """Refuse what cannot be meant by the fields that all sources of text share."""
    require(limit == 0 or limit >= MIN_ROWS, "limit", limit, f"0 (all rows) or at least {MIN_ROWS}")
    require(split_seed >= 0, "split_seed", split_seed, "0 or more")
    require(w2s_parts >= 1, "w2s_parts", w2s_parts, "an integer of 1 or more")
    require(max_tokens >= 2, "max_tokens", max_tokens, "at least 2 (a token of the prompt and one of the response)")


def _limited(rows: list[Pair], dropped: dict[str, int], parts: Iterable[Part], limit: int) -> Table[Pair]:
    """The first pairs of each split, facet and part in the order of the rows; all of them for a limit of 0."""
    kept = first(rows, lambda pair: (pair.split, pair.facet, pair.part), lambda _: limit or len(rows))
    dropped |= {"over_limit": len(rows) - len(kept)}
    n = Counter((pair.split, pair.facet) for pair in rows)
    for part in parts:
        for split in part.splits:
            count = n[split, part.facet]
            accepted = f"at least {MIN_ROWS} {part.facet} rows for split {split}, found {count}"
            accepted += f" (dropped in all: {reasons(dropped)})"
            if dropped["unsplittable"]:
                accepted += "; unsplittable: the two dialogues of a row are not the same up to their last answers"
            require(count >= MIN_ROWS, part.knob, part.value, accepted)
    return Table(kept, dropped)


@lru_cache(maxsize=4)
def _settled(source: _Source, content: str) -> Format:
    parts = source.parts()
    rows = chain.from_iterable(part.rows for part in parts)
    first_row = next(rows, None)
    if first_row is None:
        raise Refused(parts[0].knob, parts[0].value, "at least one row; it has none")
    return source.format.settled(chain([first_row], rows))


def _contents(path: Path) -> str:
    """The digest of a file, or of a folder's files and their names in it, which decide the dataset's splits."""
    if path.is_file():
        return content(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest(*(text for file in files for text in (file.relative_to(path).as_posix(), content(file))))


def split_of(cluster: str, split_seed: int, splits: Sequence[str] = SPLITS) -> str:
    """The split of a cluster when its source has none: an equal share each, by a hash of the cluster and the seed."""
    return splits[int(digest("split", str(split_seed), cluster), 16) % len(splits)]


def part_of(cluster: str, w2s_parts: int) -> int:
    """The part of a w2s cluster: whole clusters, so that no hop of a chain has seen the prompts of another."""
    return int(digest("part", cluster), 16) % w2s_parts
