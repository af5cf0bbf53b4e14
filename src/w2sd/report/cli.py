"""`w2sd-report`: tables, figures and a page from what is in the store; `w2sd-report gc`: what can go from it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2sd.errors import Flags, Refused, StageFailed
from w2sd.signals import exit_on_closed_pipe

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """examples:
  w2sd-report                                     every job in ./store, into ./report
  w2sd-report --name demo --where seed=1          one experiment, some of its jobs
  w2sd-report --by conflict,seed --metric pgr     means over the jobs of each group
  w2sd-report --metric deception,pgr              flips beyond difficulty, with what they are held against
  w2sd-report gc --yes                            delete what no job needs any more (run it when nothing else runs)
"""


@exit_on_closed_pipe()
def main(argv: list[str] | None = None) -> int:
    """Run the command; exit code 1: files are damaged or out of reach; 2: a request that cannot be carried out."""
    arguments = _parser().parse_args(argv)
    store = Path(arguments.store).expanduser()
    try:
        if arguments.command == "gc":
            return _collect(store, delete=arguments.yes, spare=not arguments.interrupted)
        return _report(store, arguments)
    except (Refused, StageFailed) as error:
        print(f"w2sd-report: {error}", file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"w2sd-report: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    store = os.environ.get("W2SD_STORE", "store")
    parser = Flags(
        "w2sd-report", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", metavar="DIR", default=store, help="the store to read (%(default)s)")
    parser.add_argument("--out", metavar="DIR", default="report", help="where to write (%(default)s)")
    parser.add_argument("--name", metavar="EXPERIMENT", help="only jobs of this experiment")
    parser.add_argument(
        "--where", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
        help="only jobs with these values; a key given twice accepts either",
    )  # fmt: skip
    parser.add_argument("--by", metavar="A,B", type=_names, help="group jobs by these knobs: means with t intervals")
    parser.add_argument("--metric", metavar="X,Y", type=_names, help="these metrics; `accuracy` means those under it")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
    gc = commands.add_parser("gc", help="list what no job record can reach, with sizes; delete it with --yes")
    gc.add_argument("--store", metavar="DIR", default=argparse.SUPPRESS, help=f"the store to clean ({store})")
    gc.add_argument("--yes", action="store_true", help="delete what is listed")
    gc.add_argument(
        "--interrupted", action="store_true", help="also checkpoints of interrupted runs, and what else may be theirs"
    )
    return parser


def _report(store: Path, arguments: argparse.Namespace) -> int:
    from w2sd.report import results  # pandas is not needed for --help and gc

    frame = results.pick(store, arguments.name, arguments.where)
    metrics = None if arguments.metric is None else results.find_metrics(frame, arguments.metric)
    by = None if arguments.by is None else results.find_columns(frame, arguments.by)
    present(frame, store, Path(arguments.out).expanduser(), by=by, metrics=metrics)
    return 0


def present(
    frame: pd.DataFrame,
    store: Path,
    out: Path,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> None:
    """Print the tables and verdicts of some jobs, and write their page."""
    from w2sd.report import deceptions, page, pairs_of_models, results, sentences, tables, verdicts

    pairs = pairs_of_models.find(frame)
    if by is not None:
        tables.show(tables.grouped(frame, by, results.HEADLINE if metrics is None else metrics))
    elif metrics is not None:
        tables.show(tables.headline(frame, metrics))
    else:
        means = tables.repetitions(frame)
        same = means is not None and pairs_of_models.are_groups(pairs, frame, means)
        tables.print_table(frame, means=pairs_of_models.table(pairs, frame) if same else None)
    if pairs:
        tables.show(pairs_of_models.medians(pairs))
    for flag in sentences.flags(frame):
        print(f"{flag}\n")
    rulings = verdicts.rule(frame, store)
    for table in deceptions.summary(rulings):
        tables.show(table)
    if missing := frame.attrs["missing"]:
        print(f"left out: {missing} job{'s' * (missing > 1)} whose results are no longer in the store")
    with page.turn(out):
        index = page.write(frame, store, out, by=by, metrics=metrics, rulings=rulings)
    for line in frame.attrs["damages"].lines():
        print(line)
    print(f"page: {index}")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _collect(store: Path, *, delete: bool, spare: bool) -> int:
    from w2sd.report import garbage, notation

    running, leftovers = garbage.held(store), garbage.find(store)  # in this order: what starts now is not listed
    may_go_on, gone = spare and garbage.interrupted(leftovers, running), list[int]()
    for leftover in leftovers:
        kept = garbage.why_kept(leftover, running, may_go_on)
        if not kept and delete and not garbage.delete(store, leftover):
            kept = "a running stage has just taken it"
        if not kept:
            gone.append(leftover.n_bytes)
        note = f"  kept: {kept}" if kept else ""
        print(f"{notation.size(leftover.n_bytes):>9}  {leftover.path.relative_to(store)}{note}")
    folders = f"{notation.size(sum(gone))} in {len(gone)} folder{'s' * (len(gone) != 1)}"
    print(f"deleted {folders}" if delete else f"{folders} can go" + ("; add --yes to delete" if gone else ""))
    return 0
