"""`w2sd`: compose the configuration, plan the stages, compute what is missing, show the result.

The task returns one float (PGR), which is what a Hydra sweeper optimises.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import shlex
import sys
import textwrap
import traceback
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from w2sd import __version__
from w2sd.atomic import read_json
from w2sd.config import CONF, RunConfig, oracles, read, takes
from w2sd.data import pairs
from w2sd.errors import Refused, StageFailed, require
from w2sd.overrides import Composer, options, parse, refusal, typed
from w2sd.parts.trainer import AUTO
from w2sd.pipeline.checks import at_hand, check_installed, check_nodes, check_rows
from w2sd.pipeline.launch import launch, survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.progress import show_plan, show_replaced
from w2sd.pipeline.store import Store, is_full, no_room, require_writable, unwritable
from w2sd.signals import SIGNAL_NAMES, end_with, exit_on_closed_pipe, exit_on_signals
from w2sd.worker import execute

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


made: set[str] = set()  # keys that this process computed: a sweep renews a forced stage once
failed: list[int] = []  # exit codes of the jobs of this process's sweep that did not finish


@exit_on_closed_pipe()
def main() -> int:
    """Exit code 0: done; 1: a stage failed; 2: refused before anything was computed; 143: SIGTERM; 130: Ctrl-C."""
    made.clear()
    failed.clear()
    # Read when torch is loaded, here or in a worker. By default OpenMP's threads spin while they wait for each other;
    # beside other work they spin away the time of the one they wait for, and a step takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come up to here, where they become one line
    try:
        with exit_on_signals():
            if answer := _answer(sys.argv[1:]):
                print(answer)
            else:
                _start(parse(sys.argv[1:]))
    except SystemExit as end:
        if name := SIGNAL_NAMES.get(end.code):  # type: ignore[arg-type]  # of no other code
            print(f"w2sd: ended by {name}; the same command goes on from its last checkpoint", file=sys.stderr)
        raise
    except (Refused, StageFailed) as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(refusal(error, CONF), error)
    except (ValueError, AttributeError, TypeError) as error:  # Hydra's own for what is no option, such as fit=null
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        if not frame.f_globals["__name__"].startswith(("hydra.", "omegaconf.")):
            raise
        return _say(refusal(error, CONF), error)
    except BrokenPipeError:
        raise
    except OSError as error:  # the folder that Hydra makes for a sweep; those of a job are dealt with there
        within_reach = f"a folder or file within reach ({error.strerror or error})"
        return _say(Refused("command line", error.filename, within_reach), error)
    except yaml.YAMLError as error:
        return _say(Refused("config", " ".join(str(error).split()), "YAML that can be read"), error)
    return max(failed, default=0)


def _answer(words: list[str]) -> str | None:
    """Return what is printed in place of a run where the command line asks for help or the like; None otherwise."""
    if "--version" in words:
        return f"w2sd {__version__}"
    flags = parse(words)
    for flag in ("config_path", "config_name", "experimental_rerun"):  # another root, or a pickle
        value = getattr(flags, flag)
        require(value is None, f"--{flag.replace('_', '-')}", value, "--config-dir FOLDER for options of your own")
    own = [Path(flags.config_dir)] if flags.config_dir else []
    require(all(folder.is_dir() for folder in own), "--config-dir", flags.config_dir, "a folder that exists")
    if flags.help:
        return show_help(*own)
    if flags.shell_completion and "install=bash" in flags.overrides:
        print("COMP_WORDBREAKS=${COMP_WORDBREAKS//@}")  # or bash would end a word at the @ of model@weak=
    line = os.environ.get("COMP_LINE", "") if flags.shell_completion else ""
    if match := re.search(r"(?:^| )(\+?(\w+)@[\w.]+=)\S*$", line):  # a group in a place, in which Hydra finds nothing
        return " ".join(f"{match[1]}{option}" for option in options(*(folder / match[2] for folder in (CONF, *own))))
    return None


def _start(flags: Namespace) -> None:
    """Run the jobs that are asked for, or show what Hydra knows of them; all of it is composed by the `Composer`."""
    actions = ("run", "multirun", "cfg", "info", "hydra_help", "shell_completion")
    is_one = sum(bool(getattr(flags, action)) for action in actions) <= 1 and (flags.cfg or not flags.resolve)
    accepted = "one of --run, -m, --cfg, --info, --hydra-help and -sc; --resolve with --cfg only"
    require(is_one, "command line", shlex.join(sys.argv[1:]), accepted)
    is_own = (
        flags.hydra_help and flags.config_dir
    )  # that help is composed without conf/config.yaml: nothing to check by
    require(not is_own, "--config-dir", flags.config_dir, "no folder with --hydra-help")
    given = typed(flags.overrides)
    with hydra.initialize_config_dir(str(CONF), job_name="w2sd", version_base="1.3"):
        app = GlobalHydra.instance().hydra
        assert app is not None
        app.config_loader = Composer(app.config_loader.get_search_path(), flags.config_dir, given)
        if flags.hydra_help:
            app.hydra_help("config", get_args_parser(), flags)
            return
        if flags.info:
            app.show_info(flags.info, "config", flags.overrides)
            return
        if flags.shell_completion:
            app.shell_completion("config", flags.overrides)
            return
        if flags.cfg:
            app.show_cfg("config", flags.overrides, flags.cfg, flags.package, flags.resolve)
            return
        is_sweep = flags.multirun or given.get("hydra.mode") == "MULTIRUN"
        words = [*flags.overrides, f"hydra.mode={'MULTIRUN' if is_sweep else 'RUN'}"]
        task = partial(run, given=given if flags.config_dir else None)
        (app.multirun if is_sweep else app.run)(config_name="config", task_function=task, overrides=words)


def show_help(*own: Path) -> str:
    """Return examples, parts with their options, and the top-level values, read from `conf/` and your own folders."""
    folders = [folder for conf in (CONF, *own) for folder in conf.iterdir() if folder.is_dir()]
    groups = {
        name: ", ".join(options(*(folder for folder in folders if folder.name == name)))
        for name in sorted({folder.name for folder in folders} - {"hydra"})
    }
    values = (CONF / "config.yaml").read_text().partition("\n\n")[2].partition("\n\nhydra:")[0]
    lines = (
        textwrap.fill(names, 116, initial_indent=f"  {group:<12} ", subsequent_indent=" " * 15)
        for group, names in groups.items()
    )
    return HELP.format(options="\n".join(lines), values=values)


def run(cfg: DictConfig, given: Mapping[str, Any] | None = None) -> float:
    """One job. In a sweep, one that is refused or fails ends itself and not the sweep.

    `given` is what the command line sets where the rest may come from a folder of options.
    """
    if (parent := multiprocessing.parent_process()) is not None:  # a launcher that runs several jobs at a time
        end_with(os.getppid(), parent.sentinel)  # which a server of forks may stand between
    try:
        try:
            return _run(cfg, given)
        except BrokenPipeError:
            raise
        except Exception as error:
            if is_full(error):
                raise no_room(cfg.store) from error
            if isinstance(error, OSError):  # a store that cannot be written
                raise StageFailed(f"{error.filename or 'file system'}: {error.strerror or error}") from error
            raise
    except (Refused, StageFailed) as error:
        here = HydraConfig.get()
        if here.mode == RunMode.MULTIRUN and not here.launcher._target_.endswith("BasicLauncher"):
            raise  # the job runs in a process that is not ours: its launcher carries the failure back
        is_of_all = isinstance(error, Refused) and error.knob == "jobs"  # every other job would say the same
        if here.mode == RunMode.MULTIRUN and not is_of_all:
            failed.append(_say(error))
            return math.nan
        sys.exit(_say(error))


def _run(cfg: DictConfig, given: Mapping[str, Any] | None) -> float:
    jobs, is_sweep = str(cfg.jobs), HydraConfig.get().mode == RunMode.MULTIRUN
    if not is_sweep:
        _refuse_part_of_sweep()
    require(is_sweep or takes(jobs, 0), "jobs", jobs, "0/1 without -m, where there is one job")
    if is_sweep and not takes(jobs, HydraConfig.get().job.num):
        print(f"[w2sd] job {HydraConfig.get().job.num}: not of the share jobs={jobs}", file=sys.stderr)
        return math.nan  # whatever may be wrong with it: another share is to say so
    config = read(cfg, given)
    store = Store(config.settings.store)
    if is_sweep:
        print(f"[w2sd] job {HydraConfig.get().job.num}: {' '.join(HydraConfig.get().overrides.task)}", file=sys.stderr)
    stages = plan(config)
    if not config.settings.plan_only:
        store.sweep()
    states = survey(stages, store, config.settings.force, made)
    is_complete = "to do" not in states.values()
    is_at_hand = at_hand(config.data)
    asks_models = any(state == "to do" and stages[name].asks_model for name, state in states.items())
    if asks_models:
        check_nodes(config.trainer)
        check_installed(config)
    if asks_models and (is_at_hand or not config.settings.plan_only):
        check_rows(config, pairs.read(config.data))
    if config.settings.plan_only:
        with exit_on_closed_pipe():  # here already: Hydra announces every other error of a job
            print(show_plan(stages, states))
            if asks_models and not is_at_hand:
                print("Rows were not read: whether there are enough of them is checked when the run starts")
        return math.nan
    is_read_only = is_complete and unwritable(config.settings.store) is not None
    for knob in ("out",) if is_read_only else ("store", "out"):
        require_writable(knob, getattr(config.settings, knob))
    job = f"{config.settings.name}-{stages['compare'].key}"
    is_new = not is_complete or not (store.root / "jobs" / f"{job}.json").exists()
    if is_new:
        config.logger.check()
    if asks_models:
        _check_inputs(config)
    if not is_complete:
        launch(stages, states, config, store, execute, made)
        made.update(stages[name].key for name, state in states.items() if state == "to do")
    else:
        print("[w2sd] every stage was found in the store; nothing to compute", file=sys.stderr)
    return _conclude(config, cfg, stages, store, job, is_new, is_read_only)


def _refuse_part_of_sweep() -> None:
    """Refuse to run an experiment that is a sweep as one job, unless every key that it sweeps has a value."""
    here = HydraConfig.get()
    given = {word.lstrip("+~").partition("=")[0] for word in here.overrides.task}
    missing = [key for key in here.sweeper.get("params") or () if key not in given]
    if missing:
        words = shlex.join(sys.argv[1:])
        accepted = f"-m before it all for the sweep, or a value for each of {', '.join(missing)}"
        raise Refused("command line", words, accepted, nearest=f"w2sd -m {words}")


def _check_inputs(config: RunConfig) -> None:
    """Refuse devices that are not there, and data that the models could not read, before the store is touched."""
    from w2sd.stages import preflight  # this is where torch comes in

    preflight.check(config)
    if config.trainer.accelerator == AUTO:
        print(f"[w2sd] trainer.accelerator=auto: {preflight.device(config.trainer)}", file=sys.stderr)


def _conclude(
    config: RunConfig, cfg: DictConfig, stages: Plan, store: Store, name: str, is_new: bool, is_read_only: bool
) -> float:
    """Record the job where that can be, log its summary if that is new, show the table and write the page."""
    compare = stages["compare"]
    folder = store.find(compare.key)
    metrics = read_json(folder / "metrics.json")
    here = HydraConfig.get()
    sweep = str(Path(here.sweep.dir).absolute()) if here.mode == RunMode.MULTIRUN else None
    job: dict[str, Any] = {
        "id": name,
        "name": config.settings.name,
        "compare": compare.key,
        "stages": {name: {"kind": stage.kind, "key": stage.key} for name, stage in stages.items()},
        "config": OmegaConf.to_container(cfg, resolve=True),
        "oracles": oracles(config),
        "choices": {place.rpartition("@")[2]: option for place, option in here.runtime.choices.items() if option},
        "overrides": list(here.overrides.task),
        "command": shlex.join(["w2sd", *sys.argv[1:]]),
        "sweep": sweep,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if is_read_only:
        print(f"[w2sd] {store.root} can only be read: this job is not recorded there", file=sys.stderr)
    elif (old := store.record(job)) is not None:
        from w2sd.report.knobs import RUNTIME

        if line := show_replaced(job, old, [*RUNTIME, "debug", "hydra"]):
            print(f"[w2sd] {line}", file=sys.stderr)
    if is_new:
        from w2sd.logger import RunName

        logs = Path(config.settings.out).expanduser() / "logs" / f"job-{compare.key}"
        run = RunName(job["name"], "summary", compare.key, logs, job)
        config.logger.summarise(run, metrics, read_json(folder / "diagnostics.json"))

    if sweep is None:  # a sweep is shown as a whole, at its end
        show(store.root, Path(config.settings.out).expanduser(), job=job["id"])
    return math.nan if metrics["pgr"] is None else float(metrics["pgr"])


def show(store: Path, out: Path, *, job: str | None = None, sweep: str | None = None) -> None:
    """Print the tables of a job or of a sweep, and write its page."""
    from w2sd.report import results
    from w2sd.report.cli import present

    frame = results.load(store, sweep=sweep, jobs=None if job is None else [job])
    if len(frame):
        present(frame, store, out)


class ShowSweep(Callback):
    """Hydra's word that a sweep has ended, heard in the process that launched it, wherever its jobs ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        sweep = str(Path(config.hydra.sweep.dir).absolute())
        try:
            show(Store(config.store).root, Path(config.out).expanduser(), sweep=sweep)
        except Exception as error:  # Hydra would turn it into a warning and exit with 0
            failure = error if isinstance(error, Refused | StageFailed) else StageFailed(f"report: {error!r}")
            failed.append(_say(failure, error))


def _say(error: Refused | StageFailed, cause: BaseException | None = None) -> int:
    if {"traceback=true", "debug=traceback"} & {word.lower() for word in sys.argv}:
        traceback.print_exception(cause or error)
    print(f"w2sd: {error}", file=sys.stderr)
    return 2 if isinstance(error, Refused) else 1
