"""`w2sd`: compose the configuration, plan the stages, compute what is missing, show the result.

The task returns one float (PGR, where there is one), which is what a Hydra sweeper optimises.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import shlex
import sys
import textwrap
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from w2sd.compose import composed_once
from w2sd.config import GROUPS, OPTIONAL, RunConfig, oracles, read
from w2sd.errors import Refused, StageFailed, nearest
from w2sd.pipeline.launch import launch, survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.progress import show_plan
from w2sd.pipeline.store import Store, read_json

HERE = Path(__file__).parent
CONF = next(place for place in (HERE / "conf", HERE.parents[1] / "conf") if place.is_dir())  # in a wheel, in a checkout

HELP = """\
w2sd: a test bench for weak-to-strong generalisation and deception.

  w2sd -m experiment=demo                            the main job, on the embedded world
  w2sd plan_only=true model@weak=world_xs            what would be computed, and what is found in the store
  w2sd -m seed=0,1,2 model@weak=world_xs,world_s     a sweep: the same command with -m; shared stages are made once
  w2sd-report                                        everything in the store, with intervals

Parts and their options, as GROUP=OPTION (a model has two places: model@weak=... model@strong=...):

{options}

Values, as KEY=VALUE, with their defaults; those of a part too, as in fit.lr=1e-3 (all of them: w2sd --cfg job):

{values}

Your own options: --config-dir FOLDER. Tab completion: eval "$(w2sd -sc install=bash)". Hydra's: w2sd --hydra-help"""

RESULTS = ("compare", "simulate")  # kinds of stages that a job ends with; they ask no model

made: set[str] = set()  # keys that this process computed: a sweep renews a forced stage once
failed: list[int] = []  # exit codes of the jobs of this process's sweep that did not finish


def main() -> int:
    """The console script. Exit code 0: done; 1: a stage failed; 2: refused before anything was computed."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(show_help())
        return 0
    made.clear()
    failed.clear()
    # Read when torch is loaded, here or in a worker. By default OpenMP's threads spin while they wait for each other;
    # beside other work they spin away the time of the one they wait for, and a step takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come up to here, where they become one line
    try:
        with composed_once():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except (Refused, StageFailed) as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(_translate(error), error)
    except (
        ValueError,
        AttributeError,
        TypeError,
    ) as error:  # Hydra's own for an override that is no option, such as fit=null
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        if not frame.f_globals["__name__"].startswith(("hydra.", "omegaconf.")):
            raise
        return _say(Refused("command line", shlex.join(sys.argv[1:]), str(error)), error)
    except yaml.YAMLError as error:
        return _say(Refused("config", " ".join(str(error).split()), "YAML that can be read"), error)
    return max(failed, default=0)


def show_help() -> str:
    """Examples, parts with their options, and the top-level values, read from `conf/` itself."""
    options = {
        folder.name: ", ".join(_options(folder))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }
    values = (CONF / "config.yaml").read_text().partition("\n\n")[2].partition("\n\nhydra:")[0]
    lines = (
        textwrap.fill(names, 116, initial_indent=f"  {group:<12} ", subsequent_indent=" " * 15)
        for group, names in options.items()
    )
    return HELP.format(options="\n".join(lines), values=values)


def _options(folder: Path) -> list[str]:
    """What can be chosen from a folder of `conf/`, and from those below it as `paper/simpo_cai`."""
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def run(cfg: DictConfig) -> float:
    """One job. In a sweep, one that is refused or fails ends itself and not the sweep."""
    try:
        try:
            return _run(cfg)
        except OSError as error:  # a store that cannot be written, a full disk
            raise StageFailed(f"{error.filename or 'file system'}: {error.strerror or error}") from error
    except (Refused, StageFailed) as error:
        here = HydraConfig.get()
        if here.mode == RunMode.MULTIRUN and not here.launcher._target_.endswith("BasicLauncher"):
            raise  # the job runs in a process that is not ours: its launcher carries the failure back
        if here.mode == RunMode.MULTIRUN:
            failed.append(_say(error))
            return math.nan
        sys.exit(_say(error))


def _run(cfg: DictConfig) -> float:
    asked = read(cfg)
    store = Store(asked.settings.store)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        print(f"[w2sd] job {HydraConfig.get().job.num}: {' '.join(HydraConfig.get().overrides.task)}", file=sys.stderr)
    stages = plan(asked)
    states = survey(stages, store, asked.settings.force, made)
    if asked.settings.plan_only:
        print(show_plan(stages, states))
        return math.nan
    if any(state == "to do" and stages[name].kind not in RESULTS for name, state in states.items()):
        _check_inputs(asked)
    if "to do" in states.values():
        launch(stages, states, asked, store, made)
        made.update(stages[name].key for name, state in states.items() if state == "to do")
    else:
        print("[w2sd] every stage was found in the store; nothing to compute", file=sys.stderr)
    return _conclude(asked, cfg, stages, states, store)


def _check_inputs(asked: RunConfig) -> None:
    """Refuse data that the models could not read, before the store is touched."""
    preflight = importlib.import_module("w2sd.stages.preflight")  # by name: this is where torch comes in
    preflight.check(asked)


def _conclude(asked: RunConfig, cfg: DictConfig, stages: Plan, states: dict[str, str], store: Store) -> float:
    """Record the job, log its summary, show the table and write the page."""
    compare = [*stages.values()][-1]
    metrics = read_json(store.find(compare.key) / "metrics.json")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    if asked.theory is not None:  # whose job has no models or data
        config = {key: value for key, value in config.items() if key not in GROUPS or key in ("trainer", "logger")}
    here = HydraConfig.get()
    sweep = str(Path(here.sweep.dir).absolute()) if here.mode == RunMode.MULTIRUN else None
    job: dict[str, Any] = {
        "id": f"{asked.settings.name}-{compare.key}",
        "name": asked.settings.name,
        "compare": compare.key,
        "stages": {name: {"kind": stage.kind, "key": stage.key} for name, stage in stages.items()},
        "config": config,
        "oracles": [] if asked.theory is not None else oracles(asked),
        "choices": {place.rpartition("@")[2]: option for place, option in here.runtime.choices.items() if option},
        "overrides": list(here.overrides.task),
        "command": shlex.join(["w2sd", *sys.argv[1:]]),
        "sweep": sweep,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    seen = (store.root / "jobs" / f"{job['id']}.json").exists()
    store.record(job)
    if "to do" in states.values() or not seen:
        from w2sd.logger import RunName

        name = RunName(
            job["name"],
            "summary",
            compare.key,
            Path(asked.settings.out).expanduser() / "logs" / f"job-{compare.key}",
            job,
        )
        asked.logger.summarise(name, metrics)

    if sweep is None:  # a sweep is shown as a whole, at its end
        show(store.root, Path(asked.settings.out).expanduser(), job=job["id"])
    return math.nan if metrics.get("pgr") is None else float(metrics["pgr"])


def show(store: Path, out: Path, *, job: str | None = None, sweep: str | None = None) -> None:
    """Print the tables of a job or of a sweep, and write its page."""
    from w2sd.report import results
    from w2sd.report.cli import present

    of: Any = {"sweep": sweep, "jobs": None if job is None else [job]}
    frame, simulated = (results.load(store, kind=kind, **of) for kind in RESULTS)
    if len(frame) or len(simulated):
        present(frame, store, out, simulated=simulated)


class ShowSweep(Callback):
    """Hydra's word that a sweep has ended, heard in the process that launched it, wherever its jobs ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        sweep = str(Path(config.hydra.sweep.dir).absolute())
        try:
            show(Store(config.store).root, Path(config.out).expanduser(), sweep=sweep)
        except Exception as error:  # of which Hydra would make a warning, and the exit code 0
            said = error if isinstance(error, Refused | StageFailed) else StageFailed(f"report: {error!r}")
            failed.append(_say(said, error))


def _say(error: Refused | StageFailed, cause: BaseException | None = None) -> int:
    if {"traceback=true", "debug=traceback"} & {word.lower() for word in sys.argv}:
        traceback.print_exception(cause or error)
    print(f"w2sd: {error}", file=sys.stderr)
    return 2 if isinstance(error, Refused) else 1


def _translate(error: HydraException | OmegaConfBaseException) -> Refused:
    """Hydra's words for a typo, in ours."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).partition("/")
        if group == "hydra":
            inner, _, option = option.rpartition("/")
            group = f"{group}/{inner}"
        known = sorted({*error.options, *_options(CONF / group)})  # Hydra's list ends at subfolders
        return Refused(group, option, "one of " + ", ".join(known), nearest=nearest(option, known))
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1].split("@")[0] if "=" not in found[1] else found[1])
    if found := re.search(r"full_key: (\S+)", text):
        return Refused(found[1], "", text.splitlines()[0])
    return Refused("command line", shlex.join(sys.argv[1:]), text.splitlines()[0])


def _unknown_key(knob: str) -> Refused:
    """A key that does not exist, with its neighbours."""
    value = next((word.partition("=")[2] for word in sys.argv[1:] if word.lstrip("+~").startswith(f"{knob}=")), "")
    part = knob.partition(".")[0]
    if any(re.match(rf"{part}=.*,", word) for word in sys.argv[1:]) and value and "." in knob:
        # Hydra first composes without what is swept, where this part is still the default one.
        return Refused(knob, value, f"a sweep as well, because {part} is one: '{knob}=choice({value})'")
    if knob == "model":
        return Refused(knob, value, "a place for it: model@weak=... or model@strong=...")
    known: Any = {}
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [word for word in sys.argv[1:] if "=" in word and re.match(r"[a-z]+(@[a-z.]+)?=", word)]
        if "--config-dir" in sys.argv[:-1]:
            place = Path(sys.argv[sys.argv.index("--config-dir") + 1]).absolute()
            groups.append(f"hydra.searchpath=[file://{place}]")
        try:
            known = OmegaConf.to_container(
                hydra.compose("config", [word for word in groups if not word.startswith(f"{knob}=")])
            )
        except (HydraException, OmegaConfBaseException):
            known = OmegaConf.to_container(hydra.compose("config"))
    *parents, key = knob.split(".")
    for parent in parents:
        known = known.get(parent) if isinstance(known, dict) else None
    if known is None and part in OPTIONAL:
        return Refused(knob, value, f"a value of {part} only where there is one: choose it with {part}=OPTION")
    if not isinstance(known, dict):
        return Refused(knob, value, f"nothing below {'.'.join(parents)}, which is a value and not a part")
    names = [name for name in known if name != "_target_"]
    return Refused(knob, value, "one of the keys " + ", ".join(names), nearest=nearest(key, names))
