"""Errors of Hydra about flags and overrides, as one line: the knob, the value, what is accepted, the nearest word."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from w2sd.errors import Refused, nearest

QUOTED = """KEY=VALUE, and quotes inside the shell's round what has any of []{}(),:= in it: 'KEY="{VALUE}"'"""


def options(*folders: Path) -> list[str]:
    """List what can be chosen from a group in `conf/` or in your own folder; below it too, as `paper/simpo_cai`."""
    files = {file.relative_to(folder).with_suffix("") for folder in folders for file in folder.rglob("*.yaml")}
    return sorted(name.as_posix() for name in files)


def parse(words: list[str]) -> argparse.Namespace:
    """Read flags and overrides as Hydra does; what it cannot read is refused in one line."""

    def refuse(message: str) -> NoReturn:
        word = message.removeprefix("unrecognized arguments: ")
        raise Refused("command line", word, "KEY=VALUE, and flags such as -m before all of them (w2sd --hydra-help)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(words)


def refusal(error: Exception, conf: Path) -> Refused:
    """Return the refusal that stands for an error of Hydra; `conf` holds the groups of options."""
    message = " ".join(str(error).splitlines()[:2]) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).partition("/")
        known = sorted({*error.options, *options(conf / group)})  # Hydra's list ends at subfolders
        return Refused(group, option, "one of " + ", ".join(known), nearest=nearest(option, known))
    if isinstance(error, OverrideParseException) and "=" in error.override:
        knob, _, value = error.override.partition("=")
        return Refused(knob, value, QUOTED)
    if match := re.match(r"Ambiguous value for argument '([^=]+)=(.*?)' ", message):
        return Refused(match[1], match[2], f"one value, [{match[2]}] for a list, or -m before it all for a sweep")
    if message.startswith("Config group override must be a string") and (word := _null_word(conf)):
        knob, _, value = word.partition("=")
        known = options(conf / knob.partition("@")[0])
        return Refused(knob, value, "one of " + ", ".join(known), nearest="none" if "none" in known else None)
    match = re.match(r"Could not override '(.+?)'\. To append to your config use \+[^=]+=(.*)", message)
    if match and isinstance(error.__cause__, OmegaConfBaseException):
        return _unknown_key(match[1], match[2], error.__cause__.parent_node)
    return Refused("command line", shlex.join(sys.argv[1:]), f"what Hydra can read ({message})")


def _null_word(conf: Path) -> str | None:
    """The word of the command line that gives a group the option null, which Hydra has only in lists of defaults."""
    words = (word for word in sys.argv[1:] if (conf / re.split("[@=]", word)[0]).is_dir())
    return next((word for word in words if "null" in word.lower().partition("=")[2].split(",")), None)


def _unknown_key(knob: str, value: str, parent: Any) -> Refused:
    """Refuse a key that its parent lacks, and name the nearest of its siblings or the part that has such a key."""
    siblings: Any = OmegaConf.to_container(parent) if isinstance(parent, DictConfig) else {}
    names = [name for name in siblings if name not in ("_target_", "hydra")]
    part, key = knob.split(".")[0], knob.split(".")[-1]
    if not names:
        return Refused(knob, value, f"another option of {part}: the chosen one has no keys there")
    places = sorted(names, key=("weak", "strong").__contains__)  # models last: they repeat names of other parts
    deeper = (f"{name}.{key}" for name in places if isinstance(siblings[name], dict) and key in siblings[name])
    return Refused(knob, value, "one of the keys " + ", ".join(names), next(deeper, None) or nearest(key, names))
