"""What a student is taught: which examples, and how likely each option of each is to be the right one.

The options of a pair are its two slots, of which a coin decides which one holds the better answer; those of an item are
its classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2sd.conflicts.base import COIN, INVERTED, SOURCE, Conflict, Extra, blind_spots
from w2sd.data.pairs import Item, Pair, Table, classes_of, coin, texts_of
from w2sd.errors import Refused, StageFailed, within
from w2sd.identity import digest
from w2sd.parts.stopping import Stopping
from w2sd.pipeline.stage import Task
from w2sd.predictions import PREDICTIONS, read_distributions, read_predictions
from w2sd.stages import features
from w2sd.supervision.base import Lesson

Floats = NDArray[np.float64]
SLOTS = ("first", "second")  # the options of a pair


def lessons(task: Task, table: Table, conflict: Conflict) -> tuple[list[Any], Floats, int]:
    """The examples to be trained on, their targets, and how many are a student's own: a conflict's come after them."""
    own, targets_NK = supervised(task, table.rows(task.params["split"], part=task.params["part"]))
    if type(conflict).relabel is not Conflict.relabel:
        targets_NK = conflict.relabel(targets_NK, np.array([task.draw(pair.id) for pair in own]))
    extra = conflict.extra(table, len(own), blind_spots(conflict, task.params["data"], task.params.get("weak")))
    labels = extra_targets(task, extra)
    added = [pair for pair in extra.pairs if pair.id in labels]
    return own + added, np.concatenate([targets_NK, *(labels[pair.id][None] for pair in added)]), len(own)


def supervised(task: Task, examples: list[Any]) -> tuple[list[Any], Floats]:
    """The examples that are trained on, and their targets as the supervision has them."""
    supervision, n_options = task.params["supervision"], len(classes_of(task.params["data"]) or SLOTS)
    if supervision is None:  # the data's own labels: weak model and ceiling
        return examples, np.eye(n_options)[[right_option(example) for example in examples]]
    teacher = opinions(task, "labels", examples) if supervision.needs_teacher else None
    p_ceiling = p_correct_in(task.inputs["ceiling_labels"]) if supervision.needs_ceiling else None
    second = opinions(task, "second_labels", examples) if supervision.first_stage is not None else None
    probed = set(features.ids_in(task.inputs["probed"])) if supervision.needs_features else None
    for known in (teacher, p_ceiling, second, probed):  # a model's context may have been too short for some
        examples = [example for example in examples if known is None or example.id in known]
    undecided = np.full(n_options, 1 / n_options)
    lesson = lesson_of(examples, {each.id: undecided for each in examples} if teacher is None else teacher)
    if supervision.reads_truth:
        length = np.array([sum(map(len, texts_of(example))) for example in examples], dtype=float)
        lesson = lesson._replace(truth=np.array([right_option(example) for example in examples]), length=length)
    ids = [example.id for example in examples]
    if p_ceiling is not None:
        lesson = lesson._replace(p_ceiling=np.array([p_ceiling[id] for id in ids]))
    if second is not None:
        lesson = lesson._replace(p_second_NK=np.array([second[id] for id in ids]))
    if probed is not None:
        lesson = lesson._replace(features_NAD=features.states_of(task.inputs["probed"], ids))
    targets_NK = _targets(supervision, lesson, examples, task.params.get("stopping"))
    kept = ~np.isnan(targets_NK.sum(axis=1))
    if kept.sum() < 2:
        raise StageFailed(f"supervision leaves {kept.sum()} of {len(kept)} rows to train on; {_remedy(supervision)}")
    return [example for example, keep in zip(examples, kept, strict=True) if keep], targets_NK[kept]


def _remedy(supervision: Any) -> str:
    """What to change where a supervision leaves too few rows: the knob that decides how many."""
    if getattr(supervision, "probe", "") == "topological":  # whose pieces grow with the neighbours that are linked
        return f"raise supervision.k={supervision.k}"
    knob = next((knob for knob in ("threshold", "share") if hasattr(supervision, knob)), None)
    return f"lower supervision.{knob}={getattr(supervision, knob)}" if knob else "choose another one"


def _targets(supervision: Any, lesson: Lesson, examples: Sequence[Pair | Item], stopping: Stopping | None) -> Floats:
    """What a supervision makes of these examples: of those that are held out and of the others apart."""
    held = np.array([stopping is not None and stopping.holds_out(example.cluster) for example in examples], dtype=bool)
    targets_NK = np.full(lesson.p_NK.shape, np.nan)
    with within("supervision"):
        targets_NK[~held] = supervision.targets(lesson.pick(~held))
        if stopping is None or not held.any():
            return targets_NK
        try:
            targets_NK[held] = supervision.targets(lesson.pick(held))
        except Refused as refusal:
            accepted = f"{refusal.accepted} (those that stopping.holdout={stopping.holdout:g} holds out)"
            raise Refused(refusal.knob, refusal.value, accepted) from None
    return targets_NK


def extra_targets(task: Task, extra: Extra) -> dict[str, Floats]:
    """The targets of the pairs that a conflict adds, by id."""
    certain = np.eye(2)
    if extra.labels == COIN:
        return {pair.id: certain[1 - int(digest("coin", pair.id), 16) % 2] for pair in extra.pairs}
    if extra.labels == INVERTED:
        return {pair.id: certain[1 - right_option(pair)] for pair in extra.pairs}
    if extra.labels == SOURCE or "labels" not in task.inputs:  # under the truth, the truth is the teacher
        return {pair.id: certain[right_option(pair)] for pair in extra.pairs}
    supervision, teacher = task.params["supervision"], opinions(task, "labels", extra.pairs)
    pairs = [pair for pair in extra.pairs if pair.id in teacher]
    lesson = lesson_of(pairs, teacher)
    # of own rows, of which these are none, more is known
    is_about_own = supervision.reads_truth or supervision.needs_features or supervision.first_stage is not None
    targets_NK = lesson.p_NK if is_about_own else supervision.targets(lesson)
    targets_NK = np.where(np.isnan(targets_NK), lesson.p_NK, targets_NK)  # no row is left out: the dose is the arm's
    return dict(zip((pair.id for pair in pairs), targets_NK, strict=True))


def lesson_of(examples: Sequence[Pair | Item], teacher: Mapping[str, Floats]) -> Lesson:
    """What a supervision sees of these examples that does not take the truth."""
    return Lesson(
        p_NK=np.array([teacher[example.id] for example in examples]),
        noise=np.array([int(digest("noise", example.id), 16) / 2**64 for example in examples]),
    )


def p_correct_in(folder: Path, file: str = PREDICTIONS) -> dict[str, float]:
    """How sure a model is of the right option, by example id."""
    predictions = read_predictions(folder / file)
    return dict(zip(predictions.ids, predictions.p_correct.tolist(), strict=True))


def opinions(task: Task, role: str, examples: Sequence[Pair | Item], file: str = PREDICTIONS) -> dict[str, Floats]:
    """P(option) by example id, as the model in input `role` predicted; examples too long for it are missing."""
    folder = task.inputs[role]
    if classes_of(task.params["data"]):
        return read_distributions(folder)
    slots = {id: (1 - p, p) if coin(id) else (p, 1 - p) for id, p in p_correct_in(folder, file).items()}
    return {pair.id: np.array(slots[pair.id]) for pair in examples if pair.id in slots}


def hinted(
    task: Task, hint: Any, role: str, examples: list[Any], file: str = PREDICTIONS
) -> tuple[list[Any], list[Any]]:
    """The examples of which another model knows its mind, and the same as a student reads them who is shown that.

    Of options that it finds equally likely the first is shown: of a pair that is a slot, which says nothing about the
    truth. Without a hint examples are read as they are.
    """
    if hint is None:
        return examples, examples
    teacher, words = opinions(task, role, examples, file), hint.words_for(classes_of(task.params["data"]))
    examples = [example for example in examples if example.id in teacher]
    return examples, [hint.write(example, int(teacher[example.id].argmax()), words) for example in examples]


def right_option(example: Pair | Item) -> int:
    """Which option is right."""
    return example.label if isinstance(example, Item) else int(coin(example.id))
