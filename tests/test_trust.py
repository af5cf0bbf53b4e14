"""What other people's files can make run: records of jobs name no module, and folders of options run no code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tests.builders import refused
from tests.report.writing import FakeStore
from w2sd import cli, worker
from w2sd.config import describe, known_class, read, recorded
from w2sd.errors import Refused
from w2sd.overrides import typed
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.report import cli as report
from w2sd.report import results

OWN = """
from dataclasses import dataclass
from pathlib import Path
from hydra.experimental.callback import Callback

Path("ran").touch()


@dataclass(frozen=True)
class Part:
    VERSION = 1


class Note(Callback):
    def __init__(self, *_, **__):
        Path("ran").touch()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a module that leaves the file `ran` behind when it is imported or asked for more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/strange.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(cli, "failed", [])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it; this puts it back afterwards
    yield tmp_path
    sys.modules.pop("strange", None)


# --- records ----------------------------------------------------------------------------------------------------------

NAMES = [
    "w2sd.__main__.X",
    "w2sd.cli.main",
    "w2sd.worker.X",
    "w2sd.config.os.system",
    "w2sd.config.Settings",
    "w2sd.parts.fit.math.inf",
    "w2sd.parts..fit.Fit",
    "w2sd.parts.",
    "os.system",
    "strange.Part",
    ["w2sd.parts.fit.Fit"],
    None,
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_record_makes_no_module_imported_but_those_of_our_parts(name: Any, here: Path) -> None:
    before = set(sys.modules) | {"w2sd.parts.fit", "w2sd.parts.fit.math"}
    assert known_class({"_target_": name}) is None
    config = {"trusted": ["strange.", "os."], "objective": {"_target_": name, "beta": 1}}
    assert recorded(config)["objective"] == config["objective"]
    assert set(sys.modules) <= before
    assert not (here / "ran").exists()


def test_a_record_that_names_a_module_with_torch_does_not_import_it() -> None:
    program = "import sys; from w2sd.config import known_class\n"
    program += "assert known_class({'_target_': 'w2sd.models.heads.X'}) is None; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_part_of_ours_is_known() -> None:
    assert known_class(describe(Fit())) is Fit


def test_a_report_shows_the_name_of_a_class_that_it_does_not_know(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("w2sd.report.figures.to_png", lambda name, figure: b"")
    store = FakeStore(here / "store")
    for seed, name in enumerate(("w2sd.__main__.Start", "strange.Part", "w2sd.cli.ShowSweep")):
        foreign = {group: {"_target_": name} for group in ("objective", "supervision", "data")}
        store.add(seed=seed, knobs={"trusted": ["strange."], **foreign})
    sys.modules.pop("w2sd.__main__", None)
    assert [*results.load(store.root)["objective"]] == ["Start", "Part", "ShowSweep"]
    assert report.main(["--store", str(store.root), "--out", str(here / "page"), "--by", "objective"]) == 0
    assert "Start" in capsys.readouterr().out
    assert {"w2sd.__main__", "strange"}.isdisjoint(sys.modules)
    assert not (here / "ran").exists()


def test_to_import_the_command_is_not_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", lambda: pytest.fail("it ran"))
    monkeypatch.delitem(sys.modules, "w2sd.__main__", raising=False)
    importlib.import_module("w2sd.__main__")


def test_a_worker_trusts_what_it_is_started_with_and_no_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"kind": "train", "key": "0" * 12, "trains": True, "params": {"data": {"_target_": "strange.Part"}}}
    trainer, logger = describe(Trainer().resolve(has_gpu=False)), {"_target_": "w2sd.logger.Csv"}
    around = {
        "trainer": trainer,
        "logger": logger,
        "origin": {},
        "name": "run",
        "out": str(here),
        "trusted": ["strange."],
    }
    task = here / "spec.json"
    task.write_text(json.dumps({"stage": {**stage, "inputs": {}}, "runtime": around, "store": str(here / "store")}))
    assert worker.main([str(task)]) == 1
    assert capsys.readouterr().out.startswith("@failed data._target_: 'strange.Part' ")
    assert not (here / "ran").exists()


# --- folders of options -----------------------------------------------------------------------------------------------

COPY = "{_target_: shutil.copyfile, src: modules/strange.py, dst: ran}"
NOTE = "{_target_: strange.Note}"
LOG = "{version: 1, root: {handlers: [x]}, handlers: {x: {(): strange.Note}}}"
HANDLER = "{version: 1, root: {handlers: [x]}, handlers: {x: {class: logging.FileHandler, filename: ran}}}"
LATER = "${oc.select:hydra.runtime.output_dir,null}"  # set when Hydra begins the job
MISSING = LOG.replace("{handlers: [x]}", "'???'")
LATE = LOG.replace("{handlers: [x]}", f"'{LATER}'")
FOLDERS = {  # what the experiment says, and the knob that is refused
    "a callback": (f"hydra: {{callbacks: {{x: {COPY}}}}}", "hydra.callbacks.x._target_"),
    "one of a module": (f"hydra: {{callbacks: {{x: {NOTE}}}}}", "hydra.callbacks.x._target_"),
    "our own in another": (
        f"hydra: {{callbacks: {{show_sweep: {{x: {NOTE}}}}}}}",
        "hydra.callbacks.show_sweep.x._target_",
    ),
    "a method of our own": (
        "hydra: {callbacks: {x: {_target_: w2sd.cli.ShowSweep.on_multirun_end}}}",
        "hydra.callbacks.x._target_",
    ),
    "one in a list": (
        f"hydra: {{callbacks: {{show_sweep: {{x: [{NOTE}]}}}}}}",
        "hydra.callbacks.show_sweep.x.0._target_",
    ),
    "one by reference": (f"x: {NOTE}\nhydra: {{callbacks: {{x: '${{x}}'}}}}", "hydra.callbacks.x"),
    "one that is decoded": (
        "hydra: {callbacks: {x: '${oc.decode:\"{_target_: strange.Note}\"}'}}",
        "hydra.callbacks.x",
    ),
    "one that shows later": (
        f"hydra: {{callbacks: {{x: {{_target_: '{LATER}'}}}}}}",
        "hydra.callbacks.x._target_",
    ),
    "all by reference": (f"x: {{y: {NOTE}}}\nhydra: {{callbacks: '${{x}}'}}", "hydra.callbacks"),
    "a launcher": ("hydra: {launcher: {_target_: hydra_plugins.strange.Note}}", "hydra.launcher._target_"),
    "a factory": (f"hydra: {{job_logging: {LOG}}}", "hydra.job_logging"),
    "a factory before the job": (f"hydra: {{hydra_logging: {LOG}}}", "hydra.hydra_logging"),
    "a file for logs": (f"hydra: {{job_logging: {HANDLER}}}", "hydra.job_logging"),
    "a factory by reference": (f"x: {LOG}\nhydra: {{hydra_logging: '${{x}}'}}", "hydra.hydra_logging"),
    "a factory with a root that is missing": (
        f"x: {MISSING}\nhydra: {{hydra_logging: '${{x}}'}}",
        "hydra.hydra_logging",
    ),
    "a factory with a root that shows later": (f"hydra: {{job_logging: {LATE}}}", "hydra.job_logging"),
    "a folder to be in that shows later": (f"hydra: {{job: {{chdir: '{LATER}'}}}}", "hydra.job.chdir"),
    "an environment that shows later": (f"hydra: {{job: {{env_set: {{X: '{LATER}'}}}}}}", "hydra.job.env_set.X"),
    "environments by reference": ("x: {X: y}\nhydra: {job: {env_set: '${x}'}}", "hydra.job.env_set"),
    "a folder for configurations that shows later": (f"hydra: {{output_subdir: '{LATER}'}}", "hydra.output_subdir"),
    "an environment": ("hydra: {job: {env_set: {PYTHONPATH: /tmp}}}", "hydra.job.env_set.PYTHONPATH"),
    "another folder to be in": ("hydra: {job: {chdir: true}, run: {dir: modules}}", "hydra.job.chdir"),
    "a folder for configurations": ("hydra: {output_subdir: modules}", "hydra.output_subdir"),
    "a search path for jobs": (
        "hydra: {sweeper: {params: {hydra.searchpath: '[pkg://strange]'}}}",
        "hydra.sweeper.params",
    ),
    "trust": ("trusted: [strange.]\nsupervision: {_target_: strange.Part}", "trusted"),
    "trust by a reference": ("x: [strange.]\ntrusted: ${x}\nsupervision: {_target_: strange.Part}", "trusted"),
    "code beside weights": ("weak: {_target_: w2sd.models.hub.Hub, trust_remote_code: true}", "weak.trust_remote_code"),
    "the same in other words": (
        "weak: {_target_: w2sd.models.hub.Hub, trust_remote_code: 'yes'}",
        "weak.trust_remote_code",
    ),
}
SWEPT = ("a callback", "a launcher", "a factory before the job", "a search path for jobs", "code beside weights")


def option(text: str, place: str = "mine/experiment/own.yaml") -> None:
    """Write an option of a folder that is not ours."""
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\n{text}\n")


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Refused]:
    """What the command says no to, and exits with 2."""
    refusals: list[Any] = []
    say = cli._say

    def keep(error: Any, cause: Any = None) -> int:
        refusals.append(error)
        return say(error, cause)

    monkeypatch.setattr(cli, "_say", keep)

    def call(*words: str) -> Refused:
        refusals.clear()
        monkeypatch.setattr(sys, "argv", ["w2sd", *words])
        try:
            code = cli.main()
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        assert code == 2
        assert all(isinstance(each, Refused) for each in refusals)
        return refusals[0]  # type: ignore[no-any-return]

    return call


@pytest.mark.parametrize(
    ("case", "how"), [*((case, "--run") for case in FOLDERS), *((case, "-m") for case in FOLDERS if case in SWEPT)]
)
def test_a_folder_of_options_runs_no_code(refusal: Callable[..., Refused], here: Path, case: str, how: str) -> None:
    text, knob = FOLDERS[case]
    option(text)
    before = os.environ.get("PYTHONPATH")
    assert refusal(how, "--config-dir", "mine", "experiment=own", "plan_only=true").knob == knob
    assert not (here / "ran").exists()
    assert (os.environ.get("PYTHONPATH"), os.getcwd()) == (before, str(here))


@pytest.mark.parametrize(
    "flags", [("--info", "all"), ("--info", "config"), ("--cfg", "all"), ("--hydra-help",)], ids=" ".join
)
def test_nor_does_it_where_hydra_shows_something(
    refusal: Callable[..., Refused], here: Path, flags: tuple[str, ...]
) -> None:
    option(f"hydra: {{hydra_logging: {LOG}}}")
    error = refusal(*flags, "--config-dir", "mine", "experiment=own")
    assert error.knob == ("--config-dir" if flags == ("--hydra-help",) else "hydra.hydra_logging")
    assert not (here / "ran").exists()


def test_nor_does_it_where_words_are_completed(
    refusal: Callable[..., Refused], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option(f"hydra: {{hydra_logging: {LOG}}}")
    line = "w2sd experiment=own "
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert refusal("--config-dir", "mine", "-sc", "query=bash").knob == "hydra.hydra_logging"
    assert not (here / "ran").exists()


def test_help_about_hydra_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["w2sd", "--hydra-help"])
    assert cli.main() == 0
    assert "--multirun" in capsys.readouterr().out


@pytest.mark.parametrize("text", [f"hydra: {{job_logging: {LOG}}}", "hydra: {job: {chdir: true}}"])
def test_an_option_that_only_a_job_of_a_sweep_takes_runs_no_code_either(
    refusal: Callable[..., Refused], here: Path, text: str
) -> None:
    option("seed: 1", "mine/experiment/good.yaml")
    option(text)
    error = refusal("-m", "--config-dir", "mine", "experiment=good,own", "plan_only=true")
    assert error.knob.startswith("hydra.job")
    assert not (here / "ran").exists()


def test_what_a_sweep_of_a_folder_trusts_is_refused_with_what_to_type(
    refusal: Callable[..., Refused], here: Path
) -> None:
    option("hydra: {sweeper: {params: {trusted: '[strange.]', supervision._target_: strange.Part}}}")
    error = refusal("-m", "--config-dir", "mine", "experiment=own", "plan_only=true")
    assert (error.knob, error.value, error.nearest) == ("trusted", ["strange."], "trusted=[strange.]")
    assert not (here / "ran").exists()


def test_the_command_line_trusts(
    compose: Callable[..., DictConfig], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose()
    cfg.trusted = ["strange."]
    with refused("trusted", ["strange."], "", "trusted=[strange.]"):
        read(cfg, typed(["seed=1"]))
    assert read(cfg, typed(["trusted=[strange.]"])).settings.trusted == ["strange."]
    option(f"hydra: {{callbacks: {{x: {NOTE}}}}}")
    words = ["--config-dir", "mine", "experiment=own", "trusted=[strange.]", "plan_only=true"]
    monkeypatch.setattr(sys, "argv", ["w2sd", *words])
    assert cli.main() == 0
    assert (here / "ran").exists()


def test_a_folder_may_set_what_is_harmless(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "defaults: [override /hydra/launcher: basic]\nhydra: {sweep: {dir: '${out}'}, sweeper: {params: {seed: '0,1'}}}"
    )
    option(text + "\ntrusted: []")
    monkeypatch.setattr(sys, "argv", ["w2sd", "-m", "--config-dir", "mine", "experiment=own", "plan_only=true"])
    assert cli.main() == 0


# --- files outside ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("experiment=../../outside",),
        ("-m", "experiment=../../outside,demo"),
        ("experiment=own",),
        ("--cfg", "job", "experiment=../../outside"),
        ("fit=../../outside",),
    ],
    ids=" ".join,
)
def test_no_option_is_read_from_outside_of_the_folders(
    refusal: Callable[..., Refused], here: Path, words: tuple[str, ...]
) -> None:
    option("seed: 1", "outside.yaml")
    option("defaults: [override /fit: ../../outside]")
    error = refusal("--config-dir", "mine", *words, "plan_only=true")
    group = "fit" if words[0] in ("experiment=own", "fit=../../outside") else "experiment"
    assert (error.knob, error.value) == ("config", f"{group}/../../outside")


@pytest.mark.parametrize("word", ["../../outside", "/../outside", "../link/outside", "linked"])
def test_no_list_of_defaults_leads_out_of_the_folders(refusal: Callable[..., Refused], here: Path, word: str) -> None:
    option("seed: 1", "outside.yaml")
    option(f"defaults: ['{word}@_global_']")
    (here / "mine/link").symlink_to(here)
    (here / "mine/experiment/linked.yaml").symlink_to(here / "outside.yaml")
    error = refusal("--config-dir", "mine", "experiment=own", "plan_only=true")
    assert (error.knob, error.value) == ("config", word[1:] if word.startswith("/") else f"experiment/{word}")


def test_a_list_of_defaults_may_lead_to_another_group(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    option("defaults: ['../others/seed@_global_']")
    option("seed: 1", "mine/others/seed.yaml")
    monkeypatch.setattr(sys, "argv", ["w2sd", "--config-dir", "mine", "experiment=own", "plan_only=true"])
    assert cli.main() == 0


@pytest.mark.parametrize(
    "text",
    [b"name: \xff", b"x: " + 3000 * b"[" + 3000 * b"]", b"defaults: [/experiment/own]"],
    ids=["not UTF-8", "nested", "its own default"],
)
def test_an_option_that_cannot_be_read_is_refused_in_one_line(
    refusal: Callable[..., Refused], here: Path, text: bytes
) -> None:
    option("")
    (here / "mine/experiment/own.yaml").write_bytes(text)
    assert refusal("--config-dir", "mine", "experiment=own", "plan_only=true").knob == "config"


@pytest.mark.parametrize("flag", ["--config-name", "--config-path", "--experimental-rerun"])
def test_another_root_of_the_configuration_is_refused(refusal: Callable[..., Refused], flag: str) -> None:
    error = refusal(flag, "mine")
    assert (error.knob, error.value) == (flag, "mine")


@pytest.mark.parametrize("flags", [(), ("-m",), ("--info", "searchpath"), ("--info", "defaults"), ("--hydra-help",)])
def test_another_search_path_is_refused(refusal: Callable[..., Refused], here: Path, flags: tuple[str, ...]) -> None:
    assert refusal(*flags, "hydra.searchpath=[pkg://strange]").knob == "hydra.searchpath"
    assert not (here / "ran").exists()
