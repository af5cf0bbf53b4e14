"""Pairs from a Hugging Face dataset, by its id or from a local folder of the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from w2sd.data.dialogue import COLUMNS
from w2sd.data.files import Part, check, gather
from w2sd.data.pairs import TARGET, Table
from w2sd.data.reading import Row, absent, content, expand
from w2sd.errors import Refused, nearest
from w2sd.identity import digest

CONVERTED = "refs/convert/parquet"  # a branch of datasets that have a script; its subsets are folders
WHOLE = "train"  # the only split that a file by itself has


@dataclass(frozen=True)
class Hub:
    """Pairs from one split of a dataset, divided into gt, w2s and test by prompt.

    A local file or folder of that name wins over the hub. Without a `revision` a hub dataset is known by its name
    alone, and whoever changes it upstream changes the rows behind it: pin what is to be reproduced.
    """

    id: str = ""  # owner/name on the hub, or a local folder or file
    revision: str = ""  # commit, tag or branch; "" = the newest
    subset: str = ""  # configuration of the dataset; "" = the default one
    split: str = "train"  # split of the dataset that is read
    prompt: str = "prompt"  # column; without it, chosen and rejected are whole dialogues
    chosen: str = "chosen"  # column
    rejected: str = "rejected"  # column
    limit: int = 0  # rows per split, after cleaning; 0 = all
    split_seed: int = 0  # which prompts go where
    w2s_parts: int = 1  # parts of the w2s rows: one for the last student, one for each earlier hop of a chain
    max_tokens: int = 512  # prompt and response together; the prompt is cut from the left
    long: str = "drop"  # a response that does not fit: drop the pair and count it | refuse the run
    append_eos: str = "auto"  # policies: an end token after a response: auto (where the tokenizer has one) | never
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check(self.limit, self.split_seed, self.w2s_parts, self.max_tokens, self.long, self.append_eos)

    def identity(self) -> dict[str, Any]:
        """What decides the rows: the contents of a local folder, or the name and revision on the hub."""
        return {
            "source": "hub",
            "version": self.VERSION,
            **origin(self),
            **{
                name: getattr(self, name)
                for name in ("subset", "split", *COLUMNS, "limit", "split_seed", "w2s_parts", "max_tokens", "long")
            },
        }

    def table(self) -> Table:
        """The cleaned rows of the dataset's split."""
        return gather([Part("data.id", self.id, "", TARGET, self._rows())], self.limit, self.split_seed, self.w2s_parts)

    def _rows(self) -> Iterator[Row]:
        dataset = load(self, "split")
        return rows(dataset, self._columns(dataset.column_names), self.id)

    def _columns(self, present: list[str]) -> dict[str, str]:
        """From our names to the dataset's; refuse names that it does not have."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        if columns["prompt"] in ("", "prompt") and columns["prompt"] not in present:
            del columns["prompt"]  # whole dialogues
        for name, column in columns.items():
            check_column(f"data.{name}", column, present)
        return columns


class Place(Protocol):
    """Where a dataset is: the fields that all sources from the hub share."""

    @property
    def id(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def subset(self) -> str: ...


def origin(place: Place) -> dict[str, str]:
    """What a dataset is known by: its contents where it is local, its name and revision where it is not."""
    path = local(place)
    return {"content": _contents(path)} if path else {"id": place.id, "revision": place.revision}


def local(place: Place) -> Path | None:
    """The local file or folder that is meant, None where the hub is."""
    path = expand(place.id)
    if place.id and path.exists():
        return path
    if not place.id or place.id[0] in "./~$" or place.id.count("/") > 1:
        raise absent("data.id", place.id, "a dataset id (owner/name), or a file or folder")
    return None


def check_column(knob: str, column: str, present: list[str]) -> None:
    """Refuse a column that the dataset does not have."""
    accepted = "a column of the dataset: " + ", ".join(present)
    if column not in present:
        raise Refused(knob, column, accepted, nearest=nearest(column, present))


def rows(dataset: Any, columns: Mapping[str, str], name: str) -> Iterator[Row]:
    """The raw rows of a dataset in its order, with `columns` (from our names to its own) alone."""
    number = 0
    for batch in dataset.select_columns(list(columns.values())).iter(batch_size=1000):
        for cells in zip(*(batch[column] for column in columns.values()), strict=True):
            yield f"{name}[{number}]", dict(zip(columns, cells, strict=True))
            number += 1


def load(place: Place, knob: str) -> Any:
    """The dataset's split that the field `knob` names; whatever keeps it from loading is one refusal."""
    path, split = local(place), getattr(place, knob)
    import datasets  # after the checks that need no second of import

    options: dict[str, Any] = {"path": place.id, "name": place.subset or None, "split": split}
    if path is None:
        options["revision"] = place.revision or None
        if place.revision == CONVERTED and place.subset:
            options.update(name=None, data_dir=place.subset)
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
        if place.subset and "BuilderConfig" in reason:
            at_fault, accepted = "subset", "a subset of the dataset"
        elif "Unknown split" in reason or "Unrecognized instruction" in reason:
            at_fault, accepted = knob, "a split of the dataset"
        raise Refused(f"data.{at_fault}", getattr(place, at_fault), f"{accepted} ({reason})") from error


def _contents(path: Path) -> str:
    """The digest of a file, or of a folder's files and their names in it, which decide the dataset's splits."""
    if path.is_file():
        return content(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest(*(text for file in files for text in (file.relative_to(path).as_posix(), content(file))))
