"""The auxiliary confidence loss and its kin: reference vectors V3, V4, V6 and V7, thresholds, warm-ups, symmetries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import refused
from tests.objectives.scored import doubles
from torch import Tensor

from w2sd.objectives.base import Moment
from w2sd.objectives.imitation import ConfidenceWindow
from w2sd.objectives.logconf import Entropy, Hardened, LogConf
from w2sd.objectives.reward import StepObjective, cross_entropy, distribution
from w2sd.objectives.scores import ClassScores, PairScores
from w2sd.parts.fit import Fit
from w2sd.supervision.base import Lesson
from w2sd.supervision.teacher import Balanced

LEGACY = LogConf(warmup=0.1, threshold="mean_label", ramp="jump", min_rows=4)
CORRECTED = replace(LEGACY, ramp="linear")
PAPER = LogConf(min_rows=4)
IN_STEPS = LogConf(warmup_steps=100, threshold="mean_label", min_rows=4)

V3_LOGITS = [[2.0, 0.0], [0.2, 0.0], [0.0, 1.0], [-1.0, 0.5]]
V3_LABELS = [[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]]


def at(objective: StepObjective, step: int, n_steps: int, logits: Tensor, q: Tensor) -> float:
    """The mean loss of a batch at a step."""
    return objective.fixed(Moment(step, n_steps), logits, q)(ClassScores(logits), q).mean().item()


def plain(pair: PairScores, q: Tensor) -> Tensor:
    """The cross-entropy of each row."""
    return cross_entropy(pair.logits.log_softmax(-1), distribution(q))


def some(n: int = 32, seed: int = 0) -> tuple[PairScores, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, n, generator=generator, dtype=torch.float64) * 2
    return PairScores(*scores), torch.rand(n, generator=generator, dtype=torch.float64)


def hard(objective: LogConf, pair: PairScores, q: Tensor) -> list[float]:
    """To what the first class's probability is hardened on each row of a batch."""
    fixed = objective.fixed(Moment(1, 1), pair.logits, q)
    return fixed.hard(pair.logits.log_softmax(-1))[:, 0].tolist()


# --- literal values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "legacy", "corrected"),
    [
        (0, (0.0, 0.5824354614813849), (0.0, 0.5824354614813849)),
        (5, (0.025, 0.5756229614813849), (0.25, 0.5143104614813849)),
        (10, (0.05, 0.5688104614813849), (0.5, 0.44618546148138494)),
        (11, (0.5, 0.44618546148138494), (0.5, 0.44618546148138494)),
    ],
)
def test_the_released_form_and_its_corrected_warm_up(step: int, legacy: Any, corrected: Any) -> None:
    """V3."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    for objective, (share, loss) in ((LEGACY, legacy), (CORRECTED, corrected)):
        assert objective.share(Moment(step, 100)) == pytest.approx(share, abs=1e-12)
        assert at(objective, step, 100, logits, q) == pytest.approx(loss, abs=1e-9)


def test_the_threshold_of_the_released_form() -> None:
    """V3: the quantile of the first class's probability at the mean label of the other."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    fixed = LEGACY.fixed(Moment(1, 1), logits, q)
    assert (fixed.low, fixed.high) == pytest.approx((0.49365548212398136,) * 2, abs=1e-9)
    assert fixed.hard(logits.log_softmax(-1)).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("alpha", "loss"), [(0.0, 0.7535115495652998), (0.5, 0.5371327762409486), (0.75, 0.42894338957877287)]
)
def test_the_form_of_the_paper(alpha: float, loss: float) -> None:
    """V4."""
    p, q = doubles([0.9, 0.55, 0.3, 0.2], [0.6, 0.4, 0.7, 0.1])
    pair = PairScores(p.logit(), torch.zeros_like(p))
    assert hard(PAPER, pair, q) == [1, 1, 0, 0]
    assert replace(PAPER, alpha=alpha)(pair, q).mean().item() == pytest.approx(loss, abs=1e-9)


def test_the_form_with_one_logit() -> None:
    """V6: the quantile at the lower median of the labels."""
    z, q = doubles([1, 0.1, -0.4, -2], [0.8, 0.4, 0.6, 0.1])
    pair, objective = PairScores(z, torch.zeros_like(z)), LogConf(threshold="median_label", min_rows=4)
    assert objective.fixed(Moment(1, 1), pair.logits, q).low == pytest.approx(0.4260457094058264, abs=1e-9)
    assert hard(objective, pair, q) == [1, 1, 0, 0]
    assert objective(pair, q).mean().item() == pytest.approx(0.48690040275867974, abs=1e-9)


@pytest.mark.parametrize(("step", "loss"), [(50, 0.5143104614813849), (200, 0.44618546148138494)])
def test_the_form_with_a_warm_up_in_steps(step: int, loss: float) -> None:
    """V7, whose buffer is the batch."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    assert at(IN_STEPS, step, 10**6, logits, q) == pytest.approx(loss, abs=1e-9)


def test_the_form_on_balanced_labels() -> None:
    """V7: log-odds are centred, and the prior is ½."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    q = torch.from_numpy(Balanced().targets(Lesson(q.numpy(), np.zeros(4))))
    expected = [0.12985774978281595, 0.5820937934213921, 0.4724135241959408, 0.8430766737648119]
    assert q[:, 1].tolist() == pytest.approx(expected, abs=1e-9)
    assert at(replace(PAPER, warmup_steps=100), 200, 10**6, logits, q) == pytest.approx(0.45232367690722886, abs=1e-9)


def test_the_form_with_the_entropy() -> None:
    """V7."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    assert at(Entropy(warmup_steps=100), 200, 10**6, logits, q) == pytest.approx(0.5550628054390435, abs=1e-9)


# --- the warm-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [PAPER, CORRECTED, LEGACY, IN_STEPS, Entropy()], ids=str)
def test_it_begins_with_cross_entropy_to_the_bit(objective: Any) -> None:
    pair, q = some()
    fixed = objective.fixed(Moment(0, 100), pair.logits, q)
    assert torch.equal(fixed(pair, q), plain(pair, q))
    off = replace(objective, alpha=0.0).fixed(Moment(70, 100), pair.logits, q)
    assert torch.equal(off(pair, q), plain(pair, q))


@pytest.mark.parametrize("objective", [PAPER, replace(PAPER, warmup_steps=20), Entropy(alpha=0.5)], ids=str)
def test_the_share_rises_evenly_to_alpha(objective: Any) -> None:
    shares = [objective.share(Moment(step, 100)) for step in (0, 5, 10, 20, 21, 99)]
    assert shares == pytest.approx([0, 0.125, 0.25, 0.5, 0.5, 0.5], abs=1e-12)


def test_without_a_warm_up_alpha_is_there_from_the_start() -> None:
    assert replace(PAPER, warmup=0.0).share(Moment(0, 100)) == 0.5


# --- thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 9, 32, 33])
@pytest.mark.parametrize("seed", range(3))
def test_half_of_a_batch_is_hardened_to_each_class(n: int, seed: int) -> None:
    """Of an odd number the middle row to neither, even if it is computed again with other rounding."""
    pair, q = some(n, seed)
    sides = hard(LogConf(), pair, q)
    assert (sides.count(0), sides.count(1), sides.count(0.5)) == (n // 2, n // 2, n % 2)
    assert [sides[i] for i in pair.margin.argsort()] == sorted(sides)
    fixed = LogConf().fixed(Moment(1, 1), pair.logits, q)
    again = fixed.hard((pair.logits + 1e-9 * torch.randn(n, 2, dtype=torch.float64)).log_softmax(-1))
    assert again[:, 0].tolist() == sides


def test_rows_that_are_equally_sure_are_hardened_alike() -> None:
    same = torch.zeros(8, dtype=torch.float64)
    assert hard(LogConf(), PairScores(same, same), same) == [0.5] * 8
    margins = torch.tensor([3.0, 3.0, 3.0, 1.0, 1.0, 1.0, -2.0, -2.0], dtype=torch.float64)
    assert hard(LogConf(), PairScores(margins, same), same) == [1, 1, 1, 0.5, 0.5, 0.5, 0, 0]


def test_very_sure_predictions_keep_their_order() -> None:
    """In single precision, too, where a probability near 1 has few digits."""
    margins = torch.arange(16.0) + 10
    assert hard(LogConf(), PairScores(margins, torch.zeros(16)), torch.rand(16)) == [0] * 8 + [1] * 8


@pytest.mark.parametrize("mean", [0.1, 0.25, 0.6, 0.9])
def test_as_many_are_hardened_to_a_class_as_the_labels_have_of_it(mean: float) -> None:
    pair, _ = some(200)
    q = torch.linspace(mean - 0.1, mean + 0.1, 200, dtype=torch.float64)
    assert sum(hard(LogConf(threshold="mean_label"), pair, q)) == pytest.approx(200 * mean, abs=1)
    assert sum(hard(LogConf(threshold="median_label"), pair, q)) == pytest.approx(200 * (1 - mean), abs=1.5)


def test_where_all_labels_agree_the_released_form_hardens_to_them() -> None:
    pair, q = some(16)
    assert hard(LogConf(threshold="mean_label"), pair, torch.ones_like(q)) == [1] * 16


@pytest.mark.parametrize("threshold", ["half", "mean_label", "median_label"])
def test_the_order_of_the_rows_changes_no_loss(threshold: str) -> None:
    (pair, q), objective = some(17), LogConf(threshold=threshold)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    moved = objective(PairScores(pair.first[order], pair.second[order]), q[order])
    torch.testing.assert_close(moved, objective(pair, q)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize(
    "objective",
    [LogConf(), LogConf(threshold="mean_label"), Entropy(), ConfidenceWindow(), ConfidenceWindow(0.2)],
    ids=str,
)
def test_a_batch_has_the_same_losses_with_all_slots_and_labels_swapped(objective: Any, n: int) -> None:
    for seed in range(5):
        pair, q = some(n, seed)
        swapped = objective(PairScores(pair.second, pair.first), 1 - q)
        torch.testing.assert_close(swapped, objective(pair, q), rtol=0, atol=1e-12)


def test_the_lower_median_of_an_even_number_is_not_the_same_from_the_other_side() -> None:
    """Which slot comes first decides where that threshold lies, unless the number of rows is odd."""
    objective = LogConf(threshold="median_label", min_rows=2)
    for n, is_same in ((2, False), (3, True)):
        first, q = doubles([1.0, -1.0, 0.3][:n], [0.9, 0.2, 0.6][:n])
        there, back = (PairScores(first, 0 * first), q), (PairScores(0 * first, first), 1 - q)
        limits = [objective.fixed(Moment(1, 1), pair.logits, labels).low for pair, labels in (there, back)]
        assert (limits[0] == pytest.approx(1 - limits[1], abs=1e-12)) is is_same


def test_the_hardened_prediction_is_not_differentiated() -> None:
    pair, q = some(16)
    logits = pair.logits.requires_grad_()
    [gradient] = torch.autograd.grad(LogConf()(ClassScores(logits), torch.stack([q, 1 - q], -1)).sum(), logits)
    sides = torch.tensor(hard(LogConf(), pair, q), dtype=torch.float64)
    pull = pair.margin.sigmoid() - (0.5 * q + 0.5 * sides)
    torch.testing.assert_close(gradient, torch.stack([pull, -pull], -1), rtol=0, atol=1e-12)


def test_the_entropy_is_differentiated_and_makes_the_student_surer() -> None:
    z = torch.tensor([0.4, -2.0], dtype=torch.float64, requires_grad=True)
    objective, q = Entropy(alpha=0.3), z.detach().sigmoid()  # where imitation alone would stay
    [gradient] = torch.autograd.grad(objective(PairScores(z, torch.zeros_like(z)), q).sum(), z)
    assert gradient.tolist() == pytest.approx((-0.3 * z * q * (1 - q)).tolist(), abs=1e-12)


# --- more classes -----------------------------------------------------------------------------------------------------


def test_more_than_two_classes_are_hardened_to_the_strongest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.3, 0.3, 0.3]], dtype=torch.float64)
    fixed = LogConf().fixed(Moment(1, 1), logits, logits.softmax(-1))  # however few: there is no threshold
    assert fixed == Hardened(0.5)
    expected = [[0, 1, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]
    for sides, side in zip(fixed.hard(logits.log_softmax(-1)).tolist(), expected, strict=True):
        assert sides == pytest.approx(side)


# --- small batches and other refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["half", "mean_label"])
def test_a_batch_too_small_for_a_threshold_is_learnt_from_its_labels_alone(threshold: str) -> None:
    objective = LogConf(threshold=threshold)
    for n in (1, 7):
        pair, q = some(n)
        assert torch.equal(objective(pair, q), plain(pair, q))
    pair, q = some(8)
    assert not torch.equal(objective(pair, q), plain(pair, q))


def test_a_global_batch_too_small_for_a_threshold_is_refused() -> None:
    LogConf().check(Fit(batch=8), 2)
    with refused("fit.batch", 7, "8 objective.min_rows"):
        LogConf().check(Fit(batch=7), 2)
    LogConf(min_rows=4).check(Fit(batch=4), 2)
    LogConf().check(Fit(batch=1), 3)  # no threshold, no quantile


def test_thresholds_at_labels_are_refused_for_more_than_two_classes() -> None:
    LogConf().check(Fit(), 3)
    logits = torch.rand(8, 3)
    for ask in (lambda: LEGACY.check(Fit(), 3), lambda: LEGACY(ClassScores(logits), logits.softmax(-1))):
        with refused("objective.threshold", "mean_label", "half 3"):
            ask()


@pytest.mark.parametrize(
    ("knob", "value"),
    [("alpha", 1.5), ("warmup", -0.1), ("warmup_steps", -1), ("threshold", "quarter"), ("ramp", "step")],
)
def test_an_impossible_value_is_refused(knob: str, value: Any) -> None:
    with refused(knob, value):
        LogConf(**{knob: value})


def test_a_jump_after_a_number_of_steps_is_refused() -> None:
    with refused("warmup_steps", 100, "0 ramp=jump"):
        LogConf(ramp="jump", warmup_steps=100)
