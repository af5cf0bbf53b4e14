"""Launching a plan, with stages that only write down what they were given."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import w2sd
from tests.builders import figures_of
from tests.pipeline import slurm
from w2sd import worker
from w2sd.atomic import digest_file, read_json, write_json
from w2sd.config import RunConfig
from w2sd.errors import StageFailed
from w2sd.pipeline import launch as launching
from w2sd.pipeline.graph import Compare, Evaluate, Generate, Label, Pretrain, Train
from w2sd.pipeline.launch import launch, survey
from w2sd.pipeline.plan import Plan
from w2sd.pipeline.progress import StageTable
from w2sd.pipeline.stage import Stage
from w2sd.pipeline.store import Store
from w2sd.predictions import write_predictions

NAMES = ["pretrain/weak", "train/weak", "train/ceiling", "label/weak", "train/student", "compare"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def run(asked: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """The default run, with a report of the test's own."""
    default = asked()
    return default._replace(settings=replace(default.settings, out=str(tmp_path / "report")))


class Kitchen:
    """Every kind of stage, replaced by one that writes its order down, and fails where it is told to."""

    def __init__(self) -> None:
        self.cooked: list[tuple[str, int]] = []  # kind and the parameter x
        self.tasks: list[Any] = []
        self.failing: dict[int, BaseException] = {}

    def run(self, task: Any) -> dict[str, Any]:
        self.cooked.append((task.kind, task.params["x"]))
        self.tasks.append(task)
        task.advance(1, 2)
        if error := self.failing.get(task.params["x"]):
            raise error
        read = {role: json.loads((folder / "dish.json").read_text()) for role, folder in task.inputs.items()}
        (task.out / "dish.json").write_text(json.dumps({"x": task.params["x"], "from": read}))
        task.advance(2, 2)
        return {"n": len(read)}


@pytest.fixture
def kitchen(monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    kitchen = Kitchen()
    for kind in (cls.kind for cls in Stage.__subclasses__()):
        module = types.ModuleType(f"w2sd.stages.{kind}")
        module.run = kitchen.run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return kitchen


def menu() -> Plan:
    """A plan in which the parameter x numbers the stages."""
    base = Pretrain({"x": 0})
    weak = Train({"x": 1}, {"base": base})
    ceiling = Train({"x": 2})
    labels = Label({"x": 3}, {"model": weak})
    student = Train({"x": 4}, {"labels": labels})
    compare = Compare({"x": 5}, {"student": student, "ceiling": ceiling})
    return dict(zip(NAMES, [base, weak, ceiling, labels, student, compare], strict=True))


def go(plan: Plan, run: RunConfig, store: Store, force: list[str] | None = None) -> dict[str, str]:
    run = run._replace(settings=replace(run.settings, force=force or []))
    states = survey(plan, store, run.settings.force)
    launch(plan, states, run, store, worker.execute)
    return states


# --- what is run ------------------------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_run_in_order_from_the_artifacts_of_its_inputs(
    kitchen: Kitchen, run: RunConfig, store: Store
) -> None:
    plan = menu()
    states = go(plan, run, store)
    assert states == dict.fromkeys(NAMES, "to do")
    assert [x for _, x in kitchen.cooked] == [0, 1, 2, 3, 4, 5]
    compared = read_json(store.find(plan["compare"].key) / "dish.json")
    labels = {"x": 3, "from": {"model": {"x": 1, "from": {"base": {"x": 0, "from": {}}}}}}
    student = {"x": 4, "from": {"labels": labels}}
    assert compared == {"x": 5, "from": {"student": student, "ceiling": {"x": 2, "from": {}}}}


def test_an_artifact_says_what_made_it_and_keeps_what_may_differ_apart(
    kitchen: Kitchen, run: RunConfig, store: Store
) -> None:
    plan = menu()
    go(plan, run, store)
    folder = store.find(plan["label/weak"].key)
    assert sorted(path.name for path in folder.iterdir()) == ["dish.json", "metrics.json", "runtime.json", "spec.json"]
    assert read_json(folder / "metrics.json") == {"n": 1}
    spec = read_json(folder / "spec.json")
    assert {name: spec[name] for name in plan["label/weak"].spec()} == plan["label/weak"].spec()
    assert set(spec) == {*plan["label/weak"].spec(), "digests", "created", "git", "digest"}
    runtime = read_json(folder / "runtime.json")
    memory = {"memory/peak_rss_mb", "memory/peak_gpu_mb"}
    assert {"seconds", "cpu_seconds", *memory, "hardware", "versions", "trainer"} == set(runtime)
    assert runtime["memory/peak_rss_mb"] > 0
    assert runtime["memory/peak_gpu_mb"] is None
    assert {"torch", "numpy", "w2sd", "python"} <= set(runtime["versions"])
    assert not list((store.root / "work").iterdir())


def test_a_stage_gets_the_run_s_trainer_logger_name_and_folder_of_logs(
    kitchen: Kitchen, run: RunConfig, store: Store, tmp_path: Path
) -> None:
    go(menu(), run, store)
    task = kitchen.tasks[1]
    assert (task.trainer, task.logger, task.name) == (run.trainer.resolve(has_gpu=False), run.logger, "run")
    assert task.logs == tmp_path / f"report/logs/train-{task.key}"


def test_a_second_run_computes_nothing(kitchen: Kitchen, run: RunConfig, store: Store) -> None:
    go(menu(), run, store)
    kitchen.cooked.clear()
    assert go(menu(), run, store) == dict.fromkeys(NAMES, "cached")
    assert kitchen.cooked == []


def lose(store: Store, plan: Plan, *names: str) -> None:
    for name in names:
        shutil.rmtree(store.path(plan[name].kind, plan[name].key))


MISSING = [
    (["compare"], ["compare"]),
    (["train/ceiling", "compare"], ["train/ceiling", "compare"]),
    (["label/weak", "train/student", "compare"], ["label/weak", "train/student", "compare"]),
    (["label/weak", "compare"], ["compare"]),
    (["pretrain/weak", "train/weak", "label/weak"], []),
]


@pytest.mark.parametrize(("missing", "expected"), MISSING, ids=lambda names: " ".join(names) or "nothing")
def test_only_what_is_missing_and_needed_is_run(
    kitchen: Kitchen, run: RunConfig, store: Store, missing: list[str], expected: list[str]
) -> None:
    plan = menu()
    go(plan, run, store)
    lose(store, plan, *missing)
    kitchen.cooked.clear()
    states = go(plan, run, store)
    assert [name for name, state in states.items() if state == "to do"] == expected
    assert [x for _, x in kitchen.cooked] == [NAMES.index(name) for name in expected]
    assert {name for name, state in states.items() if state == "not needed"} == set(missing) - set(expected)


def test_a_damaged_artifact_that_lacks_a_file_is_made_again(kitchen: Kitchen, run: RunConfig, store: Store) -> None:
    plan = menu()
    go(plan, run, store)
    (store.path("compare", plan["compare"].key) / "dish.json").unlink()
    kitchen.cooked.clear()
    go(plan, run, store)
    assert kitchen.cooked == [("compare", 5)]


class Shelf:
    """A store that has certain stages."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def has(self, kind: str, key: str) -> bool:
        return key in self.keys

    def has_remains(self, kind: str, key: str) -> bool:
        return False


def wanted(plan: Plan, there: set[str], force: list[str]) -> set[str]:
    """The least that has to be computed: what is forced and all below it, the result, and what these lack."""
    renewed: set[str] = set()
    for stage in plan.values():
        if stage.kind in force or renewed & {made.key for made in stage.inputs.values()}:
            renewed.add(stage.key)
    found: set[str] = set()

    def want(stage: Stage) -> None:
        if stage.key not in found and (stage.key in renewed or stage.key not in there):
            found.add(stage.key)
            for made in stage.inputs.values():
                want(made)

    for stage in plan.values():
        if stage.key in renewed or stage.kind == "compare":
            want(stage)
    return found


@pytest.mark.parametrize("force", [[], ["pretrain"], ["label"], ["train"], ["compare"]], ids=" ".join)
def test_whatever_is_there_the_least_is_computed(force: list[str]) -> None:
    plan = menu()
    for size in range(len(plan) + 1):
        for stages in combinations(plan.values(), size):
            there = {stage.key for stage in stages}
            needed = wanted(plan, there, force)
            assert survey(plan, Shelf(*there), force) == {  # type: ignore[arg-type]
                name: "to do" if stage.key in needed else "cached" if stage.key in there else "not needed"
                for name, stage in plan.items()
            }


def test_two_names_of_one_stage_run_it_once(
    kitchen: Kitchen, run: RunConfig, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"train/weak": Train({"x": 1}), "train/ceiling": Train({"x": 1})}
    compare = Compare({"x": 2}, {"weak": plan["train/weak"], "ceiling": plan["train/ceiling"]})
    go({**plan, "compare": compare}, run, store)
    assert kitchen.cooked == [("train", 1), ("compare", 2)]
    assert "[w2sd] train/ceiling cached\n" in capsys.readouterr().err
    kitchen.cooked.clear()
    go({**plan, "compare": compare}, run, store, force=["train"])
    assert kitchen.cooked == [("train", 1), ("compare", 2)]


# --- force ------------------------------------------------------------------------------------------------------------

FORCED = [
    (["pretrain"], {0, 1, 3, 4, 5}),
    (["train"], {1, 2, 3, 4, 5}),
    (["label"], {3, 4, 5}),
    (["compare"], {5}),
    (["label", "compare"], {3, 4, 5}),
    (["evaluate"], set()),
    ([], set()),
]


@pytest.mark.parametrize(("force", "expected"), FORCED, ids=lambda value: ",".join(map(str, sorted(value))) or "-")
def test_a_forced_kind_is_run_again_with_everything_made_from_it_and_nothing_beside(
    kitchen: Kitchen, run: RunConfig, store: Store, force: list[str], expected: set[int]
) -> None:
    go(menu(), run, store)
    kitchen.cooked.clear()
    states = go(menu(), run, store, force)
    assert [x for _, x in kitchen.cooked] == sorted(expected)
    assert states == {name: "to do" if n in expected else "cached" for n, name in enumerate(NAMES)}


def test_force_changes_no_key(run: RunConfig, store: Store, kitchen: Kitchen) -> None:
    go(menu(), run, store)
    before = sorted(path.name for path in (store.root / "artifacts").iterdir())
    go(menu(), run, store, ["pretrain"])
    assert sorted(path.name for path in (store.root / "artifacts").iterdir()) == before


def test_a_survey_changes_nothing(store: Store) -> None:
    assert survey(menu(), store, ["train"]) == dict.fromkeys(NAMES, "to do")
    assert not store.root.exists()


# --- failure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (StageFailed("the loss is nan"), "failed"),
        (RuntimeError("bug"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (SystemExit(143), "stopped"),
    ],
    ids=repr,
)
def test_a_failing_stage_keeps_the_earlier_ones_and_a_later_run_computes_only_the_rest(
    kitchen: Kitchen, run: RunConfig, store: Store, capsys: pytest.CaptureFixture[str], error: BaseException, state: str
) -> None:
    plan = menu()
    kitchen.failing[3] = error
    with pytest.raises(type(error)) as raised:
        go(plan, run, store)
    assert raised.value is error
    assert [store.has(stage.kind, stage.key) for stage in plan.values()] == [True, True, True, False, False, False]
    assert capsys.readouterr().err.endswith(f"[w2sd] label/weak ...\n[w2sd] label/weak {state}\n")
    assert not list((store.root / "work").iterdir())  # of what there is nothing to go on from

    kitchen.failing.clear()
    kitchen.cooked.clear()
    go(plan, run, store)
    assert [x for _, x in kitchen.cooked] == [3, 4, 5]


def test_metrics_without_a_number_leave_no_artifact(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["w2sd.stages.pretrain"], "run", lambda task: {"loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        go(menu(), run, store)
    assert not list((store.root / "artifacts").iterdir())


def digested(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file of a finished artifact whose digest is taken from now on."""
    paths: list[Path] = []

    def count(path: Path) -> str:
        if path.parent.parent.name == "artifacts":
            paths.append(path)
        return digest_file(path)

    monkeypatch.setattr("w2sd.pipeline.store.digest_file", count)
    return paths


def test_the_files_of_an_input_are_digested_once_for_each_stage_that_reads_them(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, paths = menu(), digested(monkeypatch)
    go(plan, run, store)
    readers = [upstream for stage in plan.values() for upstream in stage.inputs.values()]
    names = ("dish.json", "metrics.json", "runtime.json")
    assert sorted(paths) == sorted(store.path(each.kind, each.key) / name for each in readers for name in names)


@pytest.mark.parametrize("rank", [0, 1])
def test_no_process_of_a_group_digests_the_inputs_again(
    rank: int, kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = menu()
    go(plan, run, store)
    student, paths = plan["train/student"], digested(monkeypatch)
    module = sys.modules["w2sd.stages.train"]
    monkeypatch.setattr(module, "run", lambda task: kitchen.tasks.append(task) or {})
    worker.execute(student.spec(), launching.runtime(student, run), store, lambda *_: None, rank)
    labels = plan["label/weak"]
    assert kitchen.tasks[-1].inputs == {"labels": store.path(labels.kind, labels.key)}
    assert paths == []


def test_a_pretrained_model_has_all_cores_and_every_other_one_has_one(
    run: RunConfig, asked: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "has_gpu", lambda: False)
    monkeypatch.setattr("w2sd.parts.trainer.n_cores", lambda: 8)
    ours, theirs = run.strong, asked("model@strong=gpt2").strong
    for model, n in ((ours, 1), (theirs, 8)):
        trained = Train({"model": model})
        for stage in (trained, Label({}, {"model": trained})):
            assert launching.runtime(stage, run)["trainer"]["threads"] == n


@pytest.mark.parametrize(("kind", "accelerator"), [(Train, "gpu"), (Compare, "cpu")])
def test_stages_that_ask_a_model_take_the_gpu_that_is_there(
    run: RunConfig, kind: type[Stage], accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "has_gpu", lambda: True)
    told = launching.runtime(kind({"model": run.strong}), run)
    assert told["trainer"]["accelerator"] == accelerator


@pytest.mark.parametrize("file", ["spec.json", "dish.json", "runtime.json"])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_artifact_is_made_again_and_nothing_else(
    kitchen: Kitchen, run: RunConfig, store: Store, name: str, file: str
) -> None:
    """Whether or not what was made from it is there: a report may read it."""
    plan = menu()
    go(plan, run, store)
    path = store.path(plan[name].kind, plan[name].key) / file
    path.write_bytes(path.read_bytes()[:-3] + b"~\n}")
    kitchen.cooked.clear()
    assert [each for each, state in go(plan, run, store).items() if state == "to do"] == [name]
    assert [x for _, x in kitchen.cooked] == [NAMES.index(name)]
    assert store.find(plan[name].key)


def weigh(task: Any) -> None:
    """Leave weights as well."""
    (task.out / "model.safetensors").write_bytes(b"0123")


def test_damaged_weights_are_made_again_by_the_run_that_reads_them(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning does not read them. What they are made from is gone, and made again too."""
    plan, cook = menu(), kitchen.run
    module = sys.modules["w2sd.stages.train"]
    monkeypatch.setattr(module, "run", lambda task: weigh(task) or cook(task))
    go(plan, run, store)
    before = store.find(plan["compare"].key)
    weights = store.path("train", plan["train/weak"].key) / "model.safetensors"
    weights.write_bytes(b"0124")
    shutil.rmtree(store.path("pretrain", plan["pretrain/weak"].key))
    kitchen.cooked.clear()
    assert go(plan, run, store, ["label"])["train/weak"] == "cached"
    assert [x for _, x in kitchen.cooked] == [0, 1, 3, 4, 5]
    assert weights.read_bytes() == b"0123"
    assert store.find(plan["compare"].key) == before


def test_an_input_that_is_damaged_again_stops_the_run(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, cook = menu(), kitchen.run
    weights = store.path("train", plan["train/weak"].key) / "model.safetensors"
    execute = worker.execute

    def spoil(spec: dict[str, Any], *rest: Any) -> None:
        execute(spec, *rest)
        if spec["key"] == plan["train/weak"].key:
            weights.write_bytes(b"0124")

    monkeypatch.setattr(sys.modules["w2sd.stages.train"], "run", lambda task: weigh(task) or cook(task))
    monkeypatch.setattr(worker, "execute", spoil)
    with pytest.raises(StageFailed, match=r"model\.safetensors\b.*\bdelete\b"):
        go(plan, run, store)
    assert [x for _, x in kitchen.cooked].count(1) == 2


# --- two runs at a time -----------------------------------------------------------------------------------------------


def wait_for(store: Store, stage: Stage, monkeypatch: pytest.MonkeyPatch, *, finish: bool) -> list[str]:
    """Another run has this stage; as soon as somebody waits for it, it finishes or fails. Returns what was said."""
    said: list[str] = []
    other = ExitStack()
    other.enter_context(store.lock([stage.key], pytest.fail))

    def note(table: StageTable, name: str, text: str) -> None:
        said.append(f"{name}: {text}")
        if finish:
            with store.writing(stage.spec()) as out:
                (out / "dish.json").write_text('"of the other run"')
        other.close()

    monkeypatch.setattr(StageTable, "note", note)
    return said


def test_a_stage_that_another_run_finished_meanwhile_is_not_computed_again(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = menu()
    said = wait_for(store, plan["train/weak"], monkeypatch, finish=True)
    go(plan, run, store)
    assert said == ["train/weak: another run is at it; waiting"]
    assert [x for _, x in kitchen.cooked] == [0, 2, 3, 4, 5]
    assert read_json(store.find(plan["label/weak"].key) / "dish.json")["from"] == {"model": "of the other run"}


def test_a_stage_that_another_run_finished_since_the_survey_is_not_computed_again(
    kitchen: Kitchen, run: RunConfig, store: Store
) -> None:
    plan = menu()
    states = survey(plan, store, [])
    cook = kitchen.run

    def overtaken(task: Any) -> dict[str, Any]:
        with store.writing(plan["train/ceiling"].spec()) as out:
            (out / "dish.json").write_text('"of the other run"')
        return cook(task)

    sys.modules["w2sd.stages.pretrain"].run = overtaken  # type: ignore[attr-defined]
    launch(plan, states, run, store, worker.execute)
    assert [x for _, x in kitchen.cooked] == [0, 1, 3, 4, 5]


def test_a_stage_at_which_another_run_failed_is_computed_here(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = menu()
    said = wait_for(store, plan["train/weak"], monkeypatch, finish=False)
    go(plan, run, store)
    assert len(said) == 1
    assert [x for _, x in kitchen.cooked] == [0, 2, 1, 3, 4, 5]


def test_what_can_be_done_is_done_before_anything_is_waited_for(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages are taken: the one that needs neither is computed, then both are waited for, and each is computed."""
    plan = menu()
    other = Train({"x": 6}, {"base": plan["pretrain/weak"]})
    plan = {"train/other": other, **plan}
    said: list[str] = []
    with ExitStack() as taken:
        for name in ("train/other", "train/weak"):
            taken.enter_context(store.lock([plan[name].key], pytest.fail))

        def note(table: StageTable, name: str, text: str) -> None:
            said.append(name)
            taken.close()

        monkeypatch.setattr(StageTable, "note", note)
        go(plan, run, store)
    assert said == ["train/other", "train/weak"]
    assert [x for _, x in kitchen.cooked] == [0, 2, 6, 1, 3, 4, 5]


# --- progress ---------------------------------------------------------------------------------------------------------


def plain(text: str) -> list[str]:
    return re.sub(r" \d+\.\d s$", "", text, flags=re.MULTILINE).splitlines()


def test_without_a_terminal_progress_is_plain_lines(
    kitchen: Kitchen, run: RunConfig, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    go(menu(), run, store)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert plain(captured.err) == [line for name in NAMES for line in (f"[w2sd] {name} ...", f"[w2sd] {name} done")]
    go(menu(), run, store, ["compare"])
    assert plain(capsys.readouterr().err) == [
        "[w2sd] 5 of 6 stages found in the store",
        "[w2sd] compare ...",
        "[w2sd] compare done",
    ]


def test_a_wish_for_colours_makes_no_terminal(
    kitchen: Kitchen, run: RunConfig, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continuous integration sets FORCE_COLOR, and its logs are files."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    go(menu(), run, store)
    assert plain(capsys.readouterr().err)[-1] == "[w2sd] compare done"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_one_table_of_all_stages(
    kitchen: Kitchen, run: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    plan = menu()
    kitchen.failing[4] = StageFailed("stopped")
    with pytest.raises(StageFailed):
        go(plan, run, store)
    frame = screen.getvalue().rpartition("\x1b[2K")[2]  # what was drawn over the frame before
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).replace("\r", "").splitlines()[-len(NAMES) :]
    expected = ["done"] * 4 + ["failed", "to do"]
    for line, name, state in zip(last, NAMES, expected, strict=True):
        assert line.startswith(f"{state:<6}  {name}")
        assert plan[name].key in line
    assert "[w2sd]" not in screen.getvalue()


# --- a process for every stage ----------------------------------------------------------------------------------------

STAND_INS = """
import sys, types
from w2sd.errors import StageFailed

def run(task):
    import os
    task.advance(1, 3)
    print("something that a library has to say")
    print("and its warnings", file=sys.stderr)
    if task.params["x"] == 13:
        raise StageFailed("the loss is nan at step 13")
    if task.params["x"] == 14:
        raise RuntimeError("bug")
    if task.params["x"] == 15:
        os.kill(os.getpid(), 9)
    if task.params["x"] == 16:
        raise Exception("No space left on device (os error 28)")
    task.advance(3, 3)
    (task.out / "dish.json").write_text(str(os.getpid()))
    return {"trainer": task.trainer.threads, "logs": task.logs.name, "inputs": sorted(task.inputs)}
"""


def stand_in(script: str, kinds: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every new interpreter take the `run` of a script for that of these kinds of stages."""
    registered = f"""
for kind in {kinds}:
    module = types.ModuleType(f"w2sd.stages.{{kind}}")
    module.run = run
    sys.modules[module.__name__] = module
"""
    (place / "site").mkdir()
    (place / "site/sitecustomize.py").write_text(script + registered)  # what every interpreter reads first
    monkeypatch.setenv("PYTHONPATH", f"{place / 'site'}:{Path(w2sd.__file__).parents[1]}")


@pytest.fixture
def apart(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run whose stages have processes of their own, in which two kinds are stand-ins."""
    stand_in(STAND_INS, ("pretrain", "train"), tmp_path, monkeypatch)
    return run._replace(trainer=replace(run.trainer, threads=2), settings=replace(run.settings, launch="process"))


def test_a_stage_in_its_own_process_commits_the_same_artifact_and_passes_its_progress_on(
    apart: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[int, int]] = []
    monkeypatch.setattr(StageTable, "advance", lambda table, done, total: moves.append((done, total)))
    base = Pretrain({"x": 0})
    plan = {"pretrain/weak": base, "train/weak": Train({"x": 1}, {"base": base})}
    go(plan, apart, store)
    folders = [store.find(stage.key) for stage in plan.values()]
    assert moves == [(1, 3), (3, 3)] * 2
    assert len({(folder / "dish.json").read_text() for folder in folders}) == 2
    key = plan["train/weak"].key
    assert read_json(folders[1] / "metrics.json") == {"trainer": 2, "logs": f"train-{key}", "inputs": ["base"]}
    spec = read_json(folders[1] / "spec.json")
    assert {name: spec[name] for name in plan["train/weak"].spec()} == plan["train/weak"].spec()
    assert not list((store.root / "work").iterdir())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (13, r"^the loss is nan at step 13$"),
        (14, r"^train: .*\b1\b.*/work/{key}/worker\.log$"),
        (15, r"^train: .*-9\b.*/work/{key}/worker\.log$"),
        (16, r"^store: the disk of {store} is full; .*$"),
    ],
    ids=["failed", "bug", "killed", "full"],
)
def test_a_failure_in_a_process_is_one_line_and_what_it_wrote_is_kept(
    apart: RunConfig, store: Store, x: int, message: str
) -> None:
    stage = Train({"x": x})
    with pytest.raises(StageFailed, match=message.replace("{key}", stage.key).replace("{store}", str(store.root))):
        go({"train/weak": stage}, apart, store)
    assert not store.has("train", stage.key)
    log = (store.work(stage.key) / "worker.log").read_text()
    assert "and its warnings" in log
    assert ("RuntimeError: bug" in log) == (x == 14)


GROUPED = """
import os
import sys
import time
import types
from pathlib import Path

from w2sd.errors import StageFailed


def run(task):
    def wait(what):
        while not (task.work / what).exists():
            time.sleep(0.01)

    (task.work / f"rank_{task.rank}").write_text(str(os.getpid()))
    for rank in range(task.trainer.world if task.kind == "pretrain" else 1):
        wait(f"rank_{rank}")
    task.advance(task.rank + 1, 3)
    if task.params["x"] == 13 and task.rank == 1:
        raise StageFailed("the second of two has no luck")
    if task.params["x"] == 14 and task.rank == 1:
        os.kill(os.getpid(), 9)
    if task.params["x"] >= 13:
        wait("for ever")
    if task.rank == 0:
        (task.out / "dish.json").write_text("{}")
        time.sleep(0.2)
    else:
        try:
            (task.out / "dish.json").write_text("{}")
        except OSError:
            (task.work / "nowhere_to_write").touch()
    return {"ranks": len(list(task.work.glob("rank_*"))), "refused": (task.work / "nowhere_to_write").exists()}
"""


@pytest.fixture
def grouped(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run on two devices, in which two kinds of stages are stand-ins."""
    stand_in(GROUPED, ("pretrain", "generate"), tmp_path, monkeypatch)
    return run._replace(trainer=replace(run.trainer, devices=2, strategy="ddp"))


@pytest.mark.ddp
def test_a_group_makes_one_artifact_and_stages_that_gain_nothing_have_one_process(
    grouped: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[int, int]] = []
    monkeypatch.setattr(StageTable, "advance", lambda table, done, total: moves.append((done, total)))
    base = Pretrain({"x": 0})
    go({"pretrain/weak": base, "generate/weak": Generate({"x": 1}, {"model": base})}, grouped, store)
    made = {path.name.partition("-")[0]: read_json(path / "metrics.json") for path in store.root.glob("artifacts/*")}
    assert made == {"pretrain": {"ranks": 2, "refused": True}, "generate": {"ranks": 1, "refused": False}}
    assert moves == [(1, 3), (1, 3)]  # the first process speaks, and only it
    assert read_json(store.find(base.key) / "runtime.json")["trainer"]["devices"] == 2
    assert not list((store.root / "work").iterdir())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(store: Store, stage: Stage) -> bool:
    """Whether both processes are gone, and left no artifact, not even half of one."""
    pids = [int(path.read_text()) for path in store.work(stage.key).glob("rank_*")]
    assert len(pids) == 2
    deadline = time.monotonic() + 20  # a process that was killed is there until somebody has waited for it
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return not [*store.root.glob("artifacts/*"), *store.root.glob("tmp/*")]


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (13, r"^the second of two has no luck$"),
        (14, r"^pretrain: .*\b1\b.*/worker\.log$"),
    ],
    ids=["failed", "killed"],
)
def test_the_failure_of_any_process_ends_all_of_them_in_one_line(
    grouped: RunConfig, store: Store, x: int, message: str
) -> None:
    stage = Pretrain({"x": x})
    with pytest.raises(StageFailed, match=message):
        go({"pretrain/weak": stage}, grouped, store)
    assert ended(store, stage)


def test_a_strategy_may_have_one_process(run: RunConfig) -> None:
    alone = run._replace(trainer=replace(run.trainer, strategy="ddp"))
    assert [stage.kind for stage in menu().values() if not stage.is_shared] == ["compare"]
    assert (alone.trainer.is_shared, run.trainer.is_shared) == (True, False)
    assert "--nproc-per-node=1" in launching.torchrun(alone.trainer, "key")


@pytest.fixture
def on_two_nodes(grouped: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The same with one process on each of two machines."""
    slurm.job(2, tmp_path, monkeypatch)
    return grouped._replace(trainer=replace(grouped.trainer, devices=1, nodes=2))


@pytest.mark.ddp
def test_the_failure_on_one_node_ends_all_of_them_in_one_line(on_two_nodes: RunConfig, store: Store) -> None:
    stage = Pretrain({"x": 13})
    with pytest.raises(StageFailed, match=r"^the second of two has no luck$"):
        go({"pretrain/weak": stage}, on_two_nodes, store)
    assert ended(store, stage)


@pytest.mark.ddp
@pytest.mark.parametrize("where", ["grouped", "on_two_nodes"])
def test_a_group_ends_with_the_run(
    where: str, request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stage = request.getfixturevalue(where), Pretrain({"x": 15})

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StageTable, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go({"pretrain/weak": stage}, run, store)
    assert ended(store, stage)


OWN = """
from dataclasses import dataclass
from typing import ClassVar
from w2sd.data.pairs import Pair, Table, digest


@dataclass(frozen=True)
class Own:
    n: int = 4
    VERSION: ClassVar[int] = 1
    max_tokens: ClassVar[int] = 8
    long: ClassVar[str] = "refuse"

    def table(self):
        rows = [Pair(digest(str(n)), digest(str(n)), "test", "harmless", str(n), "a", "b") for n in range(self.n)]
        return Table(rows, {"leaks": 0})
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's source of pairs, in a module that the worker can import too."""
    (tmp_path / "pantry.py").write_text(OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("pantry").Own()
    del sys.modules["pantry"]


@pytest.mark.slow
def test_your_own_data_is_measured_in_a_process_that_trusts_it(run: RunConfig, store: Store, own: Any) -> None:
    inputs = {}
    for n, role in enumerate(("weak", "student", "ceiling")):
        inputs[role] = Evaluate({"x": n})
        with store.writing(inputs[role].spec()) as out:
            margins = np.array([-1.0] * (3 - n) + [1.0] * (1 + n))
            ids = [pair.id for pair in own.table().examples]
            lengths = dict.fromkeys(("n_prompt", "n_chosen", "n_rejected"), np.ones(4, dtype=np.int32))
            columns = {"id": ids, "cluster": ids, "margin": margins, "p_correct": 1 / (1 + np.exp(-margins)), **lengths}
            write_predictions(out / "predictions.parquet", columns)
            write_json(out / "metrics.json", {"n/steps": 10 + n})
    compare = Compare({"data": own}, inputs)
    go({"compare": compare}, run._replace(settings=replace(run.settings, launch="process", trusted=["pantry."])), store)
    metrics = figures_of(store.find(compare.key))
    assert [metrics[f"accuracy/{role}"] for role in inputs] == [0.25, 0.5, 0.75]
    assert [metrics[f"steps/{role}"] for role in inputs] == [10, 11, 12]
    assert metrics["data/n_test"] == 4


def test_a_refusal_in_a_process_is_its_line(run: RunConfig, store: Store, own: Any) -> None:
    stage = Train({"data": own})
    with pytest.raises(StageFailed, match=r"^data\._target_: 'pantry\.Own' .*\btrusted="):
        go({"train/weak": stage}, run._replace(settings=replace(run.settings, launch="process")), store)


def test_the_worker_is_told_to_end_by_the_run_alone(
    apart: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by the terminal as well, which tells the group of processes that the run is in."""
    started: list[Any] = []
    groups: list[int] = []
    popen = launching.subprocess.Popen

    def start(*words: Any, **options: Any) -> Any:
        started.append(popen(*words, **options))
        groups.append(os.getpgid(started[-1].pid))
        return started[-1]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launching.subprocess, "Popen", start)
    monkeypatch.setattr(StageTable, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go({"train/weak": Train({"x": 1})}, apart, store)
    assert [process.poll() is not None for process in started] == [True]
    assert os.getpgrp() not in groups


def test_a_worker_finds_no_modules_where_its_run_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text("print('found')")
    for path, found in ((["/nowhere"], False), (["", "/nowhere"], True), ([str(tmp_path)], True)):
        monkeypatch.setattr(sys, "path", path)
        told = launching.environment() | {"PYTHONPATH": ""}
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        done = subprocess.run([sys.executable, "-m", "other"], env=told, capture_output=True, text=True)
        assert ("found" in done.stdout) == found
