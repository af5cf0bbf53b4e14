"""Which parts go together: what each of them allows alone, and a run that needs them both cannot have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from w2sd.config import RunConfig
from w2sd.conflicts.base import NoConflict, dose_of
from w2sd.data.pairs import TARGET, classes_of
from w2sd.errors import Refused, require, within
from w2sd.identity import identity, target
from w2sd.parts.hint import Shown
from w2sd.parts.trainer import Trainer


def check(run: RunConfig) -> None:
    """Refuse a run whose parts do not go together, or whose files are missing."""
    identity(run.data)  # a file that is missing is named before anything that could be wrong with the models
    with within("conflict"):
        run.conflict.check(run.objective)
    _check_dose(run)
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
        _check_hint(run, run.hint)


def _check_dose(run: RunConfig) -> None:
    """Refuse more extra rows than there are, where the data tell how many that is before they are read."""
    n_rows = getattr(run.data, "n_rows", None)
    if n_rows is None:
        return
    for conflict, under in doses(run):
        if draws := getattr(conflict, "draws", ""):
            with under:
                dose_of(n_rows(draws), conflict.ratio, n_rows(TARGET), draws)


def doses(run: RunConfig) -> Iterator[tuple[Any, AbstractContextManager[None]]]:
    """The conflict and, with controls, its placebos; each with a context in which refusals name the run's own knob."""
    placebos = run.conflict.placebos() if run.settings.controls else {}
    for conflict in (run.conflict, *placebos.values()):
        yield conflict, _under_conflict(run, conflict)


@contextmanager
def _under_conflict(run: RunConfig, conflict: Any) -> Iterator[None]:
    try:
        yield
    except Refused as refusal:  # a placebo's dose is a knob of the conflict that it stands beside
        renamed = conflict is not run.conflict and not hasattr(run.conflict, refusal.knob)
        knob = f"placebo_{refusal.knob}" if renamed else refusal.knob
        raise Refused(f"conflict.{knob}", refusal.value, refusal.accepted) from None


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


def _check_hint(run: RunConfig, hint: Shown) -> None:
    """Refuse a hint to a student that reads no rows, or is not taught by the weak model itself, at once and alone."""
    against = {
        "objective": run.objective.student == "policy",
        "adapter": run.adapter.reads_features,
        "conflict": not isinstance(run.conflict, NoConflict),
        "refinement": run.refinement is not None,
        "supervision": not run.supervision.needs_teacher or run.supervision.first_stage is not None,
        "chain": bool(run.chain.hops(run.weak, run.strong)),
    }
    for knob, is_against in against.items():
        accepted = f"none beside {knob}={target(getattr(run, knob))}: it is for rewards and classes from one teacher"
        require(not is_against, "hint", target(hint), accepted)
    with within("hint"):
        hint.words_for(classes_of(run.data))


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
