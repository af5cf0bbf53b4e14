"""Pairs from a Hugging Face dataset, by its id or from a local folder of the same shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from w2sd.data.dialogue import COLUMNS
from w2sd.data.files import Part, Row, absent, check, content, expand, gather
from w2sd.data.pairs import TARGET, Table, digest
from w2sd.errors import Refused, nearest


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
    long: str = "refuse"  # a response that does not fit: refuse | drop
    append_eos: str = "auto"  # policies: an end token after a response: auto (where the tokenizer has one) | never
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check(self.limit, self.split_seed, self.w2s_parts, self.max_tokens, self.long, self.append_eos)

    def identity(self) -> dict[str, Any]:
        """What decides the rows: the contents of a local folder, or the name and revision on the hub."""
        local = self._local()
        return {
            "source": "hub",
            "version": self.VERSION,
            **({"content": _contents(local)} if local else {"id": self.id, "revision": self.revision}),
            **{
                name: getattr(self, name)
                for name in ("subset", "split", *COLUMNS, "limit", "split_seed", "w2s_parts", "max_tokens", "long")
            },
        }

    def table(self) -> Table:
        """The cleaned rows of the dataset's split."""
        return gather([Part("data.id", self.id, "", TARGET, self._rows())], self.limit, self.split_seed, self.w2s_parts)

    def _local(self) -> Path | None:
        """The local file or folder that is meant, None where the hub is."""
        path = expand(self.id)
        if self.id and path.exists():
            return path
        if not self.id or self.id[0] in "./~$" or self.id.count("/") > 1:
            raise absent("data.id", self.id, "a dataset id (owner/name), or a file or folder")
        return None

    def _rows(self) -> Iterator[Row]:
        dataset = self._load()
        columns = self._columns(dataset.column_names)
        number = 0
        for batch in dataset.select_columns(list(columns.values())).iter(batch_size=1000):
            for cells in zip(*(batch[column] for column in columns.values()), strict=True):
                yield f"{self.id}[{number}]", dict(zip(columns, cells, strict=True))
                number += 1

    def _columns(self, present: list[str]) -> dict[str, str]:
        """From our names to the dataset's; refuse names that it does not have."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        if columns["prompt"] in ("", "prompt") and columns["prompt"] not in present:
            del columns["prompt"]  # whole dialogues
        for name, column in columns.items():
            if column not in present:
                accepted = "a column of the dataset: " + ", ".join(present)
                raise Refused(f"data.{name}", column, accepted, nearest=nearest(column, present))
        return columns

    def _load(self) -> Any:
        """The dataset's split; whatever keeps it from loading is one refusal."""
        local = self._local()
        import datasets  # after the checks that need no second of import

        options: dict[str, Any] = {"path": self.id, "name": self.subset or None, "split": self.split}
        if local is None:
            options["revision"] = self.revision or None
        elif local.is_dir():
            options["path"] = str(local.resolve())
        else:
            options.update(path=str(local.resolve().parent), data_files={self.split: local.name})
        try:
            return datasets.load_dataset(**options)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            knob, accepted = "id", "a dataset that can be loaded"
            if self.subset and "BuilderConfig" in reason:
                knob, accepted = "subset", "a subset of the dataset"
            elif "Unknown split" in reason or "Unrecognized instruction" in reason:
                knob, accepted = "split", "a split of the dataset"
            raise Refused(f"data.{knob}", getattr(self, knob), f"{accepted} ({reason})") from error


def _contents(path: Path) -> str:
    """The digest of a file, or of a folder's files and their names in it, which decide the dataset's splits."""
    if path.is_file():
        return content(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest(*(text for file in files for text in (file.relative_to(path).as_posix(), content(file))))
