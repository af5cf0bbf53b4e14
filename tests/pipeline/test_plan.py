"""The graph of a run: what is in it, what its sweeps share, and which knob renames which stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from w2sd.config import RunConfig
from w2sd.conflicts.none import NoConflict
from w2sd.data.files import Files
from w2sd.data.hub import Hub as HubData
from w2sd.errors import Refused
from w2sd.fit import Fit
from w2sd.logger import Csv, Wandb
from w2sd.models.adapter import HeadOnly
from w2sd.models.hub import Hub
from w2sd.models.scratch import Scratch
from w2sd.pipeline.launch import survey
from w2sd.pipeline.plan import Plan, plan
from w2sd.pipeline.progress import show_plan
from w2sd.pipeline.store import Store
from w2sd.supervision import Hard
from w2sd.trainer import Trainer
from w2sd.world.generator import World
from w2sd.world.ladder import Rung

GRAPH = {
    "pretrain/weak": {},
    "pretrain/strong": {},
    "train/weak": {"base": "pretrain/weak"},
    "train/ceiling": {"base": "pretrain/strong"},
    "label/weak": {"model": "train/weak"},
    "train/student": {"labels": "label/weak", "base": "pretrain/strong"},
    "evaluate/weak": {"model": "train/weak"},
    "evaluate/ceiling": {"model": "train/ceiling"},
    "evaluate/student": {"model": "train/student", "weak": "evaluate/weak", "ceiling": "evaluate/ceiling"},
    "compare": {"weak": "evaluate/weak", "student": "evaluate/student", "ceiling": "evaluate/ceiling"},
}
EVERYTHING = set(GRAPH)
PRETRAINED = {"pretrain/weak", "pretrain/strong"}
STUDENT = {"train/student", "evaluate/student", "compare"}
TAUGHT = {"label/weak", *STUDENT}  # what weak labels decide
COMPOSED: dict[tuple[str, ...], RunConfig] = {}


@pytest.fixture
def asked(asked: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """Composes each set of overrides once: a run is a value."""

    def run(*overrides: str) -> RunConfig:
        if overrides not in COMPOSED:
            COMPOSED[overrides] = asked(*overrides)
        return COMPOSED[overrides]

    return run


def roles(stages: Plan) -> dict[str, dict[str, str]]:
    """The graph by names; of two names that share a stage, the first."""
    names = {stage.key: name for name, stage in reversed(stages.items())}
    return {name: {role: names[made.key] for role, made in stage.inputs.items()} for name, stage in stages.items()}


def keys(run: RunConfig) -> dict[str, str]:
    return {name: stage.key for name, stage in plan(run).items()}


def renamed(one: RunConfig, other: RunConfig) -> set[str]:
    before, after = keys(one), keys(other)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def settings(run: RunConfig, **changes: Any) -> RunConfig:
    return run._replace(settings=replace(run.settings, **changes))


# --- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_of_the_default_run(asked: Callable[..., RunConfig]) -> None:
    assert roles(plan(asked())) == GRAPH


def test_what_each_training_learns_from(asked: Callable[..., RunConfig]) -> None:
    run = asked("seed=7", "teacher_seed=3", "ceiling_split=w2s")
    stages = plan(run)
    told = {
        name: [stages[f"train/{name}"].params[knob] for knob in ("model", "split", "seed", "supervision", "conflict")]
        for name in ("weak", "ceiling", "student")
    }
    assert told == {
        "weak": [run.weak, "gt", 3, None, None],
        "ceiling": [run.strong, "w2s", 3, None, None],
        "student": [run.strong, "w2s", 7, run.supervision, NoConflict()],
    }
    assert stages["label/weak"].params["split"] == "w2s"
    assert {stages[f"evaluate/{name}"].params["split"] for name in told} == {"test"}


@pytest.mark.parametrize("overrides", [[], ["model@weak=gpt2", "model@strong=gpt2_medium"], ["model@weak=world_l"]])
def test_every_stage_comes_after_its_inputs(asked: Callable[..., RunConfig], overrides: list[str]) -> None:
    seen: set[str] = set()
    for stage in plan(asked(*overrides)).values():
        assert {made.key for made in stage.inputs.values()} <= seen
        seen.add(stage.key)


def test_models_that_exist_are_not_pretrained(asked: Callable[..., RunConfig]) -> None:
    expected = {name: dict(inputs) for name, inputs in GRAPH.items() if name not in PRETRAINED}
    for inputs in expected.values():
        inputs.pop("base", None)
    assert roles(plan(asked("model@weak=gpt2", "model@strong=gpt2_medium"))) == expected


def test_a_model_that_teaches_itself_shares_what_is_the_same(asked: Callable[..., RunConfig]) -> None:
    found = keys(asked("model@weak=world_l"))
    assert found["pretrain/weak"] == found["pretrain/strong"]
    assert found["train/weak"] == found["train/ceiling"]
    assert found["evaluate/weak"] == found["evaluate/ceiling"]
    assert len(set(found.values())) == len(GRAPH) - 3


class Relay:
    """Strong learns from a model in between."""

    def students(self, strong: Any) -> list[Any]:
        return [replace(strong, rung=2), strong]


def test_each_student_of_a_chain_learns_from_the_one_before(asked: Callable[..., RunConfig]) -> None:
    run = asked()._replace(chain=Relay())
    graph = roles(plan(run))
    assert graph["label/weak"] == {"model": "train/weak"}
    assert graph["train/student_1"] == {"labels": "label/weak", "base": "pretrain/student_1"}
    assert graph["label/student_1"] == {"model": "train/student_1"}
    assert graph["train/student"] == {"labels": "label/student_1", "base": "pretrain/strong"}
    assert graph["compare"] == GRAPH["compare"]
    assert plan(run)["train/student_1"].params["conflict"] is None


def test_rungs_of_the_world_read_the_world_alone(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(Refused, match=r"^(model@)?weak: 'world rung 1' is not accepted; .* data=world"):
        plan(asked()._replace(data=Files(path=str(tmp_path / "pairs.jsonl"))))


# --- what sweeps share ------------------------------------------------------------------------------------------------


def test_a_sweep_over_seeds_trains_one_weak_model_one_ceiling_and_makes_labels_once(
    asked: Callable[..., RunConfig],
) -> None:
    made = {stage.key: stage.kind for seed in range(3) for stage in plan(settings(asked(), seed=seed)).values()}
    assert Counter(made.values()) == {"pretrain": 2, "train": 2 + 3, "label": 1, "evaluate": 2 + 3, "compare": 3}


def test_a_sweep_over_weak_models_shares_the_ceiling(asked: Callable[..., RunConfig]) -> None:
    runs = [asked(f"model@weak={rung}") for rung in ("world_xs", "world_s", "world_m")]
    made = {stage.key: name for run in runs for name, stage in plan(run).items()}
    counts = Counter(made.values())
    assert [counts[name] for name in ("pretrain/strong", "train/ceiling", "evaluate/ceiling")] == [1, 1, 1]
    assert [counts[name] for name in ("pretrain/weak", "train/weak", "label/weak", "train/student")] == [3, 3, 3, 3]


WEAK = {"train/weak", "evaluate/weak"} | TAUGHT  # what is made from a weak model
STRONG = {"train/ceiling", "evaluate/ceiling"} | STUDENT
RENAMES: dict[str, tuple[Any, set[str]]] = {
    "settings.seed": (1, STUDENT),
    "settings.teacher_seed": (1, EVERYTHING - PRETRAINED),
    "settings.ceiling_split": ("w2s", STRONG - {"train/student"}),
    "data.world_seed": (1, EVERYTHING),
    "data.visible": (0.5, EVERYTHING),
    "data.gt": (100, EVERYTHING - PRETRAINED),
    "data.tension": (0.5, EVERYTHING - PRETRAINED),
    "weak.width": (64, {"pretrain/weak"} | WEAK),
    "strong.width": (32, {"pretrain/strong"} | STRONG),
    "fit.lr": (1e-4, EVERYTHING - PRETRAINED),
    "supervision": (Hard(), STUDENT),
    "adapter": (HeadOnly(), EVERYTHING - PRETRAINED),
}


@pytest.mark.parametrize(("knob", "value", "expected"), [(knob, *told) for knob, told in RENAMES.items()])
def test_a_knob_renames_what_it_decides_and_nothing_beside(
    asked: Callable[..., RunConfig], knob: str, value: Any, expected: set[str]
) -> None:
    run = asked()
    part, _, field = knob.partition(".")
    changed = replace(getattr(run, part), **{field: value}) if field else value
    assert renamed(run, run._replace(**{part: changed})) == expected


def test_the_version_of_a_conflict_renames_the_student_alone(
    asked: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(asked())
    monkeypatch.setattr(NoConflict, "VERSION", 2)
    after = keys(asked())
    assert {name for name in before if before[name] != after[name]} == STUDENT


# --- every knob -------------------------------------------------------------------------------------------------------

WORDS = {  # another value of a knob that takes certain words or numbers only
    "accelerator": "gpu",
    "mode": "offline",
    "schedule": "linear",
    "precision": "bf16-mixed",
    "tension_on": "blind",
    "long": "drop",
    "architecture": "llama",
    "heads": 1,  # fits every width
    "rung": 2,
    "blind_rung": 2,
    "betas": [0.5, 0.5],
}


def other(part: Any, knob: str) -> Any:
    """The part with another value of this knob."""
    value = getattr(part, knob)
    if knob in WORDS:
        changed = WORDS[knob]
    elif isinstance(value, str | bool):
        changed = f"{value}x" if isinstance(value, str) else not value
    else:
        changed = value / 2 or 0.5 if isinstance(value, float) else 2 * value or 2
    assert changed != value
    return replace(part, **{knob: changed})


def knobs(cls: type, *but: str) -> Any:
    return pytest.mark.parametrize("knob", [knob.name for knob in fields(cls) if knob.name not in but])


@knobs(Fit)
def test_every_knob_of_the_optimisation_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked()
    assert renamed(run, run._replace(fit=other(run.fit, knob))) == EVERYTHING - PRETRAINED


@knobs(World)
def test_every_knob_of_the_world_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked()
    assert renamed(run, run._replace(data=other(run.data, knob))) >= EVERYTHING - PRETRAINED


@knobs(Rung)
@pytest.mark.parametrize("place", ["weak", "strong"])
def test_every_knob_of_a_rung_is_hashed(asked: Callable[..., RunConfig], place: str, knob: str) -> None:
    run = asked()
    changed = run._replace(**{place: other(getattr(run, place), knob)})
    assert {f"pretrain/{place}", "train/student", "compare"} <= renamed(run, changed)


@knobs(Trainer)
def test_no_knob_of_the_trainer_is_hashed(asked: Callable[..., RunConfig], knob: str) -> None:
    run = asked()
    assert not renamed(run, run._replace(trainer=other(run.trainer, knob)))


@pytest.mark.parametrize("logger", [Wandb(), *(other(Wandb(), knob.name) for knob in fields(Wandb))], ids=str)
def test_no_logger_is_hashed(asked: Callable[..., RunConfig], logger: Any) -> None:
    run = asked()
    assert run.logger == Csv()
    assert not renamed(run, run._replace(logger=logger))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("name", "other"),
        ("store", "elsewhere"),
        ("out", "elsewhere"),
        ("plan_only", True),
        ("force", ["train"]),
        ("launch", "process"),
        ("trusted", ["mine."]),
        ("traceback", True),
    ],
)
def test_where_and_how_to_run_is_not_hashed(asked: Callable[..., RunConfig], knob: str, value: Any) -> None:
    run = asked()
    assert not renamed(run, settings(run, **{knob: value}))


def test_every_setting_is_known_to_be_hashed_or_not(asked: Callable[..., RunConfig]) -> None:
    hashed = {"seed", "teacher_seed", "ceiling_split"}
    unhashed = {"name", "store", "out", "plan_only", "force", "launch", "trusted", "traceback"}
    assert {knob.name for knob in fields(asked().settings)} == hashed | unhashed


# --- files are known by what is in them -------------------------------------------------------------------------------

ROW = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n"


@pytest.fixture
def from_files(asked: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """A run on a local file, with a model from scratch and one from a folder."""
    (tmp_path / "pairs.jsonl").write_text(ROW)
    for folder in ("tokenizer", "model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokenizer.json").write_text("{}")
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    (tmp_path / "corpus.txt").write_text("text")
    weak = Scratch(tokenizer=str(tmp_path / "tokenizer"), corpus=str(tmp_path / "corpus.txt"))
    data = Files(path=str(tmp_path / "pairs.jsonl"))
    return asked()._replace(data=data, weak=weak, strong=Hub(id=str(tmp_path / "model")))


def test_what_was_moved_keeps_every_key(from_files: RunConfig, tmp_path: Path) -> None:
    before = keys(from_files)
    elsewhere = tmp_path / "else/where"
    elsewhere.mkdir(parents=True)
    for name in ("pairs.jsonl", "tokenizer", "model", "corpus.txt"):
        (tmp_path / name).rename(elsewhere / name)
    (elsewhere / "pairs.jsonl").rename(elsewhere / "renamed.jsonl")
    weak = replace(from_files.weak, tokenizer=str(elsewhere / "tokenizer"), corpus=str(elsewhere / "corpus.txt"))
    data, strong = Files(path=str(elsewhere / "renamed.jsonl")), Hub(id=str(elsewhere / "model"))
    assert keys(from_files._replace(data=data, weak=weak, strong=strong)) == before


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pairs.jsonl", WEAK | STRONG),
        ("tokenizer/tokenizer.json", {"pretrain/weak"} | WEAK),
        ("corpus.txt", {"pretrain/weak"} | WEAK),
        ("model/model.safetensors", STRONG),
        ("model/config.json", STRONG),
        ("model/tokenizer.json", STRONG),
    ],
)
def test_a_changed_byte_renames_what_it_decides(
    from_files: RunConfig, tmp_path: Path, file: str, expected: set[str]
) -> None:
    before = keys(from_files)
    path = tmp_path / file
    stamp = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(stamp, stamp + 10**9))  # the clock of a file system may be coarser than this test is fast
    after = keys(from_files)
    assert {name for name in before if before[name] != after[name]} == expected


@knobs(Files, "path", "gt", "w2s", "test", "helpful", "helpful_test")
def test_every_knob_of_file_data_is_hashed(from_files: RunConfig, knob: str) -> None:
    changed = from_files._replace(data=other(from_files.data, knob))
    assert renamed(from_files, changed) == WEAK | STRONG


def test_the_role_of_a_file_is_hashed(from_files: RunConfig, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{n}.jsonl") for n in range(3)]
    for n, path in enumerate(paths):
        Path(path).write_text(ROW * (n + 1))
    one, two = (Files(gt=paths[a], w2s=paths[b], test=paths[2]) for a, b in ((0, 1), (1, 0)))
    assert renamed(from_files._replace(data=one), from_files._replace(data=two)) == WEAK | STRONG


@knobs(HubData)
def test_every_knob_of_a_hub_dataset_is_hashed(from_files: RunConfig, knob: str) -> None:
    run = from_files._replace(data=HubData(id="owner/name"))
    assert renamed(run, run._replace(data=other(run.data, knob))) == WEAK | STRONG


@knobs(Scratch, "tokenizer", "corpus")
def test_every_knob_of_a_model_from_scratch_is_hashed(from_files: RunConfig, knob: str) -> None:
    changed = from_files._replace(weak=other(from_files.weak, knob))
    assert renamed(from_files, changed) == {"pretrain/weak"} | WEAK


def test_how_a_model_would_be_pretrained_is_nothing_to_one_with_random_weights(from_files: RunConfig) -> None:
    run = from_files._replace(weak=replace(from_files.weak, corpus=""))
    for knob in ("lr", "epochs", "batch"):
        assert not renamed(run, run._replace(weak=other(run.weak, knob)))


@pytest.mark.parametrize("knob", ["id", "revision"])
def test_a_hub_model_is_known_by_name_and_revision(from_files: RunConfig, knob: str) -> None:
    run = from_files._replace(strong=Hub(id="owner/name"))
    assert renamed(run, run._replace(strong=other(run.strong, knob))) == STRONG


def test_a_missing_file_is_named_by_the_plan(from_files: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").rename(tmp_path / "pears.jsonl")
    with pytest.raises(
        Refused, match=r"^data\.path: '.*pairs\.jsonl' is not accepted; .* did you mean '.*pears\.jsonl'"
    ):
        plan(from_files)


# --- the plan as text -------------------------------------------------------------------------------------------------


def test_the_plan_shows_stage_key_state_and_inputs(asked: Callable[..., RunConfig], tmp_path: Path) -> None:
    stages = plan(asked())
    lines = show_plan(stages, survey(stages, Store(tmp_path / "store"), [])).splitlines()
    for line, (name, inputs) in zip(lines, GRAPH.items(), strict=False):
        words = [name, stages[name].key, "to", "do"]
        assert line.split()[:4] == words
        assert line.endswith(", ".join(f"{role}: {made}" for role, made in inputs.items()))
    assert lines[len(GRAPH) :] == ["10 stages to compute, 0 found in the store"]
    assert not (tmp_path / "store").exists()


def test_a_shared_stage_is_counted_once(asked: Callable[..., RunConfig]) -> None:
    stages = plan(asked("model@weak=world_l"))
    states = {name: "cached" if name.startswith("pretrain") else "to do" for name in stages}
    assert show_plan(stages, states).splitlines()[-1] == "6 stages to compute, 1 found in the store"


# --- what planning costs ----------------------------------------------------------------------------------------------

HEAVY = (
    "torch",
    "pytorch_lightning",
    "transformers",
    "torchmetrics",
    "wandb",
    "pandas",
    "matplotlib",
    "pyarrow",
    "datasets",
)
SCRIPT = f"""
import sys
sys.argv = ["w2sd", *sys.argv[1:]]
from w2sd.cli import main
code = main()
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "w2sd plan_only=true"),
        (["--cfg", "job", "--resolve"], "_target_: w2sd.fit.Fit"),
        (["plan_only=true"], "10 stages to compute"),
        (["plan_only=true", "logger=wandb", "model@weak=gpt2", "launch=process"], "9 stages to compute"),
    ],
    ids=["help", "configuration", "plan", "plan of another run"],
)
def test_help_configuration_and_plan_are_told_without_heavy_imports(
    words: list[str], shown: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert shown in done.stdout
    assert not list(tmp_path.iterdir())
