"""Which parts go together, and whether the rows are enough for them: all that needs no model.

`check` reads no row. `check_rows` reads the table of a source; the stage that trains asks the same of the rows that are
left once a model and a supervision have dropped theirs.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

from w2sd.config import RunConfig
from w2sd.conflicts.base import Conflict, NoConflict, blind_spots
from w2sd.data.pairs import TARGET, Table, classes_of
from w2sd.data.reading import expand
from w2sd.errors import Refused, require, within
from w2sd.identity import identity, target
from w2sd.parts.stopping import Stopping
from w2sd.parts.trainer import Trainer
from w2sd.parts.words import Shown
from w2sd.supervision.teacher import Soft

MIN_HELD = 2  # rows on either side of a holdout
SMALL = 4_000_000  # bytes of a file that is read in about a second


def check(run: RunConfig) -> None:
    """Refuse a run whose parts do not go together, or whose files are missing."""
    identity(run.data)  # a file that is missing is named before anything that could be wrong with the models
    with within("conflict"):
        run.conflict.check(run.objective)
    blind_spots(run.conflict, run.data, run.weak)
    if type(run.conflict).relabel is not Conflict.relabel and not isinstance(run.supervision, Soft):
        accepted = f"soft beside conflict={target(run.conflict)}, which changes how sure weak labels are"
        raise Refused("supervision", target(run.supervision), accepted)
    if hasattr(run.objective, "check"):
        run.objective.check(run.fit, len(classes_of(run.data) or ()) or None)
    if not run.supervision.needs_teacher:
        _check_no_teacher(run)
    if classes_of(run.data):
        _check_classes(run)
    elif run.refinement is not None:
        raise Refused("refinement", target(run.refinement), "refinement=none: only items are asked about in a context")
    elif run.head is not None:
        raise Refused("head", target(run.head), "head=new: these data are pairs, and only classes have words")
    if run.adapter.reads_features:
        _check_probe(run)
    if run.hint is not None:
        accepted = f"none beside conflict={target(run.conflict)}: of its arms all would read it"
        require(isinstance(run.conflict, NoConflict), "hint", target(run.hint), accepted)
        _check_hint(run, "hint", run.hint)
    elif run.conflict.hint is not None:
        _check_hint(run, "conflict", run.conflict.hint)


def _check_no_teacher(run: RunConfig) -> None:
    """Refuse what would be done to a teacher's labels where there are none."""
    accepted = f"none beside supervision={target(run.supervision)}, which asks no teacher"
    require(run.refinement is None, "refinement", target(run.refinement), accepted)
    require(not run.chain.hops(run.weak, run.strong), "chain", target(run.chain), accepted.replace("none", "direct", 1))


def _check_classes(run: RunConfig) -> None:
    """Refuse what only pairs can have, and words that do not fit the classes."""
    if run.refinement is not None:
        with within("refinement"):
            run.refinement.words_for(classes_of(run.data) or ())
    if run.head is not None:
        with within("head"):
            run.head.words_for(classes_of(run.data) or ())
    if not run.objective.reads_classes:
        raise Refused("objective", target(run.objective), "one that reads classes, such as objective=reward_bce")
    if not isinstance(run.conflict, NoConflict):
        raise Refused(
            "conflict", target(run.conflict), "conflict=none: conflicts are about pairs, and these data are items"
        )


def _check_probe(run: RunConfig) -> None:
    """Refuse a linear probe of what writes, or of features that would have to change."""
    accepted = "full, head_only or lora: a policy writes, and no linear probe does"
    require(run.objective.student != "policy", "adapter", "linear_probe", accepted)
    require(run.head is None, "head", target(run.head), "head=new with adapter=linear_probe")
    accepted = "false with adapter=linear_probe, whose features are read once and without"
    require(not run.fit.dropout, "fit.dropout", run.fit.dropout, accepted)


def _check_hint(run: RunConfig, knob: str, hint: Shown) -> None:
    """Refuse a hint to a student that reads no rows, or is not taught by the weak model itself, at once and alone."""
    against = {
        "objective": run.objective.student == "policy",
        "adapter": run.adapter.reads_features,
        "refinement": run.refinement is not None,
        "supervision": not run.supervision.needs_teacher or run.supervision.first_stage is not None,
        "chain": bool(run.chain.hops(run.weak, run.strong)),
    }
    for other, is_against in against.items():
        accepted = f"none beside {other}={target(getattr(run, other))}: it is for rewards and classes from one teacher"
        require(not is_against, knob, target(getattr(run, knob)), accepted)
    with within(knob):
        hint.words_for(classes_of(run.data))


def at_hand(data: Any) -> bool:
    """Whether the rows can be read at once: they are generated, or in small local files, and not on a hub."""
    paths = [expand(value) for value in vars(data).values() if isinstance(value, str) and value]
    return not hasattr(data, "id") and sum(path.stat().st_size for path in paths if path.is_file()) <= SMALL


def check_rows(run: RunConfig, table: Table) -> None:
    """Refuse a run that has too few rows for its chain, conflict, placebos, holdout, threshold or neighbours.

    Counted are the rows of a split, before a model or a supervision leaves any out and without those of a conflict,
    whose baseline has none of them.
    """
    n_parts = 1 if run.chain.reuse_prompts else 1 + len(run.chain.hops(run.weak, run.strong))
    _check_extra_rows(run, table, n_parts)
    _check_trained_rows(run, table, n_parts)
    _check_neighbours(run, table, n_parts)


def _check_extra_rows(run: RunConfig, table: Table, n_parts: int) -> None:
    """Refuse too few rows for a conflict or a placebo, and too few parts of w2s: the first `n_parts` train students."""
    given = getattr(run.data, "w2s_parts", 1)
    for part in range(n_parts):
        if not table.rows("w2s", part=part):
            raise Refused("data.w2s_parts", given, f"{n_parts} or more that have rows, one for each student in a row")
    placebos = run.conflict.placebos() if run.settings.controls else {}
    for part in range(n_parts if run.chain.conflict_everywhere else 1):
        for conflict in (run.conflict, *placebos.values()):
            with within("conflict"):  # a placebo has the dose of the conflict that it stands beside
                is_blind = blind_spots(conflict, run.data, run.weak)
                extra = conflict.extra(table, len(table.rows("w2s", part=part)), is_blind)
            if any(pair.facet == TARGET and pair.part < n_parts for pair in extra.pairs):
                accepted = f"{n_parts + 1} or more: a placebo has a part of its own, which trains no student"
                raise Refused("data.w2s_parts", given, accepted)


def _check_trained_rows(run: RunConfig, table: Table, n_parts: int) -> None:
    """Refuse too few rows for a holdout or a threshold; warn of a batch that is larger than all of them."""
    stopping, n_options = run.stopping, len(classes_of(run.data) or ()) or 2
    for split, part in [("gt", 0), *(("w2s", part) for part in range(n_parts))]:
        rows, n_held = table.rows(split, part=part), 0
        if stopping is not None:
            n_held = sum(stopping.holds_out(row.cluster) for row in rows)
            check_holdout(stopping, n_held, len(rows), split)
        objective = getattr(run.objective, "under_truth", run.objective) if split == "gt" else run.objective
        n = len(rows) - n_held
        if run.fit.batch > n:
            message = "fit.batch: %d is more than the %d rows of %s to train on: each epoch is one step on all of them"
            logging.getLogger(__name__).warning(message, run.fit.batch, n, split)
        check_threshold(objective, n, n_options, split)


def check_holdout(stopping: Stopping, n_held: int, n_rows: int, split: str) -> None:
    """Refuse a holdout of next to none or next to all rows of a training."""
    accepted = f"a share that holds out {MIN_HELD} or more of the {n_rows} rows of {split}, whole clusters, "
    accepted += f"and leaves {MIN_HELD} or more: it holds out {n_held}"
    require(MIN_HELD <= n_held <= n_rows - MIN_HELD, "stopping.holdout", stopping.holdout, accepted)


def check_threshold(objective: Any, n_rows: int, n_options: int, split: str) -> None:
    """Refuse fewer training rows than the threshold of an objective needs; of more options than two there is none."""
    least = getattr(objective, "min_rows", 0) if n_options == 2 else 0
    accepted = f"at most {n_rows}: so many rows of {split} are trained on, and fewer than these have no threshold"
    require(least <= n_rows, "objective.min_rows", least, accepted)


def _check_neighbours(run: RunConfig, table: Table, n_parts: int) -> None:
    """Refuse more neighbours than a student's rows have: those that are held out, and the others, are labelled apart.

    Rows that a model cannot fit are counted too: what is taken here may still be refused by the stage that trains.
    """
    k, stopping = run.supervision.neighbours, run.stopping
    for part in range(n_parts if k else 0):
        n_of = Counter(stopping is not None and stopping.holds_out(row.cluster) for row in table.rows("w2s", part=part))
        for is_held, n in n_of.items():
            which = "of w2s"
            if stopping:
                which = f"that stopping.holdout={stopping.holdout:g} {'holds out' if is_held else 'leaves'}"
            accepted = f"at most {n - 1}, the neighbours that each of the {n} rows {which} has among them"
            require(k < n, "supervision.k", k, accepted)


def check_installed(run: RunConfig) -> None:
    """Refuse parts that need a package which is not here."""
    run.adapter.check_installed()
    if hasattr(run.data, "check_installed"):
        run.data.check_installed()


def check_nodes(trainer: Trainer) -> None:
    """Refuse several nodes where they could not be reached: outside a job of SLURM's, or in one of another size."""
    if trainer.nodes == 1:
        return
    here = os.environ.get("SLURM_JOB_NUM_NODES")
    is_on_one = "SLURMD_NODENAME" in os.environ  # and not where the job was asked for, which the others may not reach
    is_alone = os.environ.get("SLURM_STEP_NUM_TASKS", "1") == "1"
    if here != str(trainer.nodes) or not is_on_one or not is_alone:
        job = "as many as the SLURM job has on whose first node w2sd is started, once and without srun"
        raise Refused("trainer.nodes", trainer.nodes, f"1, or {job} (SLURM_JOB_NUM_NODES is {here or 'not set'})")
