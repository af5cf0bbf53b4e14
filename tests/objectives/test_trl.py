"""Losses beside those of TRL's trainers, on the same numbers. TRL is no dependency: without it nothing is run here.

The trainers' loss functions are called on stand-ins for trainer and model, so that no model is trained or loaded.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.objectives.scored import log_probs
from torch import Tensor

from w2sd.objectives.preference import DPO, IPO, SFT, DPOLengthNormalised, SimPO
from w2sd.objectives.scores import PairLogProbs

N, PROMPT = 12, 3
LENGTHS = torch.tensor(  # tokens of the first answers, and of the second ones
    [[1, 4, 2, 7, 1, 3, 5, 1, 6, 2, 3, 9], [1, 3, 2, 6, 1, 5, 2, 4, 8, 2, 3, 1]]
).flatten()


@pytest.fixture(scope="module")
def trainers() -> Any:
    """TRL's DPOTrainer and CPOTrainer, the latter being home to SimPO."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("trl", reason="TRL is not installed: our losses are not compared with its trainers'")
        dpo = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
        cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    if not (hasattr(dpo, "_compute_loss") and hasattr(cpo, "cpo_loss")):
        pytest.skip("this TRL keeps its losses elsewhere: ours are not compared with its trainers'")
    return SimpleNamespace(dpo=dpo, cpo=cpo)


def tokens() -> tuple[Tensor, Tensor]:
    """Log-probabilities of single tokens under policy and reference [2N, T]; 0 before and after the answer."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(PROMPT + int(LENGTHS.max()))
    answer = (place >= PROMPT) & (place < PROMPT + LENGTHS[:, None])
    policy, reference = torch.rand(2, *answer.shape, generator=generator, dtype=torch.float64).log() * answer
    return policy, reference


def pairs() -> PairLogProbs:
    (first, second), (ref_first, ref_second) = (each.sum(dim=1).chunk(2) for each in tokens())
    n_first, n_second = LENGTHS.double().chunk(2)
    return log_probs(first, second, ref_first, ref_second)._replace(n_first=n_first, n_second=n_second)


class Accelerator:
    device = torch.device("cpu")

    def gather(self, values: Tensor) -> Tensor:
        return values

    gather_for_metrics = gather


def of_dpo_trainer(trainers: Any, loss_type: str, beta: float, which: int) -> float:
    """The loss of one pair; the trainer gives means only."""
    policy, reference = (each[[which, N + which]] for each in tokens())
    mask = torch.nn.functional.pad((policy != 0).long(), (1, 0))  # a token is predicted from the place before it
    outputs = SimpleNamespace(log_probs=policy, **dict.fromkeys(("entropy", "mean_logits", "is_top1"), policy.bool()))
    stand_in = SimpleNamespace(
        **{"model": SimpleNamespace(training=True), "accelerator": Accelerator(), "aux_loss_enabled": False},
        **{"ld_alpha": None, "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "use_weighting": False},
        **{"loss_types": [loss_type], "loss_weights": [1.0], "beta": beta, "label_smoothing": 0.0},
        **{"_metrics": defaultdict(lambda: defaultdict(list)), "_total_train_tokens": 0, "_tp_size": 1},
    )
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
    inputs |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference.sum(dim=1).split(1), strict=True))
    return float(trainers.dpo._compute_loss(stand_in, lambda **_: outputs, inputs, return_outputs=False))


@pytest.mark.parametrize("beta", [0.1, 0.5, 5.0])
@pytest.mark.parametrize(
    ("loss_type", "make"), [("sigmoid", DPO), ("sigmoid_norm", DPOLengthNormalised), ("sft", lambda _: SFT())]
)
def test_losses_are_those_of_the_dpo_trainer(trainers: Any, loss_type: str, make: Any, beta: float) -> None:
    ours = make(beta)(pairs(), torch.ones(N, dtype=torch.float64))
    theirs = [of_dpo_trainer(trainers, loss_type, beta, which) for which in range(N)]
    assert ours.tolist() == pytest.approx(theirs, rel=1e-9)


def test_ipo_is_theirs_for_answers_of_one_token(trainers: Any) -> None:
    """Longer answers count per token there, which the paper does not say."""
    single = [which for which in range(N) if LENGTHS[which] == LENGTHS[N + which] == 1]
    other = [which for which in range(N) if which not in single]
    ours = IPO(beta=0.3)(pairs(), torch.ones(N, dtype=torch.float64)).tolist()
    for which in single:
        assert ours[which] == pytest.approx(of_dpo_trainer(trainers, "ipo", 0.3, which), rel=1e-9)
    assert all(ours[which] != pytest.approx(of_dpo_trainer(trainers, "ipo", 0.3, which)) for which in other)


def of_cpo_trainer(trainers: Any, logps: tuple[Tensor, Tensor], **knobs: Any) -> Tensor:
    none: dict[str, Any] = {"alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": 0.0}
    return trainers.cpo.cpo_loss(SimpleNamespace(accelerator=Accelerator(), **none | knobs), *logps)[0]


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (10.0, 3.0), (2.5, 0.0)])
def test_simpo_is_theirs(trainers: Any, beta: float, gamma: float) -> None:
    pair = pairs()
    means = (pair.first / pair.n_first, pair.second / pair.n_second)
    theirs = of_cpo_trainer(trainers, means, loss_type="simpo", beta=beta, simpo_gamma=gamma)
    torch.testing.assert_close(SimPO(beta, gamma)(pair, torch.ones_like(theirs)), theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_theirs(trainers: Any, smoothing: float) -> None:
    """Their DPO has lost it; contrastive preference optimisation is DPO without a reference."""
    pair = pairs()
    assert pair.ref_first is not None
    assert pair.ref_second is not None
    moved = (pair.first - pair.ref_first, pair.second - pair.ref_second)
    theirs = of_cpo_trainer(trainers, moved, loss_type="sigmoid", beta=0.3, label_smoothing=smoothing)
    torch.testing.assert_close(DPO(0.3, smoothing)(pair, torch.ones_like(theirs)), theirs)
