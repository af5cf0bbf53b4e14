"""Objectives of policies: reference vectors, an independent computation of losses and gradients, limits, readings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import refused
from tests.objectives.scored import doubles, log_probs
from torch import Tensor

from w2sd.identity import identity
from w2sd.objectives.base import LEGACY, OWN, READINGS, REFERENCE_FREE
from w2sd.objectives.preference import DPO, IPO, SFT, DPOLengthNormalised, SimPO
from w2sd.objectives.scores import PairLogProbs

LN3 = 1.0986122886681098


def hard(pair: PairLogProbs) -> Tensor:
    """The target of pairs whose first answer is preferred."""
    return torch.ones_like(pair.first)


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-9)


# --- reference vectors of methods.md 7.3 ------------------------------------------------------------------------------

V14 = {"first": [-1.0, -2.0, -1.5, -1.2], "second": [-1.4, -1.6, -1.5, -2.4]}  # means
V14_LOSSES = [0.798138869381592, 1.9529776105260739, 1.3132616875182228, 0.22041740991845094]
V15 = {
    "first": [-30.0, -42.0, -25.0],
    "second": [-33.0, -40.0, -24.0],
    "ref_first": [-31.0, -41.0, -27.0],
    "ref_second": [-32.0, -41.5, -23.0],
}


@pytest.mark.parametrize("n", [1.0, 7.0])
def test_simpo_reference_vector(n: float) -> None:
    """V14: of the lengths only the means know."""
    pair = log_probs(*(n * torch.tensor(side, dtype=torch.float64) for side in V14.values()), n=(n, n))
    losses = SimPO(beta=2, gamma=1)(pair, hard(pair))
    assert losses.tolist() == near(V14_LOSSES)
    assert losses.mean().item() == near(1.0711988943360848)


@pytest.mark.parametrize(
    ("objective", "losses"),
    [
        (DPO(beta=0.1), [0.5981388693815918, 0.8259394198788436, 0.5543552444685271]),
        (DPO(beta=0.1, label_smoothing=0.1), [0.6181388693815918, 0.8009394198788435, 0.5843552444685272]),
        (IPO(beta=0.1), [9, 56.25, 4]),
        (DPOLengthNormalised(beta=0.1), [0.5981388693815918, 0.8259394198788436, 0.5543552444685271]),
    ],
    ids=["dpo", "smoothed", "ipo", "length-normalised, one token"],
)
def test_dpo_reference_vectors(objective: Any, losses: list[float]) -> None:
    """V15."""
    pair = log_probs(**V15)
    assert (objective.margin(pair) / objective.beta).tolist() == near([2, -2.5, 3])
    assert objective(pair, hard(pair)).tolist() == near(losses)
    if objective == DPO(beta=0.1):
        assert objective(pair, hard(pair)).mean().item() == near(0.6594778445763209)


def test_accuracy_depends_on_whether_the_reference_is_looked_at() -> None:
    """V15: hazard D10 is a named choice."""
    right = {reading: (DPO().confidence(log_probs(**V15), reading) > 0.5).double().mean() for reading in READINGS}
    assert right == {OWN: near(2 / 3), REFERENCE_FREE: near(1 / 3), LEGACY: near(1 / 3)}


def test_sft_is_a_mean_over_the_tokens_of_the_answer() -> None:
    """V13 with all tokens, V16 with the three of the response. The paper's code divides by other counts (D8, D9)."""
    tokens = [-1.4076059644443804, -0.5514447139320511, -0.8619948040582511]
    pair = log_probs([sum(tokens)], [-50.0], n=(3, 9))
    assert SFT()(pair, hard(pair)).item() == near(0.9403484941448942)
    assert -sum(tokens) / 4 == near(0.7052613706086707)  # legacy: the unshifted count
    row = [0, 0, -0.5, -1.5, -1, 0, 0]
    pair = log_probs([-50.0], [sum(row)], n=(9, 3))
    assert SFT()(pair, 1 - hard(pair)).item() == near(1.0)
    assert -sum(row) / 7 == near(0.42857142857142855)  # legacy: prompt and padding counted


@pytest.mark.parametrize(
    ("objective", "margin", "per_token"),
    [(SimPO(), LN3, True), (DPOLengthNormalised(), LN3, True), (DPO(), 50 * LN3, False), (IPO(), 50 * LN3, False)],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_the_legacy_readings_are_three_quarters_sure_where_the_paper_s_code_is(
    objective: Any, margin: float, per_token: bool
) -> None:
    """V18, with whatever beta and reference."""
    assert margin == near(LN3 if per_token else 54.93061443340549)
    n = 4 if per_token else 1  # four tokens each: means are quarters of sums
    pair = log_probs([n * margin - 70.0], [-70.0], [-3.0], [-90.0], n=(n, n))
    assert objective.confidence(pair, LEGACY).item() == near(0.75)


# --- readings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "margins"),
    [  # own, reference-free, legacy; sums -12, -20; tokens 4, 5; reference -10, -15
        (SimPO(beta=2.0, gamma=0.7), (2 * 1.0, 2 * 1.0, 1.0)),
        (DPO(beta=0.1), (0.1 * 3.0, 0.1 * 8.0, 8.0 / 50)),
        (IPO(beta=0.1), (0.1 * 3.0, 0.1 * 8.0, 8.0 / 50)),
        (DPOLengthNormalised(beta=5.0), (5 * 0.5, 5 * 1.0, 1.0)),
        (SFT(), (1.0, 1.0, 1.0)),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_what_a_reading_reads(objective: Any, margins: tuple[float, float, float]) -> None:
    pair = log_probs([-12.0], [-20.0], [-10.0], [-15.0], n=(4, 5))
    for reading, margin in zip(READINGS, margins, strict=True):
        assert objective.margin(pair, reading).item() == near(margin)
        linear = isinstance(objective, IPO) and reading == OWN
        p = min(1.0, margin + 0.5) if linear else 1 / (1 + math.exp(-margin))
        assert objective.confidence(pair, reading).item() == near(p)
    assert torch.equal(objective.confidence(pair), objective.confidence(pair, OWN))
    assert torch.equal(objective.margin(pair), objective.margin(pair, OWN))


def test_without_a_reference_only_the_own_reading_of_dpo_is_missing() -> None:
    pair = log_probs([-12.0], [-20.0])
    for objective in (DPO(), IPO(), DPOLengthNormalised()):
        for reading in (REFERENCE_FREE, LEGACY):
            assert objective.confidence(pair, reading).isfinite().all()
        with pytest.raises(AssertionError):
            objective(pair, hard(pair))


def test_the_knobs_choose_readings_and_change_no_loss() -> None:
    pair = log_probs(**V15)
    for cls in (SimPO, DPO, IPO, DPOLengthNormalised):
        plain = cls()
        for knob in ("labelled_by", "measured_by"):
            for reading in READINGS:
                other = cls(**{knob: reading})
                assert getattr(other, knob) == reading
                assert torch.equal(other(pair, hard(pair)), plain(pair, hard(pair)))
                assert identity(other) == identity(plain)  # so nothing is trained again


@pytest.mark.parametrize("objective", [DPO(), SimPO(gamma=0.0), DPOLengthNormalised(), IPO(), IPO(beta=0.7)], ids=repr)
@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_a_soft_target_is_fitted_by_the_confidence_that_it_is(objective: Any, q: float) -> None:
    """Where the loss is smallest the own confidence is the target."""
    margin = q - 0.5 if isinstance(objective, IPO) else math.log(q / (1 - q))
    first = torch.tensor([4 * margin / objective.beta], dtype=torch.float64, requires_grad=True)
    pair = log_probs([0.0], [0.0], [0.0], [0.0], n=(4, 4))._replace(
        first=first if type(objective).per_token else first / 4
    )
    assert objective.confidence(pair).item() == near(q)
    [slope] = torch.autograd.grad(objective(pair, torch.full_like(first, q)), first)
    assert slope.item() == near(0)


@pytest.mark.parametrize(("gamma", "p"), [(1.0, 0.8559386628592697), (2.0, 0.9374155133097892)])
def test_gamma_makes_simpo_surer_than_its_targets(gamma: float, p: float) -> None:
    """As the docstring has it: under which confidence the loss of a target of .75 is smallest."""
    first = torch.tensor([math.log(p / (1 - p)) / 2], dtype=torch.float64, requires_grad=True)
    pair = log_probs([0.0], [0.0])._replace(first=first)
    [slope] = torch.autograd.grad(SimPO(2.0, gamma)(pair, torch.tensor([0.75], dtype=torch.float64)), first)
    assert slope.item() == near(0)
    assert SimPO(2.0, gamma).confidence(pair).item() == near(p)


def test_a_pair_that_ipo_has_fitted_is_sure_and_one_fitted_beyond_is_no_surer() -> None:
    fitted = log_probs([-20.0, -15.0, -10.0, 80.0], [-20.0] * 4, [-20.0] * 4, [-20.0] * 4)
    assert IPO(beta=0.1).confidence(fitted).tolist() == near([0.5, 1.0, 1.0, 1.0])
    assert IPO(beta=0.1)(fitted, hard(fitted)).tolist() == near([25, 0, 25, 95**2])


# --- an independent computation ---------------------------------------------------------------------------------------


def nll(x: Any) -> Any:
    """-ln of the logistic function, from its definition; for large arguments from its other side."""
    return np.log(1 + np.exp(-x)) if x.real > -30 else nll(-x) - x


def by_hand(objective: Any, q: float, s: Any, n: Any, ref: Any) -> Any:
    """The loss of one pair in complex double precision, written from the papers and not from the code."""
    (a, r), (n, m), (u, v) = s, n, ref
    match objective:
        case SimPO():
            d = objective.beta * (a / n - r / m)
            written = objective.sft_weight * (q * a / n + (1 - q) * r / m)
            return q * nll(d - objective.gamma) + (1 - q) * nll(-d - objective.gamma) - written
        case SFT():
            return -q * a / n - (1 - q) * r / m
        case IPO():
            h, tau = (a - u) - (r - v), 1 / (2 * objective.beta)
            return q * (h - tau) ** 2 + (1 - q) * (-h - tau) ** 2
        case DPO():
            h = (a - u) / n - (r - v) / m if isinstance(objective, DPOLengthNormalised) else (a - u) - (r - v)
            eps, z = objective.label_smoothing, objective.beta * h
            kept, flipped = (1 - eps) * nll(z) + eps * nll(-z), (1 - eps) * nll(-z) + eps * nll(z)
            return q * kept + (1 - q) * flipped
    raise AssertionError(objective)


EVERY = [
    SimPO(),
    SimPO(beta=10.0, gamma=5.0, sft_weight=0.3),
    DPO(),
    DPO(beta=0.5, label_smoothing=0.2),
    IPO(),
    IPO(beta=1.3),
    DPOLengthNormalised(),
    DPOLengthNormalised(beta=2.5, label_smoothing=0.05),
    SFT(),
]
each = pytest.mark.parametrize("objective", EVERY, ids=repr)


@each
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.tuples(*[st.floats(-80, 0)] * 4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_losses_and_gradients_agree_with_a_computation_by_hand(objective: Any, q: float, sums: Any, n: Any) -> None:
    """Gradients by the complex step, which is exact to the last digits."""
    s, ref = sums[:2], sums[2:]
    first, second = (torch.tensor([side], dtype=torch.float64, requires_grad=True) for side in s)
    pair = log_probs([0.0], [0.0], [ref[0]], [ref[1]], n=n)._replace(first=first, second=second)
    loss = objective(pair, torch.full_like(first, q))
    gradients = torch.autograd.grad(loss, (first, second), materialize_grads=True)
    value = by_hand(objective, q, np.array(s, dtype=complex), n, ref)
    assert loss.item() == pytest.approx(value.real, rel=1e-9, abs=1e-9)
    for side, gradient in enumerate(gradients):
        step = np.array(s, dtype=complex)
        step[side] += 1e-30j
        assert gradient.item() == pytest.approx(by_hand(objective, q, step, n, ref).imag / 1e-30, rel=1e-9, abs=1e-9)


# --- limits and invariances -------------------------------------------------------------------------------------------


def slopes(objective: Any, pair: PairLogProbs, target: float) -> tuple[Tensor, Tensor, Tensor]:
    """The losses and their derivatives by both answers' log-probabilities."""
    sides = [side.clone().requires_grad_() for side in pair[:2]]
    losses = objective(pair._replace(first=sides[0], second=sides[1]), torch.full_like(pair.first, target))
    return losses.detach(), *torch.autograd.grad(losses.sum(), sides)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize(
    ("objective", "loss", "slope"),
    [
        (DPO(beta=0.1), math.log(2), (0.05, 0.05)),
        (DPO(beta=0.5), math.log(2), (0.25, 0.25)),
        (DPO(beta=0.5, label_smoothing=0.1), math.log(2), (0.2, 0.2)),
        (DPOLengthNormalised(beta=5.0), math.log(2), (2.5 / 4, 2.5 / 5)),
        (IPO(beta=0.1), 25.0, (10.0, 10.0)),
    ],
    ids=repr,
)
def test_a_policy_that_is_its_reference(objective: Any, loss: float, slope: tuple[float, float], target: float) -> None:
    """Where training begins: ln 2 with slope beta / 2 for DPO, whatever the answers."""
    first, second = doubles([-12.0, -90.0, -1.0], [-20.0, -3.0, -1.0])
    losses, up, down = slopes(objective, log_probs(first, second, first, second, n=(4, 5)), target)
    sign = -1 if target else 1
    assert losses.tolist() == near([loss] * 3)
    assert up.tolist() == near([sign * slope[0]] * 3)
    assert down.tolist() == near([-sign * slope[1]] * 3)


@pytest.mark.parametrize(
    ("make", "loss", "slope"),
    [
        (lambda beta: DPO(beta), math.log(2), 0.5),
        (lambda beta: DPOLengthNormalised(beta), math.log(2), 0.5 / 4),
        (lambda beta: SimPO(beta, gamma=0.0), math.log(2), 0.5 / 4),
        (lambda beta: SimPO(beta, gamma=1.0), math.log(1 + math.e), 1 / (1 + math.exp(-1)) / 4),
    ],
    ids=["dpo", "length-normalised", "simpo", "simpo with a margin"],
)
def test_as_beta_vanishes_so_does_what_the_answers_are(make: Callable[[float], Any], loss: float, slope: float) -> None:
    beta = 1e-10
    losses, up, _ = slopes(
        make(beta), log_probs([-12.0, -60.0], [-20.0, -3.0], [-7.0, -9.0], [-8.0, -1.0], n=(4, 5)), 1
    )
    assert losses.tolist() == pytest.approx([loss] * 2, abs=1e-8)
    assert (up / beta).tolist() == pytest.approx([-slope] * 2, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-5, 5), st.integers(1, 30), st.integers(1, 30))
def test_a_constant_per_token_is_nothing_to_simpo(constant: float, n: int, m: int) -> None:
    pair = log_probs([-12.0, -60.0], [-20.0, -3.0], n=(n, m))
    moved = pair._replace(first=pair.first + constant * n, second=pair.second + constant * m)
    torch.testing.assert_close(SimPO()(moved, hard(pair)), SimPO()(pair, hard(pair)), rtol=1e-9, atol=1e-9)
    if abs(constant * (n - m)) > 1:
        assert SimPO().margin(moved).isclose(SimPO().margin(pair)).all()
        assert not DPO().margin(moved, REFERENCE_FREE).isclose(DPO().margin(pair, REFERENCE_FREE)).any()


@each
def test_what_policy_and_reference_find_alike_is_nothing_to_an_objective_with_a_reference(objective: Any) -> None:
    pair, move = log_probs(**V15, n=(4, 5)), torch.tensor([3.0, -8.0, 1.5], dtype=torch.float64)
    moved = pair._replace(first=pair.first + move, ref_first=pair.ref_first + move)
    unmoved = torch.isclose(objective(moved, hard(pair)), objective(pair, hard(pair)), rtol=1e-9, atol=1e-9)
    assert unmoved.all() if objective.needs_reference else not unmoved.any()


def test_answers_of_one_length_make_length_normalised_dpo_another_beta() -> None:
    pair = log_probs(**V15, n=(8, 8))
    torch.testing.assert_close(
        DPOLengthNormalised(beta=0.8)(pair, hard(pair)), DPO(beta=0.1)(pair, hard(pair)), rtol=0, atol=1e-12
    )


def test_the_sft_weight_adds_what_it_takes_to_write_the_preferred_answer() -> None:
    pair, targets = log_probs(**V15, n=(4, 5)), torch.tensor([1.0, 0.0, 0.3], dtype=torch.float64)
    added = SimPO(sft_weight=0.25)(pair, targets) - SimPO()(pair, targets)
    torch.testing.assert_close(added, 0.25 * SFT()(pair, targets), rtol=0, atol=1e-12)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SimPO, DPO, IPO, DPOLengthNormalised])
@pytest.mark.parametrize("beta", [0.0, -0.1, float("inf"), float("nan")])
def test_a_scale_of_nothing_is_refused(cls: Any, beta: float) -> None:
    with refused("beta", beta, "0"):
        cls(beta=beta)


@pytest.mark.parametrize(
    ("cls", "knob", "value"),
    [
        (SimPO, "gamma", -0.5),
        (SimPO, "sft_weight", -1.0),
        (SimPO, "sft_weight", float("nan")),
        (DPO, "label_smoothing", 0.5),
        (DPO, "label_smoothing", -0.1),
        (DPOLengthNormalised, "label_smoothing", 1.0),
    ],
)
def test_an_impossible_coefficient_is_refused(cls: Any, knob: str, value: float) -> None:
    with refused(knob, value):
        cls(**{knob: value})


@pytest.mark.parametrize("cls", [SimPO, DPO, IPO, DPOLengthNormalised])
@pytest.mark.parametrize("knob", ["labelled_by", "measured_by"])
def test_a_reading_that_does_not_exist_is_refused(cls: Any, knob: str) -> None:
    with refused(knob, "legcy", "legacy own reference_free", "legacy"):
        cls(**{knob: "legcy"})
