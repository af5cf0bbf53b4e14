"""The losses of conflicts for every objective: the paper's vectors, both forms, both triggers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import refused
from tests.conflicts.test_conflicts import BCE, OPTIONS, PULLING, alone, batch_of, each, flipped, some_batch
from tests.objectives.scored import exchanged, log_probs, rows, scored
from torch import Tensor

from w2sd.conflicts.base import Conflict, NoConflict
from w2sd.conflicts.explicit import TIE, Explicit
from w2sd.conflicts.implicit import Implicit
from w2sd.conflicts.placebo import MoreData, RandomMask
from w2sd.data.batch import PairBatch
from w2sd.identity import identity
from w2sd.objectives.preference import DPO, IPO, SFT, DPOLengthNormalised, SimPO
from w2sd.objectives.scores import PairScores

POLICY_OBJECTIVES = [
    SimPO(),
    SimPO(sft_weight=0.3),
    DPO(),
    DPO(label_smoothing=0.1),
    DPOLengthNormalised(),
    IPO(),
    SFT(),
]
POLICY_PULLING: dict[str, Any] = PULLING | {
    "explicit, sft": Explicit(form="sft"),
    "explicit, policy": Explicit(trigger="policy"),
    "explicit, weak, sft, policy": Explicit(mask="weak", form="sft", trigger="policy"),
    "explicit_random_mask, sft": RandomMask(rate=0.5, form="sft"),
}
objectives = pytest.mark.parametrize("objective", POLICY_OBJECTIVES, ids=repr)


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-9)


def pull_of(conflict: Conflict, pair: Any, batch: PairBatch, objective: Any) -> Tensor:
    """The term of a conflict that has one."""
    pull = conflict.loss(pair, batch, objective)
    assert pull is not None
    return pull


def both_orders(pair: Any, acc: list[float]) -> list[tuple[Any, PairBatch]]:
    """Pairs whose first answer is the weakly chosen one, and is better where `acc` has 1; and the same swapped."""
    batch = batch_of([1.0] * len(acc), acc)
    return [(pair, batch), (exchanged(pair), flipped(batch))]


# --- reference vectors of methods.md 7.3 ------------------------------------------------------------------------------


def test_simpo_reference_vector() -> None:
    """V14: its third row is a tie, which counts as the weak label's preference and so contradicts the truth."""
    means = [torch.tensor(side, dtype=torch.float64) for side in ([-1, -2, -1.5, -1.2], [-1.4, -1.6, -1.5, -2.4])]
    terms = [0, 0.798138869381592, 1.3132616875182228, 0.22041740991845094]
    for pair, batch in both_orders(log_probs(4 * means[0], 4 * means[1], n=(4, 4)), [1, 1, 0, 0]):
        pull = pull_of(Explicit(0.5), pair, batch, SimPO(beta=2, gamma=1))
        assert (pull / 0.5).tolist() == near(terms)
        assert (pull / 0.5).mean().item() == near(0.5829544917045665)
        total = (SimPO()(pair, batch.targets) + pull).mean()
        assert total.item() == near(1.362676140188368)
        assert torch.equal(pull, pull_of(Explicit(0.5, trigger="policy"), pair, batch, SimPO()))


def test_dpo_reference_vector() -> None:
    """V15: without the reference the third row is not triggered, though the policy moved toward the wrong label."""
    pair = log_probs([-30, -42, -25], [-33, -40, -24], [-31, -41, -27], [-32, -41.5, -23])
    for given, batch in both_orders(pair, [1, 1, 0]):
        pull = pull_of(Explicit(0.5, trigger="policy"), given, batch, DPO(beta=0.1))
        assert (pull / 0.5).tolist() == near([0, 0.5759394198788436, 0])
        assert (DPO(beta=0.1)(given, batch.targets) + pull).mean().item() == near(0.7554677478894615)
        adjusted = pull_of(Explicit(0.5), given, batch, DPO(beta=0.1))
        assert (adjusted / 0.5).tolist() == near([0, 0.5759394198788436, 0.5543552444685271])


def test_what_it_takes_to_write_the_worse_answer() -> None:
    """V16: per token of the answer; the paper's code divides by prompt and padding too (D9)."""
    for given, batch in both_orders(log_probs([-50.0], [-3.0], n=(9, 3)), [1.0]):
        assert pull_of(Explicit(1.0, form="sft"), given, batch, SimPO()).item() == near(1.0)
        assert pull_of(Explicit(0.5, form="sft"), given, batch, SimPO()).item() == near(0.5)
    assert near(0.42857142857142855) == 3.0 / 7


V17 = [
    (1.0, -2.0, -1.9391884249738638),
    (1.0, -1.0, -1.6362068322748717),
    (1.0, -0.5, -1.2615941559557646),
    (1.0, -0.01, -0.7428369825919081),
    (0.0, 0.01, -2.181324649023389),
    (0.0, 0.5, -1.5),
    (0.0, 1.0, -0.8068242641099853),
    (0.0, 2.0, -0.14227761953270035),
]


@pytest.mark.parametrize(("acc", "d", "slope"), V17)
def test_no_wrong_answer_is_where_a_policy_settles(acc: float, d: float, slope: float) -> None:
    """V17: the margin is pushed the weak label's way wherever it stands, so the term weighs labels and no more."""
    margin = torch.tensor([d], dtype=torch.float64, requires_grad=True)
    pair, batch = log_probs([0.0], [0.0])._replace(first=margin), batch_of([1.0], [acc])
    loss = SimPO()(pair, batch.targets) + pull_of(Explicit(0.5), pair, batch, SimPO())
    assert torch.autograd.grad(loss, margin)[0].item() == near(slope)


# --- every objective, every conflict with a loss ----------------------------------------------------------------------


def policies(objective: Any, n: int = 300, seed: int = 1) -> tuple[Any, PairBatch]:
    """Pairs of log-probabilities and a batch in which the weak label is wrong now and then."""
    rng = np.random.default_rng(seed)
    first, second = torch.from_numpy(-rng.gamma(2, 10, (2, n)))
    return scored(objective, first, second), some_batch(n)[1]


@objectives
@each(POLICY_PULLING)
def test_a_loss_is_finite_and_each_row_s_own(conflict: Any, objective: Any) -> None:
    pair, batch = policies(objective)
    pull = pull_of(conflict, pair, batch, objective)
    assert pull.shape == batch.targets.shape
    assert pull.isfinite().all()
    assert (pull >= 0).all()
    assert 0 < (pull > 0).sum() < len(pull)
    for n in (0, 17, 299):
        own = pull_of(conflict, rows(pair, slice(n, n + 1)), alone(batch, n), objective)
        torch.testing.assert_close(own, pull[n : n + 1])


@objectives
@each(POLICY_PULLING)
def test_swapping_the_slots_changes_no_loss(conflict: Any, objective: Any) -> None:
    pair, batch = policies(objective)
    for side in pair:  # ties and undecided labels included
        if side is not None:
            side[:6] = side[0]
    batch.targets[3:9] = 0.5
    swapped = pull_of(conflict, exchanged(pair), flipped(batch), objective)
    torch.testing.assert_close(swapped, pull_of(conflict, pair, batch, objective))


@objectives
@pytest.mark.parametrize("mask", ["truth", "weak"])
@pytest.mark.parametrize("trigger", ["margin", "policy"])
def test_the_mask_is_where_the_trigger_s_margin_contradicts(objective: Any, mask: str, trigger: str) -> None:
    pair, batch = policies(objective)
    margin = objective.margin(pair, {"margin": "own", "policy": "reference_free"}[trigger])
    reference = batch.truth if mask == "truth" else batch.targets
    pull = pull_of(Explicit(mask=mask, trigger=trigger), pair, batch, objective)
    firm = margin.abs() > (TIE if objective.needs_reference else 0)
    prefers = torch.where(firm, margin > 0, batch.targets > 0.5)  # a tie is the weak label's preference
    assert ((pull > 0) == (prefers != (reference > 0.5))).all()
    own_is_free = torch.equal(objective.margin(pair), margin)
    assert own_is_free == (trigger == "margin" or not objective.needs_reference)


@objectives
@each(POLICY_PULLING)
def test_the_term_is_the_form_s_loss_toward_the_other_answer_and_its_mask_is_not_differentiated(
    conflict: Any, objective: Any
) -> None:
    pair, batch = policies(objective)
    sides = [side.clone().requires_grad_() for side in pair[:2]]
    pair = pair._replace(first=sides[0], second=sides[1])
    pull = pull_of(conflict, pair, batch, objective)
    reference = batch.truth if conflict.reads_truth else (batch.targets > 0.5).double()
    form = SFT() if conflict.form == "sft" else objective
    expected = conflict.alpha * (pull > 0) * form(pair, 1 - reference)
    torch.testing.assert_close(pull, expected)
    for got, wanted in zip(
        torch.autograd.grad(pull.sum(), sides), torch.autograd.grad(expected.sum(), sides), strict=True
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("mask", ["truth", "weak"])
@objectives
def test_a_tie_of_a_policy_is_what_the_weak_label_prefers(objective: Any, mask: str) -> None:
    """So it contradicts the truth where that label does, and never the label; one that is undecided decides nothing."""
    same = log_probs(*[[-7.0] * 5] * 4, n=(3, 3))
    batch = batch_of([0.9, 0.9, 0.2, 0.2, 0.5], [1.0, 0.0, 1.0, 0.0, 1.0])
    contradicting = [False, True, True, False, False] if mask == "truth" else [False] * 5
    for pair, given in ((same, batch), (exchanged(same), flipped(batch))):
        assert (pull_of(Explicit(mask=mask), pair, given, objective) > 0).tolist() == contradicting


@objectives
def test_an_explicit_conflict_without_strength_adds_exactly_nothing(objective: Any) -> None:
    pair, batch = policies(objective)
    loss = objective(pair, batch.targets)
    for form in ("reverse", "sft"):
        for conflict in (
            Explicit(0.0, form=form),
            RandomMask(0.0, rate=1.0, form=form),
            RandomMask(rate=0.0, form=form),
        ):
            pull = pull_of(conflict, pair, batch, objective)
            assert (pull == 0).all()
            assert torch.equal(loss + pull, loss)


@each({name: conflict for name, conflict in OPTIONS.items() if name not in PULLING})
def test_a_conflict_of_rows_alone_has_no_loss_for_policies_either(conflict: Conflict) -> None:
    pair, batch = policies(SimPO())
    assert conflict.loss(pair, batch, SimPO()) is None


@each({name: conflict for name, conflict in POLICY_PULLING.items() if not conflict.reads_truth})
def test_without_reads_truth_the_truth_is_not_touched(conflict: Conflict) -> None:
    pair, batch = policies(DPO())
    untold = batch._replace(truth=batch.truth * torch.nan)
    assert torch.equal(pull_of(conflict, pair, batch, DPO()), pull_of(conflict, pair, untold, DPO()))


@each({name: conflict for name, conflict in PULLING.items() if isinstance(conflict, Explicit)})
def test_for_a_reward_model_the_term_is_what_it_always_was_to_the_bit(conflict: Any) -> None:
    """Cross-entropy toward the other answer, in single precision as in training, computed as before policies came."""
    margin, batch = some_batch()
    margin[:5] = 0.0
    pair = PairScores(margin.float(), torch.zeros(len(margin)))
    batch = batch._replace(targets=batch.targets.float(), truth=batch.truth.float())
    reference = batch.truth if conflict.reads_truth else ((batch.targets - 0.5).sign() + 1) / 2
    before = torch.nn.functional.binary_cross_entropy_with_logits(pair.margin, 1 - reference, reduction="none")
    mask = (pair.margin.sign() * (reference - 0.5) < 0).to(pair.margin.dtype)
    assert torch.equal(pull_of(conflict, pair, batch, BCE), conflict.alpha * before * mask)


# --- keys and refusals ------------------------------------------------------------------------------------------------


def test_knobs_that_came_later_rename_no_student_that_does_not_use_them() -> None:
    explicit = {"_target_": "Explicit", "VERSION": 1, "alpha": 0.5, "mask": "truth"}
    assert identity(Explicit(0.5)) == identity(Explicit(0.5, form="reverse", trigger="margin")) == explicit
    assert identity(Explicit(0.5, form="sft")) == explicit | {"form": "sft"}
    assert identity(Explicit(0.5, trigger="policy")) == explicit | {"trigger": "policy"}
    drawn = {"_target_": "RandomMask", "VERSION": 2, "alpha": 0.5, "rate": 0.1}
    assert identity(RandomMask()) == drawn
    assert identity(RandomMask(rate=None)) == drawn | {"rate": None}
    assert identity(RandomMask(form="sft")) == drawn | {"form": "sft"}


@pytest.mark.parametrize(
    ("conflict", "refusal"),
    [
        (Explicit(form="sft"), ("form", "sft", "reverse")),
        (RandomMask(form="sft"), ("form", "sft", "reverse")),
        (Explicit(trigger="policy"), ("trigger", "policy", "margin")),
    ],
    ids=repr,
)
def test_what_means_nothing_to_a_reward_model_is_refused_in_one_line_and_only_there(
    conflict: Conflict, refusal: tuple[Any, ...]
) -> None:
    with refused(*refusal):
        conflict.check(BCE)
    for objective in POLICY_OBJECTIVES:
        if objective.needs_reference or getattr(conflict, "trigger", "") != "policy":
            conflict.check(objective)


@pytest.mark.parametrize("objective", [BCE, *POLICY_OBJECTIVES], ids=repr)
def test_every_option_and_every_placebo_goes_with_every_objective(objective: Any) -> None:
    for conflict in [*OPTIONS.values(), NoConflict(), Implicit(), MoreData()]:
        conflict.check(objective)
        for placebo in conflict.placebos().values():
            (replace(placebo, rate=0.1) if placebo.needs_rate else placebo).check(objective)


@pytest.mark.parametrize(
    ("cls", "knob", "value", "nearest"),
    [
        (Explicit, "form", "sfr", "sft"),
        (Explicit, "trigger", "polcy", "policy"),
        (RandomMask, "form", "revrse", "reverse"),
    ],
)
def test_a_form_or_a_trigger_that_does_not_exist_is_refused(cls: Any, knob: str, value: str, nearest: str) -> None:
    with refused(knob, value, nearest=nearest):
        cls(**{knob: value})


def test_rounding_of_the_reference_decides_no_mask() -> None:
    objective = next(one for one in POLICY_OBJECTIVES if one.needs_reference)
    pair, batch = policies(objective)
    pair = pair._replace(ref_first=pair.first, ref_second=pair.second)  # a policy before its first step
    noise = 1e-3 * torch.randn(pair.first.shape, dtype=pair.first.dtype, generator=torch.Generator().manual_seed(0))
    there, again = (
        pull_of(Explicit(), one, batch, objective) > 0 for one in (pair, pair._replace(ref_first=pair.first + noise))
    )
    assert torch.equal(there, again)
    assert torch.equal(there, (batch.targets > 0.5) != (batch.truth > 0.5))
