"""The real chain on the embedded world, from the command line to the page."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.builders import assert_refusal, comparisons
from w2sd import cli

pytestmark = pytest.mark.smoke

KINDS = {"pretrain": 2, "train": 3, "label": 1, "evaluate": 3, "compare": 1}


class Ran(NamedTuple):
    code: int
    store: Path
    report: Path


def run(root: Path, *overrides: str, out: Path | None = None, fast: bool = True) -> Ran:
    """`w2sd debug=fast ...` in this process, where torch is imported already."""
    argv = sys.argv
    sys.argv = ["w2sd", *overrides, *arguments(root, out)[not fast :]]
    try:
        return Ran(cli.main(), root / "store", root / "report")
    except SystemExit as stop:
        return Ran(int(stop.code or 0), root / "store", root / "report")
    finally:
        sys.argv = argv


def arguments(root: Path, out: Path | None = None) -> list[str]:
    return ["debug=fast", f"store={root / 'store'}", f"out={out or root / 'report'}"]


def start(root: Path, *overrides: str) -> subprocess.Popen[str]:
    """The same in a process of its own, that can be killed."""
    command = [sys.executable, "-m", "w2sd", *overrides, *arguments(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may be run where it is ignored
    )


def results(store: Path) -> dict[str, bytes]:
    """Every metrics.json and diagnostics.json of a store."""
    files = ("metrics", "diagnostics")
    return {
        f"{path.parent.name} {name}": path.read_bytes()
        for name in files
        for path in store.glob(f"artifacts/*/{name}.json")
    }


def lend_pretrained(ran: Ran, root: Path) -> None:
    """Give the store of a run that is to come what a finished one has pretrained: most of the work of `debug=fast`."""
    for path in ran.store.glob("artifacts/pretrain-*"):
        shutil.copytree(path, root / "store" / "artifacts" / path.name)


def count(store: Path) -> dict[str, int]:
    kinds = [path.name.partition("-")[0] for path in store.glob("artifacts/*")]
    return {kind: kinds.count(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run from an empty store."""
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_a_run_makes_every_stage_once_and_leaves_nothing_else_behind(undisturbed: Ran) -> None:
    assert undisturbed.code == 0
    assert count(undisturbed.store) == KINDS
    assert not list((undisturbed.store / "work").glob("*"))
    assert not list((undisturbed.store / "tmp").glob("*"))


def test_the_page_shows_the_result(undisturbed: Ran) -> None:
    page = (undisturbed.report / "index.html").read_text()
    [metrics] = comparisons(undisturbed.store).values()
    assert f"{metrics['accuracy/student']:.3f}" in page


def test_the_students_own_metrics_are_those_of_the_comparison(undisturbed: Ran) -> None:
    found = {name: json.loads(text) for name, text in results(undisturbed.store).items()}
    [compared] = comparisons(undisturbed.store).values()
    evaluated = sorted(metrics["accuracy"] for name, metrics in found.items() if name.startswith("evaluate"))
    assert evaluated == sorted(compared[f"accuracy/{role}"] for role in ("weak", "student", "ceiling"))
    [logged] = [metrics for name, metrics in found.items() if name.startswith("evaluate") and "pgr" in metrics]
    assert logged["pgr"] == compared["pgr"]


def test_a_second_run_computes_nothing_and_imports_no_torch(undisturbed: Ran) -> None:
    program = (
        "import sys; from w2sd.cli import main; code = main();"
        "assert code == 0; assert not {'torch', 'transformers', 'pytorch_lightning'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, *arguments(undisturbed.store.parent)]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "every stage was found in the store" in again.stderr


def test_a_store_that_can_only_be_read_is_as_good_where_nothing_is_missing(undisturbed: Ran, tmp_path: Path) -> None:
    store = shutil.copytree(undisturbed.store, tmp_path / "store")
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && '
    words = ["unshare", "-m", "sh", "-c", mount + 'exec "$@"', str(store)]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")

    def do(module: str, *arguments: str) -> tuple[int, str]:
        program = f"import sys; from {module} import main; sys.exit(main())"
        done = subprocess.run([*words, sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        return done.returncode, done.stderr

    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    code, said = do("w2sd.cli", *arguments(tmp_path))
    assert (code, said.splitlines()[1:]) == (0, [f"[w2sd] {store} can only be read: this job is not recorded there"])
    assert (tmp_path / "report" / "index.html").is_file()
    assert do("w2sd.cli", "plan_only=true", *arguments(tmp_path))[0] == 0
    assert do("w2sd.report.cli", "--store", str(store), "--out", str(tmp_path / "page"))[0] == 0
    assert (tmp_path / "page" / "index.html").is_file()
    code, said = do("w2sd.cli", "seed=1", *arguments(tmp_path))
    assert code == 2
    assert_refusal(said, "store", str(store))
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_ended_and_killed_in_pretraining_resumes_and_gives_the_same_bytes(
    undisturbed: Ran, tmp_path: Path
) -> None:
    """A second run from an empty store: so two runs with the same seeds give the same bytes."""
    process = start(tmp_path, "trainer.save_every_s=1e6")
    wait_for(lambda: list((tmp_path / "report" / "logs").glob("*/metrics.csv")), process)
    process.send_signal(signal.SIGINT)  # which does what SIGTERM does
    said = process.communicate()[1]
    assert (process.returncode, said.splitlines()[-1].partition(";")[0]) == (130, "w2sd: ended by Ctrl-C")
    [saved] = (tmp_path / "store" / "work").glob("*/last.ckpt")
    assert not list((tmp_path / "store" / "tmp").iterdir())
    saved.unlink()
    process = start(tmp_path, "trainer.save_every_s=0.2")
    wait_for(lambda: list((tmp_path / "store" / "work").glob("*/last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not count(tmp_path / "store")["pretrain"]
    assert results(run(tmp_path).store) == results(undisturbed.store)


@pytest.mark.slow
def test_a_run_killed_in_every_stage_gives_the_same_bytes(undisturbed: Ran, tmp_path: Path) -> None:
    survived: set[str] = set()
    while True:
        process = start(tmp_path, "trainer.save_every_s=0.1")
        assert process.stderr is not None
        began = None
        for line in process.stderr:
            if line.endswith(" ...\n") and (name := line.split()[1]) not in survived:
                began = name
                time.sleep(0.05)
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        if began is None:
            break
        survived.add(began)
    assert len(survived) == sum(KINDS.values())
    assert results(tmp_path / "store") == results(undisturbed.store)


def test_a_sweep_over_seeds_shares_everything_above_the_student(undisturbed: Ran) -> None:
    before = count(undisturbed.store)
    swept = run(undisturbed.store.parent, "-m", "seed=0,1,2")
    assert swept.code == 0
    made = {kind: n - before[kind] for kind, n in count(swept.store).items()}
    assert made == {"pretrain": 0, "train": 2, "label": 0, "evaluate": 2, "compare": 2}
    jobs = [json.loads(path.read_text()) for path in swept.store.glob("jobs/*.json")]
    assert {job["config"]["seed"] for job in jobs} == {0, 1, 2}
    assert len({job["sweep"] for job in jobs}) == 1
    assert [job["oracles"] for job in jobs] == [[]] * 3


def test_a_sweep_is_shared_by_several_processes(undisturbed: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    for part in range(2):
        assert run(undisturbed.store.parent, "-m", "name=shared", f"jobs={part}/2", "seed=0,1,2").code == 0
    # what another share is to refuse is none of this one's business, which says what it leaves
    capsys.readouterr()
    assert run(undisturbed.store.parent, "-m", "name=shared", "jobs=0/2", "seed=0,-1").code == 0
    assert "[w2sd] job 1: not of the share jobs=0/2\n" in capsys.readouterr().err
    jobs = [json.loads(path.read_text()) for path in undisturbed.store.glob("jobs/shared-*.json")]
    assert sorted((job["config"]["seed"], job["config"]["jobs"]) for job in jobs) == [
        (0, "0/2"),
        (1, "1/2"),
        (2, "0/2"),
    ]


def test_a_loss_that_is_not_finite_stops_its_stage_and_keeps_what_finished(
    undisturbed: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    before = count(undisturbed.store)
    stopped = run(undisturbed.store.parent, "fit.lr=1e30", "fit.clip=0", "name=diverged")
    said = capsys.readouterr().err
    assert stopped.code == 1
    last = said.strip().splitlines()[-1]
    assert "at step" in last
    assert "1e+30" in last
    assert "Traceback" not in said
    assert count(stopped.store) == before
    assert not list(stopped.store.glob("jobs/diverged*"))


def test_wandb_offline_makes_a_run_per_trained_stage_and_one_for_the_job(undisturbed: Ran, tmp_path: Path) -> None:
    logged = run(undisturbed.store.parent, "logger=wandb_offline", "seed=7", out=tmp_path)
    assert logged.code == 0
    runs = sorted(path.relative_to(tmp_path).parts[1].partition("-")[0] for path in tmp_path.rglob("*.wandb"))
    assert runs == ["job", "train"]
    [summary] = tmp_path.glob("logs/job-*/**/*.wandb")
    assert b"accuracy/student" in summary.read_bytes()
    [trained] = tmp_path.glob("logs/train-*/**/*.wandb")
    assert b"throughput/pairs_per_cpu_s" in trained.read_bytes()
    assert b"memory/peak_rss_mb" in trained.read_bytes()


@pytest.mark.slow
def test_stages_in_processes_of_their_own_give_the_same_bytes(undisturbed: Ran, tmp_path: Path) -> None:
    apart = run(tmp_path, "launch=process")
    assert apart.code == 0
    assert results(apart.store) == results(undisturbed.store)


@pytest.mark.slow
def test_two_jobs_at_a_time_share_stages_without_repeating_them(undisturbed: Ran, tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "hydra/launcher=two_jobs", "seed=0,1")
    process.communicate()
    assert process.returncode == 0
    assert count(tmp_path / "store") == {"pretrain": 2, "train": 4, "label": 1, "evaluate": 4, "compare": 2}
    first = {name: text for name, text in results(tmp_path / "store").items() if name in results(undisturbed.store)}
    assert first == {name: results(undisturbed.store)[name] for name in first}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Return when the condition holds; a process that ends before that is a failure."""
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the run ended before it could be killed: {process.communicate()[1]}")
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_devices_measure_what_one_does(undisturbed: Ran, strategy: str, tmp_path: Path) -> None:
    shared = run(tmp_path, f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.micro_tokens=4096")
    assert shared.code == 0
    [one], [two] = (comparisons(store).values() for store in (undisturbed.store, shared.store))
    assert two == pytest.approx(one, abs=1e-4)
    assert two["accuracy/ceiling"] > 0.6  # something was learnt
