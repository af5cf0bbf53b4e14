"""What Hydra says of a word that it cannot read, in one line of ours: the knob, the value, what is accepted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from w2sd.data.reading import absent
from w2sd.errors import Refused, nearest

MODELS = ("weak", "strong")  # which have knobs of the names of others, and are rarely what was meant
QUOTED = """KEY=VALUE, and quotes inside the shell's round what has any of []{}(),:= in it: 'KEY="{VALUE}"'"""


def options(folder: Path) -> list[str]:
    """What can be chosen from a folder of `conf/`, and from those below it as `paper/simpo_cai`."""
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def refuse_options(words: list[str]) -> None:
    """Refuse what Hydra's parser of options would end the process for, with a page on how to use it."""

    def refuse(complaint: str) -> None:
        unread = complaint.partition("unrecognized arguments: ")[2].split()
        accepted = "values as KEY=VALUE, and options such as -m before all of them (w2sd --hydra-help)"
        key, _, value = unread[0].lstrip("-").partition("=") if unread else ("", "", "")
        meant = f"{key}={value or 'VALUE'}" if unread and unread[0].startswith("--") else None
        raise Refused("command line", unread[0] if unread else complaint, accepted, nearest=meant)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign,assignment]
    parser.parse_args(words)


def translate(error: Exception, conf: Path) -> Refused:
    """The refusal that an error of Hydra's stands for; `conf` is where the groups of options are."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).partition("/")
        if group == "hydra":
            inner, _, option = option.rpartition("/")
            group = f"{group}/{inner}"
        known = sorted({*error.options, *options(conf / group)})  # Hydra's list ends at subfolders
        return Refused(group, option, "one of " + ", ".join(known), nearest=nearest(option, known))
    text = str(error).strip() or type(error).__name__
    own = get_args_parser().parse_args(sys.argv[1:]).config_dir
    if own and not Path(own).is_dir():
        why = absent("--config-dir", str(Path(own).absolute()), "a folder")  # in which Hydra expands no ~ or $NAME
        return Refused(why.knob, own, why.accepted, why.nearest)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], conf)
    if found := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'$", text.splitlines()[0]):
        return Refused(found[1], found[2], f"one value, [{found[2]}] for a list, or -m before it all for a sweep")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return Refused(key, value, QUOTED) if value else Refused("command line", key, "values as KEY=VALUE")
    if found := re.search(r"full_key: (\S+)", text):
        return Refused(found[1], "", text.splitlines()[0])
    empty = next((word for word in sys.argv[1:] if re.fullmatch(r"[+~]*[a-z0-9_@.]+=null", word)), None)
    if empty and "must be a string or a list" in text:
        knob = empty.lstrip("+~").partition("=")[0]
        return Refused(knob, None, f"a part; choose one with {knob}=OPTION")
    return Refused("command line", shlex.join(sys.argv[1:]), text.splitlines()[0])


def _unknown_key(written: str, conf: Path) -> Refused:
    """A key that does not exist, with its neighbours."""
    knob, _, place = written.partition("=")[0].partition("@")
    value = next((word.partition("=")[2] for word in sys.argv[1:] if word.lstrip("+~").startswith(f"{written}=")), "")
    part = knob.partition(".")[0]
    if any(re.match(rf"{part}=.*,", word) for word in sys.argv[1:]) and value and "." in knob:
        # Hydra first composes without what is swept, where this part is still the default one.
        return Refused(knob, value, f"a sweep as well, because {part} is one: '{knob}=choice({value})'")
    if knob == "model":
        is_new = re.fullmatch(r"chain\.between\.[^.]+", place)  # of a chain, which has places of any name
        meant = f"+model@{place}={value}" if is_new else f"{place}={value}" if "." in place else None
        accepted = "a place for it: model@weak=..., model@strong=... or +model@chain.between.NAME=..."
        return Refused(written, value, accepted, nearest=meant)
    known = _compose(written, conf)
    *parents, key = knob.split(".")
    below: Any = known
    for parent in parents:
        below = below.get(parent) if isinstance(below, dict) else None
    if not isinstance(below, dict):
        return Refused(knob, value, f"nothing below {'.'.join(parents)}, which is a value and not a part")
    names = [name for name in below if name != "_target_"]
    if not names:
        return Refused(knob, value, f"no values for this option of {part}; choose another with {part}=OPTION")
    deeper = next(_places(known, key), None) if not parents else None
    return Refused(knob, value, "one of the keys " + ", ".join(names), nearest=deeper or nearest(key, names))


def _places(known: dict[str, Any], key: str) -> Iterator[str]:
    """Where a key is that was written without its part: `lr` is `fit.lr`."""
    for part in sorted(known, key=MODELS.__contains__):
        if isinstance(known[part], dict) and key in known[part]:
            yield f"{part}.{key}"


def _compose(without: str, conf: Path) -> dict[str, Any]:
    """The configuration that was asked for, less one word of it."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        groups = [word for word in sys.argv[1:] if re.match(r"\+*[a-z0-9_]+(@[a-z0-9_.]+)?=", word)]
        if own := get_args_parser().parse_args(sys.argv[1:]).config_dir:
            groups.append(f"hydra.searchpath=[file://{Path(own).absolute()}]")
        wanted = [word for word in groups if not word.lstrip("+").startswith(f"{without}=")]
        try:
            return OmegaConf.to_container(hydra.compose("config", wanted))  # type: ignore[return-value]
        except (HydraException, OmegaConfBaseException):
            return OmegaConf.to_container(hydra.compose("config"))  # type: ignore[return-value]
