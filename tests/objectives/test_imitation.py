"""Objectives of distributions: the reference vectors V1, V5, V8 and V9, and what holds for any number of classes."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest
import torch
from omegaconf import OmegaConf
from tests.builders import refused
from tests.objectives.scored import doubles, pure
from torch import Tensor
from torch.nn.functional import one_hot

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.objectives.imitation import (
    MIDWEAK,
    ConfidenceWindow,
    ForwardKL,
    Product,
    ReverseCE,
    ReverseKL,
    Squared,
    Window,
)
from w2sd.objectives.logconf import Hardened
from w2sd.objectives.reward import RewardBCE, cross_entropy, distribution
from w2sd.objectives.scores import ClassScores, PairScores
from w2sd.parts.fit import Fit

BUILT = {
    path.stem: build(OmegaConf.to_container(OmegaConf.load(path)), "objective")
    for path in sorted((CONF / "objective").glob("*.yaml"))
}
OPTIONS = {name: objective for name, objective in BUILT.items() if objective.reads_classes}
each_option = pytest.mark.parametrize("option", OPTIONS)
REFUSED = ("logconf_legacy", True)  # more than two classes
each_width = pytest.mark.parametrize("n_classes", [2, 3, 7])


def some(n_classes: int, n: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits around 0, and targets with a certain one and an even one among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, n_classes, generator=generator, dtype=torch.float64) * 2
    q = torch.randn(n, n_classes, generator=generator, dtype=torch.float64).softmax(-1)
    q[0], q[1] = one_hot(torch.tensor(1), n_classes), 1 / n_classes
    return logits, q


def at_a_step(option: str, n_classes: int) -> Any:
    """The option as a function of one row."""
    if option.startswith("logconf") and n_classes > 2:
        return Hardened(0.5)
    return pure(OPTIONS[option])


# --- literal values ---------------------------------------------------------------------------------------------------

V3_LOGITS = [[2.0, 0.0], [0.2, 0.0], [0.0, 1.0], [-1.0, 0.5]]
V3_LABELS = [[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]]
V9 = [
    (RewardBCE(), 0.5824354614813849),
    (ForwardKL(), 0.055095119982938444),
    (ReverseKL(), 0.056560938035135025),
    (ReverseCE(), 0.5842510874318372),
    (Product(), 0.4174285527486194),  # V5
    (Product(beta=0.0), 0.5824354614813849),
    (ConfidenceWindow(0.15), 0.18453471734539795),  # V8: the second row alone
]


@pytest.mark.parametrize("as_pairs", [False, True], ids=["classes", "pairs"])
@pytest.mark.parametrize(("objective", "loss"), V9, ids=lambda value: str(value))
def test_the_mean_over_a_batch_has_its_reference_value(objective: Any, loss: float, as_pairs: bool) -> None:
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    losses = objective(PairScores(*logits.T), q[:, 0]) if as_pairs else objective(ClassScores(logits), q)
    assert losses.mean().item() == pytest.approx(loss, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "loss"), [([[0.9, 0.1], [0.2, 0.8]], 0.4141706445128626), ([[1, 0], [0, 1]], 0.16417064451286253)]
)
def test_soft_and_hard_cross_entropy_have_their_reference_values(labels: list[Any], loss: float) -> None:
    """V1."""
    logits, q = doubles([[1.0, -1.0], [0.5, 2.0]], labels)
    assert RewardBCE()(ClassScores(logits), q).mean().item() == pytest.approx(loss, abs=1e-9)


def test_the_product_of_two_opinions_has_its_reference_values() -> None:
    """V5."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    voted = Product().target(logits.log_softmax(-1), q)[:, 0]
    expected = [0.967273443634614, 0.34359871639500644, 0.19695031331397195, 0.024192454868796832]
    assert voted.tolist() == pytest.approx(expected, abs=1e-9)


def test_inside_a_window_is_who_is_not_sure() -> None:
    """V8, row by row."""
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    assert (ConfidenceWindow(0.15)(ClassScores(logits), q) > 0).tolist() == [False, True, False, False]
    certain, wrong = doubles([[1000.0, 0.0]], [[0.0, 1.0]])
    assert ConfidenceWindow(0.5)(ClassScores(certain), wrong).tolist() == [0.0]  # at its edge is outside


# --- any number of classes --------------------------------------------------------------------------------------------


@each_option
def test_a_pair_is_a_row_of_two_classes(option: str) -> None:
    logits, q = some(2)
    of_pairs, of_classes = OPTIONS[option](PairScores(*logits.T), q[:, 0]), OPTIONS[option](ClassScores(logits), q)
    torch.testing.assert_close(of_pairs, of_classes, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "n_classes"), [(option, n) for option in OPTIONS for n in (2, 3, 7) if (option, n > 2) != REFUSED]
)
def test_no_class_is_special(option: str, n_classes: int) -> None:
    """Of a whole batch, too: its threshold moves along."""
    (logits, q), order = some(n_classes, n=33), torch.randperm(n_classes, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(order, torch.arange(n_classes))
    moved = OPTIONS[option](ClassScores(logits[:, order]), q[:, order])
    torch.testing.assert_close(moved, OPTIONS[option](ClassScores(logits), q), rtol=0, atol=1e-12)


@each_width
@each_option
def test_only_differences_of_logits_count(option: str, n_classes: int) -> None:
    (logits, q), objective = some(n_classes), at_a_step(option, n_classes)
    higher = logits + torch.linspace(-9, 9, len(logits), dtype=torch.float64)[:, None]
    torch.testing.assert_close(objective(ClassScores(higher), q), objective(ClassScores(logits), q), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "product"])
def test_the_gradient_is_that_of_the_loss(option: str, n_classes: int) -> None:
    (logits, q), objective = some(n_classes, n=8), at_a_step(option, n_classes)
    assert torch.autograd.gradcheck(lambda z: objective(ClassScores(z), q), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@each_width
@each_option
def test_loss_and_gradient_are_finite_for_extreme_logits(option: str, n_classes: int, dtype: torch.dtype) -> None:
    far = torch.tensor([-1e15, -1e4, 0.0, 90.0, 1e15], dtype=dtype)
    logits = torch.cartesian_prod(far, far)[:, [0, 1] + [1] * (n_classes - 2)].clone().requires_grad_()
    certain = one_hot(torch.arange(len(logits)) % n_classes, n_classes).to(dtype)
    for q in (certain, torch.full_like(certain, 1 / n_classes)):
        losses = at_a_step(option, n_classes)(ClassScores(logits), q)
        assert losses.dtype == dtype
        assert losses.isfinite().all()
        [grad] = torch.autograd.grad(losses.sum(), logits)
        assert grad.isfinite().all()


# --- each one ---------------------------------------------------------------------------------------------------------


@each_width
def test_what_losses_of_several_terms_are_made_of_is_the_default(n_classes: int) -> None:
    logits, q = some(n_classes)
    asked = [(ClassScores(logits), q)] + ([(PairScores(*logits.T), q[:, 0])] if n_classes == 2 else [])
    term = cross_entropy(logits.log_softmax(-1), q)
    for scores, targets in asked:
        torch.testing.assert_close(RewardBCE()(scores, targets), term, rtol=0, atol=1e-12)


def test_no_two_options_are_one_objective() -> None:
    """Or a sweep over both would have one row, under one of the names."""
    built = list(BUILT.values())
    assert all(one != other for place, one in enumerate(built) for other in built[:place])


@each_width
def test_the_gradient_of_the_forward_divergence_is_that_of_cross_entropy(n_classes: int) -> None:
    logits, q = some(n_classes)
    gradients = []
    for objective in (RewardBCE(), ForwardKL()):
        losses = objective(ClassScores(at := logits.clone().requires_grad_()), q)
        gradients += torch.autograd.grad(losses.sum(), at)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-15)


@each_width
@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL(), ReverseKL(clip=0.1), Squared()], ids=str)
def test_a_divergence_is_never_below_zero_and_zero_at_its_target(objective: Any, n_classes: int) -> None:
    (logits, q), (others, _) = some(n_classes), some(n_classes, seed=1)
    assert (objective(ClassScores(logits), q) > 0).all()
    at_target = objective.log_target(q) if isinstance(objective, ReverseKL) else q.log().clamp(min=-1e4)
    reached = objective(ClassScores(at_target), q)
    torch.testing.assert_close(reached, torch.zeros_like(reached), rtol=0, atol=1e-12)
    assert (objective(ClassScores(others), q) > 0).all()


def test_reverse_losses_clip_what_a_target_rules_out() -> None:
    logits, q = doubles([[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.9995, 0.0005]])
    for clip, expected in ((1e-3, 1e-3 / 1.001), (0.1, 0.1 / 1.1)):
        least = ReverseKL(clip).log_target(q).exp()
        assert least[0, 1].item() == pytest.approx(expected, abs=1e-12)
        assert least.sum(-1).tolist() == pytest.approx([1, 1], abs=1e-12)
    one, other = ReverseCE(0.1)(ClassScores(logits), q)
    assert one.item() == pytest.approx(-0.5 * torch.tensor([1 / 1.1, 0.1 / 1.1]).log().sum().item(), abs=1e-6)
    assert abs(one - other) < 1e-3


def test_reverse_cross_entropy_goes_to_the_mode_and_the_divergence_to_the_target() -> None:
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    pair, q = PairScores(z, torch.zeros_like(z)), torch.full_like(z, 0.7)
    assert (ReverseCE()(pair, q).diff() < 0).all()
    assert z[ReverseKL()(pair, q).argmin()].sigmoid().item() == pytest.approx(0.7, abs=1e-2)


@each_width
def test_the_target_of_a_product_is_not_differentiated(n_classes: int) -> None:
    logits, q = some(n_classes)
    objective, at = Product(alpha=0.7, beta=1.5), logits.clone().requires_grad_()
    [gradient] = torch.autograd.grad(objective(ClassScores(at), q).sum(), at)
    expected = logits.softmax(-1) - objective.target(logits.log_softmax(-1), q)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@each_width
def test_a_product_without_the_student_is_cross_entropy(n_classes: int) -> None:
    logits, q = some(n_classes)
    loss = Product(beta=0.0)(ClassScores(logits), q)
    torch.testing.assert_close(loss, RewardBCE()(ClassScores(logits), q), rtol=0, atol=1e-12)


def test_squares_of_pairs() -> None:
    z, q = torch.linspace(-4, 4, 9, dtype=torch.float64), torch.linspace(0, 1, 9, dtype=torch.float64)
    pair = PairScores(z + 2, torch.full_like(z, 2))
    torch.testing.assert_close(Squared()(pair, q), (z.sigmoid() - q).square(), rtol=0, atol=1e-12)
    torch.testing.assert_close(Squared("score")(pair, q), ((1 + z) / 2 - q).square(), rtol=0, atol=1e-12)
    assert Squared("score").confidence(pair).tolist() == [0, 0, 0, 0, 0.5, 1, 1, 1, 1]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_squares_of_scores_are_refused_for_classes_and_no_others_are(n_classes: int) -> None:
    Squared().check(Fit(), n_classes)
    Squared("score").check(Fit(), None)
    with refused("objective.of", "score", "probability"):
        Squared("score").check(Fit(), n_classes)


def test_the_students_of_squared_scores_are_a_convex_set() -> None:
    """What the theorem asks for: a mixture of two linear students is one, whose confidence is the mixture."""
    rng = torch.Generator().manual_seed(0)
    features, one, other = (torch.rand(shape, generator=rng) / 9 for shape in ((5, 3), (3, 2), (3, 2)))
    confidences = [
        Squared("score").confidence(PairScores(*(features @ head).T)) for head in (one, other, 0.3 * one + 0.7 * other)
    ]
    torch.testing.assert_close(confidences[2], 0.3 * confidences[0] + 0.7 * confidences[1])


def test_half_way_between_the_labels_is_where_a_window_ends() -> None:
    logits, q = doubles(V3_LOGITS, V3_LABELS)
    assert ConfidenceWindow().fixed(None, None, q).radius == pytest.approx(0.25, abs=1e-12)  # of .1, .2, .3 and .4
    assert ConfidenceWindow().fixed(None, None, q[:, 0]).radius == pytest.approx(0.25, abs=1e-12)
    confident = logits.softmax(-1).amax(-1)
    assert ((ConfidenceWindow()(ClassScores(logits), q) > 0) == (confident < 0.75)).all()
    assert ConfidenceWindow(0.15).fixed(None, None, q) == Window(0.15)


def test_of_many_classes_the_two_strongest_are_compared() -> None:
    logits = torch.tensor([[0.55, 0.35, 0.1], [0.4, 0.1, 0.5]], dtype=torch.float64).log()
    q = distribution(torch.tensor([0.5, 0.5], dtype=torch.float64))
    q = torch.cat([q, torch.zeros(2, 1, dtype=torch.float64)], dim=1)
    for radius, inside in ((0.04, [0, 0]), (0.1, [0, 1]), (0.12, [1, 1])):  # .55 / .9 and .5 / .9
        assert (ConfidenceWindow(radius)(ClassScores(logits), q) > 0).tolist() == inside


@pytest.mark.parametrize(
    ("cls", "knob", "value"),
    [
        (ReverseKL, "clip", 0.0),
        (ReverseCE, "clip", 0.2),
        (Product, "alpha", 0.0),
        (Product, "beta", -1.0),
        (Squared, "of", "scores"),
        (ConfidenceWindow, "radius", 0.6),
        (ConfidenceWindow, "radius", "midstrong"),
    ],
)
def test_an_impossible_value_is_refused(cls: Any, knob: str, value: Any) -> None:
    with refused(knob, value, nearest=ANY):
        cls(**{knob: value})
    assert ConfidenceWindow().radius == MIDWEAK


@pytest.mark.parametrize("value", [-1, 0, 1, -1.0, 0.6, "midweek"])
def test_a_radius_that_is_none_is_refused_with_its_range(value: Any) -> None:
    """As it is written: a number that is a whole one too."""
    with refused("objective.radius", value, "0 0.5 midweak", MIDWEAK if value == "midweek" else None):
        build({"_target_": "w2sd.objectives.imitation.ConfidenceWindow", "radius": value}, "objective")
