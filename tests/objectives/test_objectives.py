"""Objectives: what every option of the group promises, and the reference vectors V1 and V2 of the reward models'."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.builders import refused
from tests.objectives.scored import doubles, exchanged, level, pure, rows, scored
from torch import Tensor, tensor
from torch.nn.functional import cross_entropy

from w2sd.cli import CONF
from w2sd.config import build
from w2sd.objectives.base import READINGS
from w2sd.objectives.imitation import Product, ReverseKL, Squared, Window
from w2sd.objectives.preference import DPO, IPO, SFT, DPOLengthNormalised, SimPO
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import PairScores

OPTIONS: dict[str, Any] = {
    path.stem: build(OmegaConf.to_container(OmegaConf.load(path)), "objective")
    for path in sorted((CONF / "objective").glob("*.yaml"))
}
OBJECTIVES = {name: pure(objective) for name, objective in OPTIONS.items()} | {
    "simpo with sft": SimPO(beta=1.3, gamma=0.2, sft_weight=0.7),
    "dpo smoothed": DPO(label_smoothing=0.1),
    "dpo_length_normalised smoothed": DPOLengthNormalised(beta=0.5, label_smoothing=0.1),
    "ipo, tight": IPO(beta=0.08),
    "squared, of scores": Squared(of="score"),
    "reverse_kl, clipped early": ReverseKL(clip=0.1),
    "product, hesitant": Product(alpha=0.5, beta=2.0),
}
CLASSES = [name for name, objective in OBJECTIVES.items() if objective.reads_classes]
MIXING = {"reward_bce", "confidence_window", "entropy", "logconf", "logconf_legacy"}  # of the classes'


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Any:
    """Each objective there is, with the values of its yaml and with others."""
    return OBJECTIVES[request.param]


def some(objective: Any, n: int = 64, seed: int = 0) -> tuple[Any, Tensor]:
    """Scores around 0 with targets over all of [0, 1], the ends and the middle among them."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n, generator=generator, dtype=torch.float64) * 3
    targets = torch.rand(n, generator=generator, dtype=torch.float64)
    targets[:3] = tensor([0.0, 0.5, 1.0])
    return scored(objective, first, second), targets


def rising(objective: Any) -> tuple[Tensor, Tensor]:
    """A score that rises and one that does not; as far as nothing is fitted beyond its target."""
    end = 12.0 if objective.student == "reward" else 3.0
    if isinstance(objective, ReverseKL):
        end = math.log((1 - objective.clip) / objective.clip)
    elif isinstance(objective, Squared) and objective.of == "score":
        end = 0.99
    return torch.linspace(-end, end, 97, dtype=torch.float64), torch.zeros(97, dtype=torch.float64)


# --- the options ------------------------------------------------------------------------------------------------------


def test_which_objective_is_for_which_student() -> None:
    others = {
        name: (objective.student, objective.needs_reference)
        for name, objective in OPTIONS.items()
        if not objective.reads_classes
    }
    assert others == {
        "sft": ("policy", False),
        "simpo": ("policy", False),
        "dpo": ("policy", True),
        "dpo_world": ("policy", True),
        "dpo_length_normalised": ("policy", True),
        "ipo": ("policy", True),
    }
    read = {objective.student for name, objective in OPTIONS.items() if name not in others}
    assert read == {"reward"}  # whose scores are those of two classes


def test_planning_builds_every_objective_and_every_conflict_without_torch() -> None:
    made = "import sys; from pathlib import Path; from omegaconf import OmegaConf; from w2sd.config import build\n"
    made += f"for path in [*Path({str(CONF)!r}, 'objective').iterdir(), *Path({str(CONF)!r}, 'conflict').iterdir()]:\n"
    made += "    part = build(OmegaConf.to_container(OmegaConf.load(path)), path.stem)\n"
    made += (
        "    if path.parent.name == 'conflict': part.check(build({'_target_': 'w2sd.objectives.preference.DPO'}, ''))\n"
    )
    made += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", made], check=True)


def test_what_can_be_read_in_one_way_only_has_no_knob_for_it() -> None:
    knobs = {name: {field.name for field in dataclasses.fields(objective)} for name, objective in OPTIONS.items()}
    for name, objective in OPTIONS.items():
        assert (objective.labelled_by, objective.measured_by) == ("own", "own")
        assert ({"labelled_by", "measured_by"} <= knobs[name]) == (objective.student == "policy" and name != "sft")


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_one_loss_per_example_and_none_depends_on_its_neighbours(objective: Any) -> None:
    pair, targets = some(objective)
    losses = objective(pair, targets)
    assert losses.shape == targets.shape
    for which in (slice(0, 1), slice(10, 20)):
        alone = objective(rows(pair, which), targets[which])
        torch.testing.assert_close(alone, losses[which], rtol=0, atol=1e-12)


def test_the_loss_falls_as_the_preferred_score_rises(objective: Any) -> None:
    """Of a window, inside it."""
    up, still = rising(objective)
    if isinstance(objective, Window):
        up = up[objective(level(objective, up, still), torch.full_like(still, 0.5)) > 0]
        still = still[: len(up)]
        assert len(up) > 5
    assert (objective(level(objective, up, still), torch.ones_like(still)).diff() < 0).all()
    assert (objective(level(objective, still, up), torch.zeros_like(still)).diff() < 0).all()


def test_the_loss_rises_as_the_other_score_rises_where_the_other_counts(objective: Any) -> None:
    up, still = rising(objective)
    for pair, targets in ((level(objective, still, up), 1.0), (level(objective, up, still), 0.0)):
        losses = objective(pair, torch.full_like(still, targets))
        steps = losses[losses > 0].diff() if isinstance(objective, Window) else losses.diff()
        assert (steps == 0).all() if isinstance(objective, SFT) else (steps > 0).all()


def test_the_loss_is_the_same_with_slots_and_label_swapped(objective: Any) -> None:
    pair, targets = some(objective)
    torch.testing.assert_close(objective(exchanged(pair), 1 - targets), objective(pair, targets), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name in MIXING or name not in CLASSES])
def test_the_loss_under_a_soft_target_is_the_mixture_of_the_two_hard_ones(name: str) -> None:
    """Not so where a target itself is weighed: divergences, squares, votes."""
    objective = OBJECTIVES[name]
    pair, targets = some(objective)
    first, second = (objective(pair, torch.full_like(targets, hard)) for hard in (1.0, 0.0))
    torch.testing.assert_close(objective(pair, targets), targets * first + (1 - targets) * second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_loss_and_gradient_are_finite_for_extreme_scores(objective: Any, dtype: torch.dtype) -> None:
    far = 1e15 if isinstance(objective, IPO | Squared) else 1e30  # what is squared has half the range
    extreme = tensor([-far, -1e4, -90.0, -1e-30, 0.0, 1e-30, 90.0, 1e4, far], dtype=dtype)
    first, second = (side.flatten().requires_grad_() for side in torch.meshgrid(extreme, extreme, indexing="ij"))
    pair = scored(objective, first, second)
    for target in (0.0, 0.3, 0.5, 1.0):
        losses = objective(pair, torch.full_like(first, target))
        assert losses.dtype == dtype
        assert losses.isfinite().all()
        grads = torch.autograd.grad(losses.sum(), (first, second), materialize_grads=True)
        assert all(grad.isfinite().all() for grad in grads)
    for reading in READINGS:
        p = objective.confidence(pair, reading)
        assert ((p >= 0) & (p <= 1)).all()


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not isinstance(OBJECTIVES[name], Product)])
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    """Product's is in test_imitation.py: its target is not differentiated."""
    objective = OBJECTIVES[name]
    pair, targets = some(objective, n=24)
    first, second = (side.clone().requires_grad_() for side in pair[:2])
    assert torch.autograd.gradcheck(lambda a, b: objective(pair._replace(first=a, second=b), targets), (first, second))


# --- margin and confidence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", READINGS)
def test_confidence_is_a_probability_that_rises_with_the_first_score(objective: Any, reading: str) -> None:
    up, still = rising(objective)
    p = objective.confidence(level(objective, up, still), reading)
    assert ((p > 0) & (p < 1)).all()
    assert (p.diff() > 0).all()
    assert (objective.margin(level(objective, up, still), reading).diff() > 0).all()
    tie = level(objective, still, still)
    assert objective.confidence(tie, reading).eq(0.5).all()  # a tie is exactly a tie
    assert objective.margin(tie, reading).eq(0).all()


@pytest.mark.parametrize("reading", READINGS)
def test_confidences_of_a_pair_and_of_the_swapped_pair_sum_to_one(objective: Any, reading: str) -> None:
    pair, _ = some(objective, n=500)
    both = objective.confidence(pair, reading) + objective.confidence(exchanged(pair), reading)
    torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=1e-12)


@pytest.mark.parametrize("reading", READINGS)
def test_confidence_and_margin_never_contradict(objective: Any, reading: str) -> None:
    pair, _ = some(objective, n=500)
    p, margin = objective.confidence(pair, reading), objective.margin(pair, reading)
    assert ((p - 0.5).sign() == margin.sign()).all()
    assert (objective.margin(exchanged(pair), reading) == -margin).all()


def test_a_reading_that_does_not_exist_is_refused(objective: Any) -> None:
    pair, _ = some(objective)
    for read in (objective.margin, objective.confidence):
        with refused("reading", "legcy", nearest="legacy"):
            read(pair, "legcy")


@pytest.mark.parametrize(
    "name", [name for name in OBJECTIVES if name not in ("sft", "simpo with sft", "confidence_window")]
)
def test_the_own_margin_is_what_the_loss_compares(name: str) -> None:
    """The larger it is, the smaller the loss. What looks at one answer alone is no function of a margin."""
    objective = OBJECTIVES[name]
    pair, _ = some(objective, n=500)
    margin = objective.margin(pair)
    if isinstance(objective, IPO) or (isinstance(objective, Squared) and objective.of == "score"):
        margin = -(margin - (0.5 if isinstance(objective, IPO) else 1)).abs()  # how near it is to where it is fitted
    losses = objective(pair, torch.ones_like(margin))[margin.argsort()]
    # has a smallest loss, and rises beyond it
    smoothed = getattr(objective, "label_smoothing", 0) > 0 or isinstance(objective, ReverseKL)
    assert (losses.diff() <= 1e-12).all() or (smoothed and losses.argmin() > 250)


# --- reward models ----------------------------------------------------------------------------------------------------

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


def test_a_reward_model_has_one_margin_whichever_way_it_is_read() -> None:
    pair, _ = some(RewardBCE())
    for reading in READINGS:
        assert torch.equal(RewardBCE().margin(pair, reading), pair.first - pair.second)
        assert torch.equal(RewardBCE().confidence(pair, reading), (pair.first - pair.second).sigmoid())
