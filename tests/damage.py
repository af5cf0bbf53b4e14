"""What reports make of a damaged store: flipped bytes, and some seventy other kinds of damage.

`python -m tests.damage` flips a bit 150 times each in records of jobs, specs, verdicts and their specs; makes a report
over every kind of damage to a record, a spec, figures and a verdict; and a page where it is a record. Each report has
to be as without the damage, or to name the file and be as without it in everything that it still tells.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from tests.report.writing import FakeStore
from w2sd.atomic import DIGEST, digest_file, read_sealed, write_sealed
from w2sd.pipeline.store import Store
from w2sd.report import cli, curves, results, verdicts

RECORD = "jobs/job-001.json"
FLIPPED = {
    "records of jobs": "jobs/*.json",
    "specs": "artifacts/[!v]*/spec.json",
    "specs of verdicts": "artifacts/verdict-*/spec.json",
    "verdicts": "artifacts/verdict-*/verdict.json",
    "figures": "artifacts/*/metrics.json",
    "runtimes": "artifacts/*/runtime.json",
}
NOTHING = ("nan", "None", "<NA>")  # what a report says where it has no value


class Report(NamedTuple):
    """Everything that a report takes from a store."""

    jobs: Mapping[str, Mapping[Any, str]]  # by id
    stages: Mapping[str, Mapping[Any, str]]  # by key
    looks: Mapping[str, Mapping[Any, str]]  # at students in training, by job
    verdicts: list[tuple[str, Any]]
    damages: list[str]


def build(root: Path) -> Path:
    """Make a small store: two seeds of a conflict, with their verdict, and a job whose student was watched."""
    fake, store = FakeStore(root), Store(root)
    looks = [{"step": step, "labels": 0.5 + step / 10, "truth": 0.5} for step in range(3)]
    student = {"metrics": {"stopping/step": 2, "stopping/truth": 0.5}, "curve": looks}
    jobs = [fake.add_conflict(seed, controls=False) for seed in range(2)]
    jobs.append(fake.add(trained={"student": student, "weak": {"metrics": {"n/parameters": 1000}}}))
    for n, job in enumerate(jobs):
        spec = store.spec("compare", job["compare"])
        assert spec is not None
        runtime = store.read("compare", job["compare"], "runtime.json")
        few = {"pgr": 0.5 + n / 10, "accuracy/student": 0.75, "n/test": 800}
        fake.artifact(spec, metrics=few, diagnostics={"gain": 0.25}, runtime=runtime)
    report(root)  # which leaves the verdict
    return root


def report(root: Path) -> Report:
    """Take from a store what a report takes, without drawing it."""
    frame = results.load(root)
    damages = frame.attrs["damages"]
    stages = results.stages(root, *frame["id"], damages=damages)
    rulings = _verdicts(frame, root)
    _, watched = curves.read(frame, root)
    looks = {job: {name: repr(getattr(curve, name)) for name in ("labels", "truth")} for job, curve in watched.items()}
    return Report(_by(frame, "id"), _by(stages, "key"), looks, rulings, list(damages))


def _by(frame: Any, column: str) -> dict[str, dict[Any, str]]:
    return {row[column]: {name: str(value) for name, value in row.items()} for row in results.rows(frame)}


def verdicts_by_jobs(root: Path) -> dict[frozenset[str], list[tuple[str, Any]]]:
    """Judge every selection of the jobs of a whole store, in a copy of it."""
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(root, Path(place) / "store")
        ids = list(results.load(copy)["id"])
        selections = [chosen for n in range(len(ids) + 1) for chosen in combinations(ids, n)]
        frames = {frozenset(chosen): results.load(copy, jobs=chosen) for chosen in selections if chosen}
        return {frozenset(): []} | {jobs: _verdicts(frame, copy) for jobs, frame in frames.items()}


def _verdicts(frame: Any, root: Path) -> list[tuple[str, Any]]:
    return [(ruling.word, ruling.verdict) for ruling in verdicts.rule(frame, root)]


def agrees(found: Report, whole: Report, judged: Mapping[frozenset[str], list[tuple[str, Any]]]) -> bool:
    """Whether a report tells nothing else than that of the whole store, and what it leaves out, if it does.

    Its verdicts are those of the jobs that are left, unless the damage is to what they are judged by.
    """
    if not found.damages:
        return found == whole
    own = [verdict for verdict in found.verdicts if "is damaged" not in str(verdict[1].reason)]
    known_verdicts = judged[frozenset(found.jobs)]
    if any(verdict not in known_verdicts for verdict in own):
        return False
    return all(
        value in (known[row].get(name), *NOTHING)
        for rows, known in zip(found[:3], whole[:3], strict=True)
        for row, values in rows.items()
        for name, value in values.items()
    )


@contextmanager
def damaged(path: Path, damage: Callable[[Path], Any]) -> Iterator[None]:
    """Damage a file or a folder; it is as it was afterwards."""
    with tempfile.TemporaryDirectory() as aside:
        kept = Path(aside) / "kept"
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, kept)
        damage(path)
        try:
            yield
        finally:
            _remove(path)
            shutil.move(kept, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flip(rng: random.Random) -> Callable[[Path], None]:
    """Return the damage of one bit."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    return damage


def count_flips(root: Path, n: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Flip a bit n times in each of `FLIPPED`: how many reports were the same, told of the damage, or were others."""
    whole, judged, rng, found = report(root), verdicts_by_jobs(root), random.Random(seed), {}
    for what, pattern in FLIPPED.items():
        paths, counts = sorted(root.glob(pattern)), Counter[str]()
        for _ in range(n):
            path = rng.choice(paths)
            with damaged(path, flip(rng)):
                after = report(root)
            told = [line for line in after.damages if line.startswith(str(path))]
            silent = not agrees(after, whole, judged) or bool(after.damages) != bool(told)
            counts["silently other" if silent else "damage told" if told else "the same"] += 1
        found[what] = counts
    return found


def _written(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _in_place(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        _remove(path)
        make(path)

    return damage


def _sealed(**fields: Any) -> Callable[[Path], None]:
    """Write the file as w2sd would if it had other fields; None leaves one out."""

    def damage(path: Path) -> None:
        changed = {**read_sealed(path), **fields}
        write_sealed(path, {name: value for name, value in changed.items() if value is not None})

    return damage


def _committed(name: str, content: str) -> Callable[[Path], None]:
    """Put other content into a file of an artifact, with its digest in the spec."""

    def damage(folder: Path) -> None:
        (folder / name).write_text(content)
        digests = read_sealed(folder / "spec.json")["digests"]
        _sealed(digests={**digests, name: digest_file(folder / name)})(folder / "spec.json")

    return damage


def _neighbour(path: Path) -> Path:
    """Return another file or folder of the same kind."""
    if path.parent.name not in ("jobs", "artifacts"):
        return _neighbour(path.parent) / path.name
    stem = path.name.partition("-")[0]
    return next(other for other in sorted(path.parent.iterdir()) if other != path and other.name.startswith(stem))


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "a blank line": lambda raw: b" \n",
    "its first half": lambda raw: raw[: len(raw) // 2],
    "its second half": lambda raw: raw[len(raw) // 2 :],
    "without its first byte": lambda raw: raw[1:],
    "without its last byte": lambda raw: raw[:-1],
    "without its last lines": lambda raw: raw.rpartition(DIGEST)[0],
    "without a line": lambda raw: raw.replace(raw.splitlines(keepends=True)[-2:][0], b"", 1),
    "without its digest": lambda raw: raw.rpartition(DIGEST)[0] + b"\n}\n",
    "with the digest of something else": lambda raw: raw[:-20] + bytes(48 + n % 10 for n in raw[-20:-4]) + raw[-4:],
    "twice": lambda raw: raw + raw,
    "with words after it": lambda raw: raw + b"and more\n",
    "with words before it": lambda raw: b"log: " + raw,
    "zeros": lambda raw: bytes(len(raw)),
    "noise": lambda raw: random.Random(0).randbytes(len(raw)),
    "text": lambda raw: b"Not the file that you are looking for.\n",
    "HTML": lambda raw: b"<html><script>alert(1)</script></html>",
    "compressed": gzip.compress,
    "with a byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "in UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "with a byte that is no UTF-8": lambda raw: raw.replace(b'"', b'"\xe9', 1),
    "with a control character": lambda raw: raw.replace(b'"', b'"\x00', 1),
    "with half a surrogate": lambda raw: raw.replace(b'"', b'"\\ud800', 1),
    "with other line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "in one line": lambda raw: json.dumps(json.loads(raw)).encode(),
    "with its fields in another order": lambda raw: json.dumps(dict(reversed(json.loads(raw).items()))).encode(),
    "with a field twice": lambda raw: raw.replace(b"{", b'{"kind": "train", "id": "job-002", "pgr": 1,', 1),
    "with a field more": lambda raw: raw.replace(b"{", b'{"more": 1,', 1),
    "with NaN": lambda raw: raw.replace(b"{", b'{"pgr": NaN,', 1),
    "with infinity": lambda raw: raw.replace(b"{", b'{"pgr": -Infinity,', 1),
    "with 1e999": lambda raw: raw.replace(b"{", b'{"pgr": 1e999,', 1),
    "with an integer of 10,000 digits": lambda raw: raw.replace(b"{", b'{"pgr": ' + b"9" * 10_000 + b",", 1),
    "an empty object": lambda raw: b"{}",
    "a list": lambda raw: b"[]",
    "a list of itself": lambda raw: b"[" + raw + b"]",
    "a number": lambda raw: b"1",
    "a string": lambda raw: b'"job"',
    "null": lambda raw: b"null",
    "100,000 lists in each other": lambda raw: b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects in each other": lambda raw: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "four megabytes of blanks": lambda raw: b" " * 2**22,
}
PLACES: dict[str, Callable[[Path], None]] = {
    "a folder": _in_place(Path.mkdir),
    "a folder with a file": _in_place(lambda path: (path.mkdir(), (path / path.name).write_text("{}"))),
    "a link to nothing": _in_place(lambda path: path.symlink_to("nothing")),
    "a link to itself": _in_place(lambda path: path.symlink_to(path)),
    "a link to an empty device": _in_place(lambda path: path.symlink_to(os.devnull)),
    "a link to a device without end": _in_place(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": _in_place(os.mkfifo),
    "a link to another one": _in_place(lambda path: path.symlink_to(_neighbour(path))),
    "another one": lambda path: _in_place(lambda place: shutil.copy2(_neighbour(place), place))(path),
    "not to be read": lambda path: path.chmod(0),
}
RECORDS = {
    "a number as id": _sealed(id=1),
    "another id": _sealed(id="job-009"),
    "no id": _sealed(id=None),
    "no comparison": _sealed(compare=None),
    "a list as comparison": _sealed(compare=["a"]),
    "a number as name": _sealed(name=1),
    "a list of stages": _sealed(stages=["train"]),
    "stages that are text": _sealed(stages={"train/student": "train"}),
    "a stage without a key": _sealed(stages={"train/student": {"kind": "train"}}),
    "text as configuration": _sealed(config="seed=1"),
    "numbers as options": _sealed(choices={"conflict": 1}),
    "a number as oracles": _sealed(oracles=1),
    "numbers as overrides": _sealed(overrides=[1, {}]),
    "a list as command": _sealed(command=["w2sd"]),
    "text as the part of an oracle": _sealed(oracles=["conflict"], config={"conflict": "explicit"}),
    "a configuration of 600 levels": _sealed(config=json.loads('{"a":' * 600 + "1" + "}" * 600)),
    "a number as sweep": _sealed(sweep=1),
    "an object as date": _sealed(finished={"year": 2031}),
}
SPECS = {
    "another kind": _sealed(kind="train"),
    "a number as kind": _sealed(kind=1),
    "no key": _sealed(key=None),
    "no digests": _sealed(digests=None),
    "a list of digests": _sealed(digests=["metrics.json"]),
    "numbers as digests": _sealed(digests={"metrics.json": 1}),
    "text as inputs": _sealed(inputs="weak"),
    "a list as an input": _sealed(inputs={"model": ["a"]}),
    "pairs as inputs": _sealed(inputs=[["model", "a"]]),
    "a number as date": _sealed(created=1),
}
CONTENTS = {
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "text": "no JSON",
    "half a surrogate": '"\\ud800"',
    "100,000 lists in each other": "[" * 100_000 + "]" * 100_000,
}
FIGURES = {
    "a list as figure": '{"pgr": [1]}',
    "an object as figure": '{"pgr": {}}',
    "a number beyond all": '{"pgr": 1' + "0" * 400 + "}",
    "a column of the record": '{"id": 1}',
    "text as figure": '{"pgr": "high", "pgr_lo": 0.1}',
}
FOLDERS = {
    "a file": _in_place(lambda path: path.write_text("{}")),
    "a folder without files": _in_place(Path.mkdir),
    "the folder of another one": lambda path: _in_place(lambda place: shutil.copytree(_neighbour(place), place))(path),
}
KINDS = {
    **{f"text: {name}": _written(change) for name, change in TEXTS.items()},
    **{f"place: {name}": damage for name, damage in PLACES.items()},
}


def cases() -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Yield what is damaged, where it is, and the damage."""
    for name, damage in (KINDS | RECORDS).items():
        yield f"record, {name}", RECORD, damage
    for name, damage in (KINDS | SPECS).items():
        yield f"spec, {name}", "artifacts/compare-*/spec.json", damage
    for name, damage in KINDS.items():
        yield f"figures, {name}", "artifacts/compare-*/diagnostics.json", damage
        yield f"runtime, {name}", "artifacts/train-*/runtime.json", damage
        yield f"verdict, {name}", "artifacts/verdict-*/verdict.json", damage
        yield f"spec of a verdict, {name}", "artifacts/verdict-*/spec.json", damage
    yield (
        "spec, itself as input",
        "artifacts/train-*/spec.json",
        lambda path: _sealed(inputs={"model": read_sealed(path)["key"]})(path),
    )
    for name, content in CONTENTS.items():
        for kind, file in (("compare", "metrics.json"), ("compare", "diagnostics.json"), ("train", "runtime.json")):
            yield f"committed {file}, {name}", f"artifacts/{kind}-*", _committed(file, content)
        yield f"committed verdict, {name}", "artifacts/verdict-*", _committed("verdict.json", content)
    for name, content in FIGURES.items():
        yield f"committed figures, {name}", "artifacts/compare-*", _committed("metrics.json", content)
    yield "committed count, a list", "artifacts/train-*", _committed("metrics.json", '{"n/dropped_long": [1]}')
    yield "committed hardware, a list", "artifacts/train-*", _committed("runtime.json", '{"hardware": ["cpu"]}')
    yield "committed verdict, without fields", "artifacts/verdict-*", _committed("verdict.json", "{}")
    for name, damage in FOLDERS.items():
        yield f"artifact, {name}", "artifacts/compare-*", damage


def find_failures(root: Path, chosen: Iterator[tuple[str, str, Callable[[Path], None]]]) -> list[str]:
    """Make a report over each of these damages; return those over which none was made, or another one."""
    whole, judged, failures = report(root), verdicts_by_jobs(root), []
    for name, pattern, damage in chosen:
        with damaged(sorted(root.glob(pattern))[0], damage):
            try:
                found = report(root)
            except Exception as error:  # whatever it is, there is no report
                failures.append(f"{name}: {error!r}")
                continue
        if not agrees(found, whole, judged):
            failures.append(f"{name}: another report")
    return failures


def main() -> int:
    """Run everything, and print what came of it."""
    with tempfile.TemporaryDirectory() as place:
        root, out = build(Path(place) / "store"), Path(place) / "report"
        flips = count_flips(root, 150)
        for what, counts in flips.items():
            print(f"{what}: {dict(counts)}", flush=True)
        every = list(cases())
        failures = find_failures(root, iter(every))
        pages = 0
        for name, pattern, damage in every:
            if pattern == RECORD:
                with damaged(root / RECORD, damage), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                    code, told = cli.main(["--store", str(root), "--out", str(out)]), report(root).damages
                if code or any(line not in (out / "index.html").read_text() for line in told):
                    failures.append(f"{name}: code {code}, or not on the page")
                pages += 1
        print(f"{len(every)} damages, of {pages} kinds to a record with a page over each")
        print("\n".join(failures) or "a right report over each")
    return int(bool(failures) or any(counts["silently other"] for counts in flips.values()))


if __name__ == "__main__":
    sys.exit(main())
