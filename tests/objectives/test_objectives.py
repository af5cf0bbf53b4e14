"""Objectives: reference vectors V1 and V2, and what every option of the group promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, tensor
from torch.nn.functional import cross_entropy

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.models.score import PairScores
from w2sd.objectives.reward import RewardBCE

OPTIONS = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))


def option(name: str) -> Any:
    return build(OmegaConf.to_container(OmegaConf.load(CONF / "objective" / f"{name}.yaml")), "objective")


@pytest.fixture(params=OPTIONS)
def objective(request: pytest.FixtureRequest) -> Any:
    """Each objective there is, with the values of its yaml."""
    return option(request.param)


def doubles(*values: Any) -> tuple[Tensor, ...]:
    return tuple(tensor(value, dtype=torch.float64) for value in values)


def scores(n: int = 64, seed: int = 0) -> tuple[PairScores, Tensor]:
    """Scores around 0 with targets over all of [0, 1], the ends and the middle among them."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n, generator=generator, dtype=torch.float64) * 3
    targets = torch.rand(n, generator=generator, dtype=torch.float64)
    targets[:3] = tensor([0.0, 0.5, 1.0])
    return PairScores(first, second), targets


def swapped(pair: PairScores) -> PairScores:
    return PairScores(pair.second, pair.first)


V1_LOGITS = [[1.0, -1.0], [0.5, 2.0]]
V2 = [(1.2, 1.0, 0.26328246733803135), (-0.7, 0.3, 0.6131860488854579), (0.0, 0.5, 0.6931471805599453)]


@pytest.mark.parametrize(("z", "target", "loss"), V2)
@pytest.mark.parametrize("second", [0.0, -3.5, 100.0])
def test_pairwise_cross_entropy_reference_vectors(z: float, target: float, loss: float, second: float) -> None:
    """V2, row by row: only the difference of the two scores counts."""
    first, second_slot, targets = doubles([second + z], [second], [target])
    assert RewardBCE()(PairScores(first, second_slot), targets).item() == pytest.approx(loss, abs=1e-9)


def test_the_mean_of_the_reference_vector() -> None:
    z, targets = doubles([row[0] for row in V2], [row[1] for row in V2])
    losses = RewardBCE()(PairScores(z, torch.zeros_like(z)), targets)
    assert losses.shape == (3,)
    assert losses.mean().item() == pytest.approx(0.5232052322611449, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "loss"), [([[0.9, 0.1], [0.2, 0.8]], 0.4141706445128626), ([[1, 0], [0, 1]], 0.16417064451286253)]
)
def test_soft_classification_is_the_pairwise_loss_on_the_difference_of_logits(labels: list[Any], loss: float) -> None:
    """V1: soft cross-entropy of two classes, computed both ways."""
    logits, targets = doubles(V1_LOGITS, labels)
    assert cross_entropy(logits, targets).item() == pytest.approx(loss, abs=1e-9)
    assert RewardBCE()(PairScores(*logits.T), targets[:, 0]).mean().item() == pytest.approx(loss, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1))
def test_two_classes_and_pairs_agree_everywhere(first: float, second: float, target: float) -> None:
    logits, targets = doubles([[first, second]], [[target, 1 - target]])
    pairwise = RewardBCE()(PairScores(*logits.T), targets[:, 0])
    assert pairwise.item() == pytest.approx(cross_entropy(logits, targets).item(), abs=1e-9)


def test_there_is_an_objective() -> None:
    assert "reward_bce" in OPTIONS


def test_one_loss_per_example_and_none_depends_on_its_neighbours(objective: Any) -> None:
    pair, targets = scores()
    losses = objective(pair, targets)
    assert losses.shape == targets.shape
    for rows in (slice(0, 1), slice(10, 20)):
        alone = objective(PairScores(pair.first[rows], pair.second[rows]), targets[rows])
        torch.testing.assert_close(alone, losses[rows], rtol=0, atol=1e-12)


def test_the_loss_falls_as_the_preferred_score_rises(objective: Any) -> None:
    rising, still = torch.linspace(-12, 12, 97, dtype=torch.float64), torch.zeros(97, dtype=torch.float64)
    first_preferred = objective(PairScores(rising, still), torch.ones_like(still))
    second_preferred = objective(PairScores(still, rising), torch.zeros_like(still))
    assert (first_preferred.diff() < 0).all()
    assert (second_preferred.diff() < 0).all()


def test_the_loss_rises_as_the_other_score_rises(objective: Any) -> None:
    rising, still = torch.linspace(-12, 12, 97, dtype=torch.float64), torch.zeros(97, dtype=torch.float64)
    assert (objective(PairScores(still, rising), torch.ones_like(still)).diff() > 0).all()
    assert (objective(PairScores(rising, still), torch.zeros_like(still)).diff() > 0).all()


def test_the_loss_is_the_same_with_slots_and_label_swapped(objective: Any) -> None:
    pair, targets = scores()
    torch.testing.assert_close(objective(swapped(pair), 1 - targets), objective(pair, targets), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_loss_and_gradient_are_finite_for_extreme_scores(objective: Any, dtype: torch.dtype) -> None:
    extreme = tensor([-1e30, -1e4, -90.0, -1e-30, 0.0, 1e-30, 90.0, 1e4, 1e30], dtype=dtype)
    first, second = (side.flatten().requires_grad_() for side in torch.meshgrid(extreme, extreme, indexing="ij"))
    for target in (0.0, 0.3, 0.5, 1.0):
        losses = objective(PairScores(first, second), torch.full_like(first, target))
        assert losses.isfinite().all()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(losses.sum(), (first, second)))
    p = objective.confidence(PairScores(first, second))
    assert ((p >= 0) & (p <= 1)).all()


def test_the_gradient_is_that_of_the_loss(objective: Any) -> None:
    pair, targets = scores(n=24)
    first, second = (side.clone().requires_grad_() for side in pair)
    assert torch.autograd.gradcheck(lambda a, b: objective(PairScores(a, b), targets), (first, second))


def test_confidence_is_a_probability_that_rises_with_the_first_score(objective: Any) -> None:
    rising, still = torch.linspace(-12, 12, 97, dtype=torch.float64), torch.zeros(97, dtype=torch.float64)
    p = objective.confidence(PairScores(rising, still))
    assert ((p > 0) & (p < 1)).all()
    assert (p.diff() > 0).all()
    assert objective.confidence(PairScores(still, still)).eq(0.5).all()  # a tie is exactly a tie


def test_confidences_of_a_pair_and_of_the_swapped_pair_sum_to_one(objective: Any) -> None:
    pair, _ = scores(n=500)
    both = objective.confidence(pair) + objective.confidence(swapped(pair))
    torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=1e-12)


def test_confidence_and_margin_never_contradict(objective: Any) -> None:
    pair, _ = scores(n=500)
    assert ((objective.confidence(pair) - 0.5).sign() * pair.margin.sign() >= 0).all()
