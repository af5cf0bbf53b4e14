"""How w2sd says no: one line that names the knob, the value, what is accepted and the nearest match."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn


class Refused(Exception):
    """A request that cannot be carried out as written. Nothing was computed; the process exits with 2."""

    def __init__(self, knob: str, value: object, accepted: str, nearest: str | None = None) -> None:
        super().__init__(knob, value, accepted, nearest)  # as arguments, so that it survives a trip between processes
        self.knob, self.value, self.accepted, self.nearest = knob, value, accepted, nearest

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        message = f"{self.knob}: {_show(self.value)} is not accepted; expected {self.accepted}{hint}"
        return " ".join(message.splitlines())  # whatever a key or a library's reason holds

    def under(self, prefix: str) -> Refused:
        """The same refusal with the knob named from the root of the configuration."""
        knob = f"{prefix}.{self.knob}" if self.knob else prefix
        return Refused(knob, self.value, self.accepted, nearest=self.nearest)


class Flags(argparse.ArgumentParser):
    """The flags of a command. What cannot be read of them is one line and exit code 2, with the nearest flag."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """What argparse does, but unknown flags are told before those that are missing: the one may be the other."""
        words, known = list(sys.argv[1:] if args is None else args), self._known()
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if not any(name.startswith(flag) for name in known):
                meant = nearest(flag[2:], [name[2:] for name in known])
                self.error(str(Refused("flags", flag, "one of " + ", ".join(known), meant and f"--{meant}")))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a word that is none of the choices, and name the nearest."""
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            self.error(str(Refused(action.dest, value, "one of " + ", ".join(known), nearest(value, known))))

    def _known(self) -> list[str]:
        """Its long flags, and those of the commands below it."""
        below = [
            parser for action in self._actions if isinstance(action.choices, dict) for parser in action.choices.values()
        ]
        names = [name for parser in (self, *below) for name in parser._option_string_actions]
        return sorted({name for name in names if name.startswith("--")})


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
    word = str(value).casefold()
    words = {each.casefold(): each for each in known}
    cutoff = 0.7 if len(word) > 4 else 0.6  # two letters that changed places are much of a short word
    close = difflib.get_close_matches(word, words, n=1, cutoff=cutoff) if any(map(str.isalpha, word)) else []
    return words[close[0]] if close else None


def _show(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
