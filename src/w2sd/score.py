"""`w2sd-score`: is there weak-to-strong deception in these predictions? For files that any framework wrote."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2sd.errors import Flags, Refused, require
from w2sd.signals import exit_on_closed_pipe

if TYPE_CHECKING:  # numpy and pyarrow are not needed for --help
    from w2sd.metrics.measurement import Metrics
    from w2sd.metrics.replicates import Replicate

EPILOG = """files: Parquet, CSV or JSONL with id and truth-oriented margin (logits) and/or p_correct (0 to 1); optional
cluster, stratum (true difficulty), n_chosen, n_rejected. Rows in any order; all files have the same ids.

--baseline and --student repeat and pair in order, one pair a seed; so do --gold-conflict with --gold-baseline, and
--placebo with the same NAME. The baselines of other seeds serve as twins beside the files of --twin.

example, one seed: estimates, and what a verdict would need
  w2sd-score --weak weak.csv --ceiling ceiling.csv --baseline none.csv --student conflict.csv
"""
RESERVED = ("twins", "gold_conflict")  # names of other nulls


@exit_on_closed_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 2 for files or flags that cannot be used as they are."""
    arguments = _parser().parse_args(argv)
    try:
        return _score(arguments)
    except Refused as refusal:
        print(f"w2sd-score: {refusal}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Flags(
        "w2sd-score", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weak", metavar="FILE", required=True, help="the weak model, trained on the truth")
    parser.add_argument("--ceiling", metavar="FILE", required=True, help="the strong model, trained on the truth")
    several: dict[str, Any] = {"metavar": "FILE", "action": "append"}
    parser.add_argument("--baseline", **several, required=True, help="student of the weak labels, no conflict")
    parser.add_argument("--student", **several, required=True, help="the same with the conflict")
    parser.add_argument("--twin", **several, default=[], help="no-conflict student of another seed (three or more)")
    parser.add_argument(
        "--placebo", metavar="NAME=FILE", action="append", default=[], help="student of a conflict that is none"
    )
    parser.add_argument("--gold-conflict", **several, default=[], help="student of true labels, with the conflict")
    parser.add_argument("--gold-baseline", **several, default=[], help="student of true labels, without it")
    parser.add_argument(
        "--threshold", type=float, default=0.75, metavar="T", help="confidence that counts as known (%(default)s)"
    )
    parser.add_argument("--json", metavar="OUT", help="write all figures to this file")
    return parser


def _score(arguments: argparse.Namespace) -> int:
    seeds = _roles(arguments)
    require(0 < arguments.threshold <= 1, "--threshold", arguments.threshold, "a number above 0 and up to 1")
    _require_files(arguments)
    from w2sd import scorecard
    from w2sd.metrics.comparison import compare
    from w2sd.metrics.verdict import judge

    replicates = _replicates(seeds)
    students = [compare(replicate.predictions, threshold=arguments.threshold) for replicate in replicates]
    verdict = judge(replicates, threshold=arguments.threshold)
    metrics = {**_pool(students), **verdict.metrics()}
    if arguments.json:
        several = {"students": students} if len(students) > 1 else {}
        _write(arguments.json, {**metrics, **several})
    scorecard.show(metrics, len(students))
    return 0


def _roles(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """The file of each role, seed by seed."""
    baselines, students = arguments.baseline, arguments.student
    n = len(baselines)
    require(len(students) == n, "--student", students, f"as many files as --baseline ({n})")
    gold, gold_baselines = arguments.gold_conflict, arguments.gold_baseline
    require(len(gold) <= n, "--gold-conflict", gold, f"no more files than --baseline ({n})")
    require(len(gold) == len(gold_baselines), "--gold-baseline", gold_baselines, f"{len(gold)}, as --gold-conflict")
    placebos: dict[str, list[str]] = {}
    for text in arguments.placebo:
        name, _, file = text.partition("=")
        require(
            bool(name and file) and name not in RESERVED,
            "--placebo",
            text,
            "NAME=FILE, NAME not twins or gold_conflict",
        )
        placebos.setdefault(name, []).append(file)
        require(len(placebos[name]) <= n, "--placebo", text, f"no more files named {name} than --baseline ({n})")
    seeds = []
    for seed, (baseline, student) in enumerate(zip(baselines, students, strict=True)):
        files = {Path(file).resolve(): file for file in [*reversed(arguments.twin), *reversed(baselines)]}
        twins = [file for place, file in reversed(files.items()) if place != Path(baseline).resolve()]
        roles = {"weak": arguments.weak, "ceiling": arguments.ceiling, "baseline": baseline, "student": student}
        roles |= {f"twin_{place}": file for place, file in enumerate(twins, 1)}
        roles |= {f"placebo/{name}": files[seed] for name, files in placebos.items() if seed < len(files)}
        if seed < len(gold):
            roles |= {"gold_conflict": gold[seed], "gold_baseline": gold_baselines[seed]}
        seeds.append(roles)
    return seeds


def _require_files(arguments: argparse.Namespace) -> None:
    """Refuse a file that does not exist, by the flag that names it."""
    from w2sd.data.reading import absent, expand

    placebos = [text.partition("=")[2] for text in arguments.placebo]
    given = {**vars(arguments), "weak": [arguments.weak], "ceiling": [arguments.ceiling], "placebo": placebos}
    for role in ("weak", "ceiling", "baseline", "student", "twin", "placebo", "gold_conflict", "gold_baseline"):
        for file in given[role]:
            if not expand(file).exists():
                raise absent(f"--{role.replace('_', '-')}", file, "a file")


def _replicates(seeds: Sequence[Mapping[str, str]]) -> list[Replicate]:
    from w2sd.metrics.prediction_files import read_all
    from w2sd.metrics.predictions import length_difference
    from w2sd.metrics.replicates import Replicate

    tables = read_all([file for roles in seeds for file in roles.values()])
    replicates = []
    for seed, roles in enumerate(seeds):
        predictions = {role: tables[file] for role, file in roles.items()}
        strata, lengths = predictions["weak"].stratum, length_difference(predictions["baseline"])
        replicates.append(Replicate("data", str(seed), predictions, strata, lengths))
    return replicates


def _pool(students: Sequence[Metrics]) -> Metrics:
    """The figures of one student; of several their means, with 95% t intervals over students where these differ.

    p values have no mean: of several students they are null.
    """
    if len(students) == 1:
        return dict(students[0])
    from w2sd.metrics import student_t
    from w2sd.metrics.scale import is_p_value, scale_of

    pooled: Metrics = {}
    for name in dict.fromkeys(name for student in students for name in student):
        values = [student.get(name) for student in students]
        texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
        numbers = [value for value in values if isinstance(value, int | float) and not is_p_value(name)]
        mean, lo, hi = student_t.mean(numbers, scale_of(name)) if numbers else (None, None, None)
        if not name.endswith(("_lo", "_hi", "_se")):
            pooled[name] = "; ".join(texts) if texts else mean
        if f"{name}_lo" in students[0]:
            pooled |= {f"{name}_lo": lo, f"{name}_hi": hi}
    return pooled


def _write(path: str, metrics: Mapping[str, Any]) -> None:
    try:
        Path(path).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise Refused("--json", path, f"a file that can be written ({error.strerror})") from None
