"""What the command line sets and what a folder of options may set; Hydra's errors about them, as one line."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from w2sd.errors import Refused, nearest, require

# What Hydra may make an instance of without `trusted`: our callback, and those of its plugins that run nothing else.
RUN_BY_HYDRA = (
    "w2sd.cli.ShowSweep",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
)
OWN = "command-line"  # Hydra's name for the folder of --config-dir
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


def typed(words: list[str]) -> dict[str, Any]:
    """Return what the command line sets, by key; a sweep over several values sets none."""
    overrides = OverridesParser.create().parse_overrides(words)
    return {each.key_or_group: each.value() for each in overrides if not each.is_sweep_override()}


class Inside(ConfigRepository):
    """Loads options that lie inside of the folders they are looked for in, and no others."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load an option, unless `..` or a link of a folder that is not ours leads out."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None:
            place = os.path.realpath if source.provider == OWN else os.path.abspath  # installers may link our own files
            folder = Path(place(source.path))
            is_inside = Path(place(folder / f"{config_path.removesuffix('.yaml')}.yaml")).is_relative_to(folder)
            require(is_inside, "config", config_path, "an option inside conf/ or the folder of --config-dir")
        return super().load_config(config_path)


class Composer(ConfigLoaderImpl):
    """Composes every configuration as Hydra does; refuses what would load other files, or run code that nobody typed.

    `folder` holds somebody's options beside ours; `given` is what the command line sets.
    """

    def __init__(self, search_path: ConfigSearchPath, folder: str | None, given: Mapping[str, Any]) -> None:
        if folder is not None:  # where Hydra puts it
            place = f"file://{os.path.abspath(folder)}"
            search_path.prepend(OWN, place, SearchPathQuery(provider="schema"))
        super().__init__(search_path)
        self.repository = Inside(search_path)
        self.given = given
        self.all_is_ours = folder is None

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose, before Hydra makes callbacks, launchers and loggers of the result; each job of a sweep as well."""
        try:
            config = super().load_configuration(*args, **kwargs)
        except (UnicodeDecodeError, RecursionError) as error:
            raise Refused("config", str(error), "YAML in UTF-8, not nested without end") from error
        if not self.all_is_ours:
            # A reference may have another value later, when Hydra has set more of the configuration: none is resolved.
            self._check(OmegaConf.to_container(config.hydra, resolve=False))
        return config

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        for each in parsed_overrides:
            require(each.key_or_group != "hydra.searchpath", each.key_or_group, each.value(), "--config-dir FOLDER")

    def _check(self, hydra: Any) -> None:
        """Refuse what Hydra itself would run, or change of this process, that the command line does not set."""
        trusted = prefixes if isinstance(prefixes := self.given.get("trusted"), list) else []
        for part in ("callbacks", "launcher", "sweeper", "hydra_logging", "job_logging"):
            require(isinstance(hydra[part], dict), f"hydra.{part}", hydra[part], "values, and no reference to them")
        for part in ("callbacks", "launcher", "sweeper"):
            for knob, target in _targets(f"hydra.{part}", hydra[part]):
                accepted = f"one of {', '.join(RUN_BY_HYDRA)}, or what the command line trusts: trusted=[PREFIX]"
                require(target in RUN_BY_HYDRA or str(target).startswith((*map(str, trusted),)), knob, target, accepted)
        for part in ("hydra_logging", "job_logging"):
            accepted = f"hydra/{part}=none where there is a --config-dir"
            require(hydra[part].get("root", "") is None, f"hydra.{part}", hydra[part], accepted)
        for knob in hydra["sweeper"].get("params") or ():
            own = not str(knob).lstrip("+~").startswith("hydra")
            require(own, "hydra.sweeper.params", knob, "knobs of w2sd; those of Hydra belong on the command line")
        chdir, variables = hydra["job"]["chdir"], hydra["job"]["env_set"]
        values = {"job.env_set": variables, "job.chdir": chdir, "output_subdir": hydra["output_subdir"]}
        if isinstance(variables, dict):
            values |= {"job.env_set": None, **{f"job.env_set.{name}": value for name, value in variables.items()}}
        for name, value in values.items():
            is_typed = value in (None, False) or f"hydra.{name}" in self.given
            require(is_typed, f"hydra.{name}", value, "what the command line sets")


def _targets(knob: str, node: Any) -> Iterator[tuple[str, Any]]:
    """List every `_target_` in a node, at any depth, and every reference, which may stand for one, with its knob."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in below:
        if name == "_target_":
            yield f"{knob}._target_", value
        yield from _targets(f"{knob}.{name}", value)
    if isinstance(node, str) and node.startswith("${") and node.endswith("}"):
        yield knob, node


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
