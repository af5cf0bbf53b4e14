"""How w2sd says no: one line that names the knob, the value, what is accepted and the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Refused(Exception):
    """A request that cannot be carried out as written. Nothing was computed; the process exits with 2."""

    def __init__(self, knob: str, value: object, accepted: str, nearest: str | None = None) -> None:
        super().__init__(knob, value, accepted, nearest)  # as arguments, so that it survives a trip between processes
        self.knob, self.value, self.accepted, self.nearest = knob, value, accepted, nearest

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        said = f"{self.knob}: {_show(self.value)} is not accepted; expected {self.accepted}{hint}"
        return " ".join(said.splitlines())  # whatever a key or a library's reason holds

    def under(self, prefix: str) -> Refused:
        """The same refusal with the knob named from the root of the configuration."""
        knob = f"{prefix}.{self.knob}" if self.knob else prefix
        return Refused(knob, self.value, self.accepted, nearest=self.nearest)


class StageFailed(Exception):
    """A stage that started and could not finish. What finished before it is kept; the process exits with 1."""


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Name the knobs of refusals in this block from the root: `within("weak")` makes `id` `weak.id`."""
    try:
        yield
    except Refused as refusal:
        raise refusal.under(prefix) from refusal.__cause__


def choose(knob: str, value: str, options: Iterable[str]) -> None:
    """Refuse a value outside `options`, and name the nearest one."""
    known = sorted(options)
    if value not in known:
        raise Refused(knob, value, "one of " + ", ".join(known), nearest=nearest(value, known))


def require(ok: bool, knob: str, value: object, accepted: str) -> None:
    """Refuse `value` unless `ok`."""
    if not ok:
        raise Refused(knob, value, accepted)


def nearest(value: object, known: Iterable[str]) -> str | None:
    """The known word that `value` was probably meant to be, in whatever case: one that shares most of its letters.

    What has no letters is no misspelt word.

    >>> nearest("Trian", ["test", "train"]), nearest("maybe", ["yes", "no"]), nearest(-1, ["0", "1"])
    ('train', None, None)
    """
    said = str(value).casefold()
    words = {word.casefold(): word for word in known}
    close = difflib.get_close_matches(said, words, n=1, cutoff=0.6) if any(map(str.isalpha, said)) else []
    return words[close[0]] if close else None


def _show(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
