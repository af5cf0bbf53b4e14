"""Conflicts: both hooks of every option, the explicit one's vectors, what an arm is trained on and for how long.

The loss of a policy's conflict is in `test_policy_conflicts.py`.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tests.builders import refused
from tests.stages.chain import compute
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import GPT2Config, GPT2Model

from w2sd.atomic import write_json
from w2sd.cli import CONF
from w2sd.config import RunConfig, build, oracles, read
from w2sd.conflicts.base import COIN, INVERTED, SOURCE, TEACHER, Conflict, Extra, NoConflict, blind_spots
from w2sd.conflicts.decoy import Inverted, InvertedTopics, MoreImitation, OtherSeed, UnsureLabels, WeightNoise
from w2sd.conflicts.explicit import Explicit, contradicts
from w2sd.conflicts.implicit import Implicit
from w2sd.conflicts.placebo import Agreeing, MoreData, RandomHelpful, RandomMask, Unrelated
from w2sd.conflicts.planted import Planted
from w2sd.data import pairs as data
from w2sd.data.batch import PairBatch, PairRows
from w2sd.data.loader import Loader, Shuffled
from w2sd.data.pairs import Pair, Table, coin, draw
from w2sd.data.text import Encoded
from w2sd.errors import StageFailed
from w2sd.logger import Csv
from w2sd.models.heads import RewardModel
from w2sd.models.prepare import silence_dropout
from w2sd.objectives.reward import RewardBCE
from w2sd.objectives.scores import PairScores
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Stage, Task
from w2sd.pipeline.store import Store
from w2sd.predictions import read_predictions
from w2sd.stages import engine, train, training_targets
from w2sd.students.student import RewardStudent
from w2sd.supervision.oracle import Gold, OracleConfident
from w2sd.supervision.teacher import Confident, Hard, TwoStage

BCE = RewardBCE()
OPTIONS: dict[str, Conflict] = {
    path.stem: build(OmegaConf.to_container(OmegaConf.load(path)), "conflict")
    for path in sorted(Path(CONF, "conflict").glob("*.yaml"))
}
PULLING = {  # conflicts with a loss
    **{name: conflict for name, conflict in OPTIONS.items() if isinstance(conflict, Explicit | RandomMask)},
    "explicit, weak": Explicit(mask="weak"),
    "explicit, strong pull": Explicit(alpha=3.0),
    "explicit_random_mask, half": RandomMask(rate=0.5),
}
FEEDING = {name: conflict for name, conflict in OPTIONS.items() if isinstance(conflict, Implicit | MoreData | Agreeing)}
FEEDING |= {name: conflict for name, conflict in OPTIONS.items() if isinstance(conflict, Planted | Inverted)}
FEEDING |= {name: conflict for name, conflict in OPTIONS.items() if isinstance(conflict, InvertedTopics)}
FEEDING |= {name: conflict for name, conflict in OPTIONS.items() if isinstance(conflict, RandomHelpful | Unrelated)}


def each(conflicts: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("conflict", conflicts.values(), ids=conflicts)


def scores(margin: Tensor, seed: int = 0) -> PairScores:
    """Scores with these margins; a conflict has no business with their level."""
    level = torch.rand(margin.shape, dtype=margin.dtype, generator=torch.Generator().manual_seed(seed))
    return PairScores(level + margin / 2, level - margin / 2)


def batch_of(targets: Any, truth: Any = None, rows: Iterable[int] | None = None) -> PairBatch:
    """A batch whose tokens nobody looks at."""
    targets = torch.as_tensor(targets, dtype=torch.float64)
    truth = torch.full_like(targets, torch.nan) if truth is None else torch.as_tensor(truth, dtype=torch.float64)
    rows = torch.arange(len(targets)) if rows is None else torch.tensor(list(rows))
    nothing = dict.fromkeys(PairBatch._fields, torch.empty(0))
    return PairBatch(**nothing | {"rows": rows, "targets": targets, "truth": truth, "draws": draws_of(rows.tolist())})


def draws_of(rows: Iterable[int], seed: int = 0) -> Tensor:
    """What a stage draws for these rows, whose numbers are their ids."""
    return torch.tensor([draw(str(seed), str(row)) for row in rows])


def alone(batch: PairBatch, n: int) -> PairBatch:
    """The batch of one of its pairs."""
    return batch_of(batch.targets[n : n + 1], batch.truth[n : n + 1], [int(batch.rows[n])])


# --- the loss: literal values -----------------------------------------------------------------------------------------

# V10 of methods.md 7.2
Z, Y, GT = [0.8, -0.3, -1.5, 0.4], [0.9, 0.7, 0.2, 0.45], [1.0, 1.0, 0.0, 0.0]
MASK, BASE, REWARD, TOTAL = [0, 1, 0, 1], 0.6124711101997524, 0.2668426242171199, 0.7458924223083123
GRADIENT = [-0.05250637971809687, -0.015415943804372105, -0.0043936190484109156, -0.012992127457830495]


def total(z: Tensor, rows: list[int], alpha: float = 0.5) -> Tensor:
    """The sum of the objective and the conflict over some rows of the table."""
    batch = batch_of([Y[row] for row in rows], [GT[row] for row in rows], rows)
    at = PairScores(z[rows], torch.zeros(len(rows), dtype=z.dtype))
    pull = Explicit(alpha).loss(at, batch, BCE)
    assert pull is not None
    return (BCE(at, batch.targets) + pull).sum()


def test_the_explicit_conflict_has_its_reference_values() -> None:
    z = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    at, batch = PairScores(z, torch.zeros_like(z)), batch_of(Y, GT)
    assert contradicts(z, batch.truth).tolist() == MASK
    pull = Explicit(0.5).loss(at, batch, BCE)
    assert pull is not None
    assert (pull != 0).tolist() == [bool(masked) for masked in MASK]
    assert BCE(at, batch.targets).mean().item() == pytest.approx(BASE, abs=1e-9)
    assert pull.mean().item() == pytest.approx(0.5 * REWARD, abs=1e-9)  # over all rows, masked or not
    loss = total(z, [0, 1, 2, 3]) / 4
    assert loss.item() == pytest.approx(TOTAL, abs=1e-9)
    [gradient] = torch.autograd.grad(loss, z)
    assert gradient.tolist() == pytest.approx(GRADIENT, abs=1e-9)


@pytest.mark.parametrize("pieces", [[[0], [1], [2], [3]], [[3, 1], [0], [2]], [[0, 1, 2], [3]]], ids=str)
def test_accumulating_micro_batches_gives_the_same_total(pieces: list[list[int]]) -> None:
    z = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    losses = [total(z, piece) / 4 for piece in pieces]
    for loss in losses:
        loss.backward()
    assert sum(loss.item() for loss in losses) == pytest.approx(TOTAL, abs=1e-9)
    assert z.grad is not None
    assert z.grad.tolist() == pytest.approx(GRADIENT, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, 7.0])
def test_the_strength_is_a_factor(alpha: float) -> None:
    z = torch.tensor(Z, dtype=torch.float64)
    assert total(z, [0, 1, 2, 3], alpha).item() / 4 == pytest.approx(BASE + alpha * REWARD, abs=1e-9)


def test_where_neither_side_is_preferred_nothing_is_contradicted() -> None:
    """s = 1/2 is not below 1/2: a rule for ties that took a side would depend on the slots."""
    tie = torch.zeros(2, dtype=torch.float64)
    for conflict in (Explicit(), Explicit(mask="weak")):
        pull = conflict.loss(scores(tie), batch_of([0.9, 0.1], [1.0, 0.0]), BCE)
        assert pull is not None
        assert pull.tolist() == [0, 0]
    undecided = Explicit(mask="weak").loss(scores(torch.tensor([2.0, -2.0])), batch_of([0.5, 0.5]), BCE)
    assert undecided is not None
    assert undecided.tolist() == [0, 0]


# V11 of methods.md 7.2: q, oriented to the truth, and what a student can settle at
FIXED_POINTS = {
    0.5: {
        0.30: [0.2], 0.49: [0.3267], 0.55: [0.3667, 0.55], 0.70: [0.4667, 0.70], 0.74: [0.4933, 0.74],
        0.76: [0.76], 0.90: [0.90],
    },
    1.0: {
        0.30: [0.15], 0.49: [0.245], 0.55: [0.275, 0.55], 0.70: [0.35, 0.70], 0.74: [0.37, 0.74],
        0.76: [0.38, 0.76], 0.90: [0.45, 0.90],
    },
}  # fmt: skip


def settled(conflict: Explicit, q: list[float], truth: float | None) -> list[list[float]]:
    """Where gradient descent on one row ends, from 121 beginnings, for each q; all are P(first is better)."""
    z = torch.linspace(-6, 6, 121, dtype=torch.float64).repeat(len(q))
    targets = torch.tensor(q, dtype=torch.float64).repeat_interleave(121)
    batch = batch_of(targets, None if truth is None else torch.full_like(z, truth))
    for _ in range(600):
        z.requires_grad_(True)
        at = PairScores(z, torch.zeros_like(z))
        pull = conflict.loss(at, batch, BCE)
        assert pull is not None
        [gradient] = torch.autograd.grad((BCE(at, batch.targets) + pull).sum(), z)
        z = (z - gradient).detach()
    return [sorted({round(s, 4) for s in ends}) for ends in z.sigmoid().reshape(len(q), 121).tolist()]


def mirrored(points: list[list[float]]) -> list[list[float]]:
    """P(second is better)."""
    return [[round(1 - s, 4) for s in reversed(ends)] for ends in points]


@pytest.mark.parametrize("alpha", FIXED_POINTS)
def test_a_student_settles_where_the_vectors_say(alpha: float) -> None:
    """Up to (1 + alpha) / 2 a row can be learnt wrongly; whichever slot the better answer is in."""
    q, expected = list(FIXED_POINTS[alpha]), list(FIXED_POINTS[alpha].values())
    assert settled(Explicit(alpha), q, truth=1.0) == expected
    assert mirrored(settled(Explicit(alpha), [1 - p for p in q], truth=0.0)) == expected


def test_against_the_weak_label_a_student_settles_at_it_or_beyond_it() -> None:
    """The same with the weak label in the place of the truth: below one half the table is mirrored."""
    q = [0.55, 0.70, 0.74, 0.76, 0.90]
    expected = [FIXED_POINTS[0.5][p] for p in q]
    assert settled(Explicit(mask="weak"), q, truth=None) == expected
    assert mirrored(settled(Explicit(mask="weak"), [1 - p for p in q], truth=None)) == expected


# --- the loss: every option -------------------------------------------------------------------------------------------


def some_batch(n: int = 300) -> tuple[Tensor, PairBatch]:
    """Margins, small and large, and a batch in which the weak label is wrong now and then."""
    rng = np.random.default_rng(0)
    margin = torch.from_numpy(rng.normal(size=n) * rng.choice([0.01, 1.0, 8.0], size=n))
    return margin, batch_of(rng.random(n), rng.integers(0, 2, n), rng.permutation(10 * n)[:n])


def flipped(batch: PairBatch) -> PairBatch:
    """The same pairs in the other slots."""
    return batch._replace(targets=1 - batch.targets, truth=1 - batch.truth)


@each(PULLING)
def test_a_loss_is_a_finite_number_of_0_or_more_for_each_example(conflict: Conflict) -> None:
    margin, batch = some_batch()
    pull = conflict.loss(scores(margin), batch, BCE)
    assert pull is not None
    assert pull.shape == margin.shape
    assert pull.dtype == margin.dtype
    assert pull.isfinite().all()
    assert (pull >= 0).all()
    assert 0 < (pull > 0).sum() < len(pull)
    for n in (0, 17, 299):  # a row's loss is its own
        own = conflict.loss(scores(margin[n : n + 1]), alone(batch, n), BCE)
        assert own is not None
        torch.testing.assert_close(own, pull[n : n + 1])


@each(PULLING)
def test_swapping_the_slots_changes_no_loss(conflict: Conflict) -> None:
    margin, batch = some_batch()
    margin[:3], batch.targets[3:6] = 0.0, 0.5  # ties included
    one, other = conflict.loss(scores(margin), batch, BCE), conflict.loss(scores(-margin), flipped(batch), BCE)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(other, one)


@each(PULLING)
def test_no_margin_is_too_large(conflict: Conflict) -> None:
    margin = torch.tensor([-1e6, -750.0, -1e-300, 0.0, 1e-300, 750.0, 1e6], dtype=torch.float64, requires_grad=True)
    for truth in (0.0, 1.0):
        pull = conflict.loss(PairScores(margin, torch.zeros(7)), batch_of([0.2] * 7, [truth] * 7), BCE)
        assert pull is not None
        assert pull.isfinite().all()
        assert torch.autograd.grad(pull.sum(), margin)[0].isfinite().all()


@each({name: conflict for name, conflict in OPTIONS.items() if name not in PULLING})
def test_a_conflict_of_rows_alone_has_no_loss(conflict: Conflict) -> None:
    margin, batch = some_batch()
    assert conflict.loss(scores(margin), batch, BCE) is None
    assert not conflict.reads_truth


@each(PULLING)
def test_the_mask_is_not_differentiated_and_pulls_toward_the_other_side(conflict: Any) -> None:
    """The gradient of a masked row is alpha times that of a cross-entropy; there is none elsewhere."""
    margin, batch = some_batch()
    margin.requires_grad_(True)
    pull = conflict.loss(scores(margin), batch, BCE)
    assert pull is not None
    reference = batch.truth if conflict.reads_truth else (batch.targets > 0.5).double()
    plain = binary_cross_entropy_with_logits(margin, 1 - reference, reduction="none")
    mask = (pull > 0).double()
    torch.testing.assert_close(pull, conflict.alpha * mask * plain)
    [gradient] = torch.autograd.grad(pull.sum(), margin)
    torch.testing.assert_close(gradient, conflict.alpha * mask * (margin.sigmoid() - (1 - reference)))


@pytest.mark.parametrize("mask", ["truth", "weak"])
def test_the_mask_is_where_the_student_contradicts(mask: str) -> None:
    margin, batch = some_batch()
    pull = Explicit(mask=mask).loss(scores(margin), batch, BCE)
    assert pull is not None
    reference = batch.truth if mask == "truth" else batch.targets
    assert ((pull > 0) == ((margin > 0) != (reference > 0.5))).all()


@each({name: conflict for name, conflict in PULLING.items() if not conflict.reads_truth})
def test_without_reads_truth_the_truth_is_not_touched(conflict: Conflict) -> None:
    """NaN in its place changes nothing; where it is read, NaN would be seen at once."""
    margin, batch = some_batch()
    untold = batch._replace(truth=batch.truth * torch.nan)
    told, blind = (conflict.loss(scores(margin), b, BCE) for b in (batch, untold))
    assert told is not None
    assert blind is not None
    assert torch.equal(told, blind)


def test_only_the_paper_s_mask_reads_the_truth() -> None:
    reading = {name for name, conflict in OPTIONS.items() if conflict.reads_truth}
    assert reading == {name for name, conflict in OPTIONS.items() if isinstance(conflict, Explicit)} >= {"explicit"}
    assert not Explicit(mask="weak").reads_truth
    margin, batch = some_batch()
    pull = Explicit().loss(scores(margin), batch._replace(truth=batch.truth * torch.nan), BCE)
    assert pull is not None
    assert pull.isnan().all()


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_random_mask_covers_its_share_of_the_rows(rate: float) -> None:
    n = 4096
    pull = RandomMask(rate=rate).loss(scores(torch.full((n,), 3.0)), batch_of([0.7] * n), BCE)
    assert pull is not None
    assert abs((pull > 0).double().mean().item() - rate) <= 3 * (rate * (1 - rate) / n) ** 0.5


def test_a_random_mask_covers_the_same_rows_in_every_epoch_however_they_are_batched() -> None:
    n = 60
    encoded = Encoded(*[[np.arange(1 + i % 5) for i in range(n)] for _ in range(3)], list(range(n)), 0, 0, 0)

    def masked(epoch: int, micro_tokens: int) -> set[int]:
        draws = draws_of(range(n)).numpy()
        rows = PairRows(encoded, np.zeros(n, dtype=bool), micro_tokens, targets=np.full(n, 0.7), draws=draws)
        batches = Shuffled(n, 16, seed=epoch)
        batches.set_epoch(epoch)
        found = set()
        for micro in (micro for batch in batches for micro in rows[batch]):
            pull = RandomMask(rate=0.2).loss(scores(torch.full((len(micro.rows),), 3.0)), micro, BCE)
            assert pull is not None
            found |= set(micro.rows[pull > 0].tolist())
        return found

    first = masked(0, 10**6)
    assert 0 < len(first) < n / 2
    assert all(masked(epoch, micro_tokens) == first for epoch in (0, 1, 5) for micro_tokens in (1, 40))


# --- the loss in a step -----------------------------------------------------------------------------------------------

N, WORDS = 22, 31
BATCHES = [list(range(8)), list(range(8, 16)), list(range(16, N))]


def task_in(folder: Path, **more: Any) -> Task:
    """What a stage gets."""
    folders = {name: folder / name for name in ("out", "work", "logs")}
    for place in folders.values():
        place.mkdir(parents=True, exist_ok=True)
    given = {
        "key": "0" * 12,
        "kind": "train",
        "params": {"seed": 0},
        "inputs": {},
        "trainer": Trainer(log_every=1),
    } | more
    return Task(**given, logger=Csv(), name="test", advance=lambda done, total: None, **folders)


def trained(folder: Path, conflict: Conflict, micro_tokens: int) -> dict[str, Tensor]:
    """The weights after three steps of a small model in double precision, on rows with both truth and targets."""
    rng = np.random.default_rng(0)
    sides = [[rng.integers(0, WORDS, rng.integers(1, 8)) for _ in range(N)] for _ in range(3)]
    swapped, targets = rng.random(N) < 0.5, rng.random(N)
    encoded = Encoded(*sides, list(range(N)), 0, 0, 0)
    told = {"targets": targets, "truth": (~swapped).astype(float), "draws": draws_of(range(N)).numpy()}
    rows = PairRows(encoded, swapped, micro_tokens, **told)
    torch.manual_seed(0)
    backbone = GPT2Model(GPT2Config(n_embd=12, n_layer=1, n_head=2, n_positions=32, vocab_size=WORDS))
    silence_dropout(backbone)
    model = RewardModel(backbone, 0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(5 if weights.ndim > 1 else 1)
    fit = Fit(lr=1e-3, clip=0.5, warmup=0.3)
    student = RewardStudent(model.double().train(), BCE, conflict, fit, 3)
    engine.train(task_in(folder), student, Loader(rows, BATCHES))
    return {name: weights.clone() for name, weights in model.state_dict().items()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((weights - other[name]).abs().max().item() for name, weights in one.items())


@each(PULLING)
def test_memory_changes_no_step_of_any_conflict(conflict: Conflict, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", conflict, 10**6)
    for micro_tokens in (1, 50):
        assert distance(whole, trained(tmp_path / str(micro_tokens), conflict, micro_tokens)) < 1e-6
    assert distance(whole, trained(tmp_path / "none", NoConflict(), 10**6)) > 1e-5


# --- an arm from text to weights --------------------------------------------------------------------------------------

SIZES = {"gt": 32, "w2s": 40, "w2s_parts": 3, "test": 8, "helpful": 40, "helpful_test": 8, "unrelated": 40}
OVERRIDES = [
    *(f"data.{size}={n}" for size, n in SIZES.items()),
    *("weak.width=8", "weak.layers=1", "weak.heads=2", "strong.width=8", "strong.layers=1", "strong.heads=2"),
    *("fit.epochs=2", "fit.batch=16", "conflict=implicit", "data.visible=1.0"),
]
BASELINE_STEPS = 2 * 3  # two epochs of 40 rows in batches of 16


class Arm(NamedTuple):
    """A training that was run."""

    said: dict[str, Any]
    weights: dict[str, bytes]
    rates: list[float]  # the learning rate of every step
    loader: Loader
    folder: Path


class Setting(NamedTuple):
    """A small world, a weak model that was trained in it, and its labels."""

    run: RunConfig
    stages: dict[str, Stage]
    store: Store
    folder: Path

    @property
    def table(self) -> Table:
        return data.read(self.run.data)

    def extra(self, conflict: Conflict) -> Extra:
        """The rows that a conflict adds to 40."""
        return conflict.extra(self.table, 40, blind_spots(conflict, self.run.data, self.run.weak))

    def task(self, conflict: Conflict, **params: Any) -> Task:
        """The task of an arm."""
        stage = self.stages["train/student"]
        params = {"weak": self.run.weak} | params
        inputs = {role: self.store.find(made.key) for role, made in stage.inputs.items()}
        folder = self.folder / f"arm-{len(list(self.folder.glob('arm-*')))}"
        return task_in(folder, params={**stage.params, "conflict": conflict, **params}, inputs=inputs)

    def arm(self, conflict: Conflict, monkeypatch: pytest.MonkeyPatch, **params: Any) -> Arm:
        """Train it, watching what it is trained on."""
        task, seen = self.task(conflict, **params), {}
        fit = engine.train

        def watched(task: Task, learner: Any, loader: Loader, *rest: Any) -> None:
            seen.update(loader=loader)
            fit(task, learner, loader, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(engine, "train", watched)
            said = train.run(task)
        with (task.logs / "metrics.csv").open() as file:
            rates = [float(row["train/lr"]) for row in csv.DictReader(file)]
        weights = {name: (task.out / name).read_bytes() for name in ("head.safetensors", "model/model.safetensors")}
        return Arm(said, weights, rates, seen["loader"], task.out)

    @property
    def teacher(self) -> dict[str, float]:
        """What the weak model thinks of the better answer of each pair."""
        labels = read_predictions(self.store.find(self.stages["label/weak"].key) / "predictions.parquet")
        return dict(zip(labels.ids, labels.p_correct.tolist(), strict=True))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    place = tmp_path_factory.mktemp("setting")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = read(hydra.compose("config", [*OVERRIDES, f"store={place / 'store'}", f"out={place / 'report'}"]))
    stages, store = plan(run), Store(place / "store")
    for name in ("pretrain/weak", "pretrain/strong", "train/weak", "label/weak"):
        compute(stages[name], run, store)
    return Setting(run, stages, store, place)


@pytest.fixture(scope="module")
def none(setting: Setting) -> Arm:
    with pytest.MonkeyPatch.context() as patch:
        return setting.arm(NoConflict(), patch)


@each(
    {
        "explicit": Explicit(alpha=0.0),
        "explicit, weak": Explicit(alpha=0.0, mask="weak"),
        "random mask": RandomMask(alpha=0.0, rate=1.0),
        "empty mask": RandomMask(alpha=1.0, rate=0.0),
    }
)
def test_an_explicit_conflict_without_strength_is_none_bit_for_bit(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch, conflict: Conflict
) -> None:
    arm = setting.arm(conflict, monkeypatch)
    assert arm.weights == none.weights
    assert arm.said == none.said | {"pulled": 0.0}


@each(OPTIONS)
def test_every_option_trains_and_none_alone_trains_what_none_trains(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch, conflict: Conflict
) -> None:
    """Another seed and more imitation are told from none by what a plan gives them: a stream, and a hint."""
    arm = setting.arm(conflict, monkeypatch)
    assert (arm.weights == none.weights) == isinstance(conflict, NoConflict | OtherSeed | MoreImitation)
    assert arm.said["n/pairs"] == 40 + arm.said["n/extra"]
    assert arm.said["n/steps"] == 2 * -(-arm.said["n/pairs"] // 16)


@each(PULLING | FEEDING | {"none": NoConflict()})
def test_the_truth_is_in_the_batches_only_for_a_conflict_that_declares_it(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, conflict: Conflict
) -> None:
    seen: list[PairRows] = []
    monkeypatch.setattr(engine, "train", lambda task, learner, loader, *_: seen.append(loader.rows))
    train.run(setting.task(conflict))
    [rows] = seen
    truth = torch.cat([micro.truth for micro in rows[list(range(len(rows)))]])
    if not conflict.reads_truth:
        assert truth.isnan().all()
    else:
        order = torch.cat([micro.rows for micro in rows[list(range(len(rows)))]]).tolist()
        own = setting.table.rows("w2s")
        assert truth.tolist() == [0.0 if coin(own[i].id) else 1.0 for i in order]


def test_the_rows_of_a_random_mask_are_decided_by_their_ids_and_the_seed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows keep their place in the mask when the table is read in another order; another seed draws other rows."""
    seen: list[PairRows] = []
    monkeypatch.setattr(engine, "train", lambda task, learner, loader, *_: seen.append(loader.rows))
    conflict, table = RandomMask(rate=0.3), setting.table

    def masked(table: Table, seed: int) -> set[str]:
        monkeypatch.setattr(train, "read", lambda source: table)
        train.run(setting.task(conflict, seed=seed))
        rows, pairs = seen.pop(), table.rows("w2s")
        micros = rows[list(range(len(rows)))]
        pulls = [conflict.loss(scores(torch.full((len(micro.rows),), 3.0)), micro, BCE) for micro in micros]
        return {pairs[int(i)].id for micro, pull in zip(micros, pulls, strict=True) for i in micro.rows[pull != 0]}

    first = masked(table, 0)
    assert 0 < len(first) < len(table.rows("w2s"))
    assert masked(table._replace(examples=table.examples[::-1]), 0) == first
    assert masked(table, 1) != first


# --- extra rows -------------------------------------------------------------------------------------------------------

KINDS: dict[type, tuple[str, int, str]] = {  # facet, part, whose labels
    Implicit: (data.CONFLICTING, 0, SOURCE),
    MoreData: (data.TARGET, 2, TEACHER),  # the last part of three
    RandomHelpful: (data.CONFLICTING, 0, COIN),
    Unrelated: (data.UNRELATED, 0, SOURCE),
    Agreeing: (data.CONFLICTING, 0, TEACHER),
    Inverted: (data.TARGET, 2, INVERTED),
}


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize(("ratio", "n"), [(0.125, 5), (0.5, 20), (1.0, 40)])
def test_which_rows_join_and_how_many(setting: Setting, cls: type, ratio: float, n: int) -> None:
    """The first ones of their kind, so that a smaller dose is part of a larger one."""
    facet, part, labels = KINDS[cls]
    extra = cls(ratio=ratio).extra(setting.table, 40)
    assert extra == Extra(setting.table.rows("w2s", facet, part)[:n], labels)
    assert len(extra.pairs) == n


def test_every_option_that_adds_rows_is_in_the_table(setting: Setting) -> None:
    adding = {type(conflict) for conflict in OPTIONS.values() if setting.extra(conflict).pairs}
    assert adding == {type(conflict) for conflict in FEEDING.values()} == set(KINDS) | {Planted, InvertedTopics}
    assert not NoConflict().extra(setting.table, 40).pairs


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_more_data_takes_rows_that_train_no_student(setting: Setting, parts: int) -> None:
    """The last part: a chain of parts - 1 students has used up the others."""
    table = dataclasses.replace(setting.run.data, w2s_parts=parts).table()
    taken = {pair.part for pair in MoreData().extra(table, 40).pairs}
    assert taken == {parts - 1}
    used = {pair.cluster for part in range(parts - 1) for pair in table.rows("w2s", part=part)}
    assert not used & {pair.cluster for pair in MoreData().extra(table, 40).pairs}


SOURCES = {
    Implicit: "data.helpful",
    MoreData: "w2s",
    RandomHelpful: "data.helpful",
    Unrelated: "data.unrelated",
    Agreeing: "data.helpful",
    Inverted: "w2s",
}


@pytest.mark.parametrize("cls", KINDS)
def test_too_few_rows_are_refused_and_not_a_smaller_dose(setting: Setting, cls: type) -> None:
    with refused("ratio", 1.25, f"1 {SOURCES[cls]} 40"):
        cls(ratio=1.25).extra(setting.table, 40)


TOPICS = {"visible": 1.0, "w2s": 200}  # blind spots are whole topics, with rows enough for four of them


@pytest.mark.parametrize("visible", [0.0, 1.0])
def test_errors_are_planted_where_the_weak_model_cannot_know(setting: Setting, visible: float) -> None:
    """The first such rows of the part that trains no student; nowhere else, whether or not a prompt shows it."""
    world = dataclasses.replace(setting.run.data, **TOPICS | {"visible": visible})
    table, rung = world.table(), setting.run.weak.rung
    planted = Planted(ratio=0.25)
    extra = planted.extra(table, 200, blind_spots(planted, world, setting.run.weak))
    spare = table.rows("w2s", data.TARGET, 2)
    blind = [pair for pair, known in zip(spare, world.known(spare, rung), strict=True) if not known]
    assert extra == Extra(blind[:50], INVERTED)
    shares = {len(set(world.known(pairs, rung))) for pairs in by_prompt(spare).values()}
    assert shares == ({1} if visible else {2})


def by_prompt(pairs: list[Pair]) -> dict[str, list[Pair]]:
    return {prompt: [pair for pair in pairs if pair.prompt == prompt] for prompt in {pair.prompt for pair in pairs}}


def test_a_decoy_of_topics_harms_two_that_are_known_and_two_that_are_not(setting: Setting) -> None:
    world, decoy = dataclasses.replace(setting.run.data, **TOPICS), InvertedTopics(ratio=0.25)
    extra = decoy.extra(world.table(), 200, blind_spots(decoy, world, setting.run.weak))
    harmed = by_prompt(extra.pairs)
    known = [bool(world.known(pairs, setting.run.weak.rung).all()) for pairs in harmed.values()]
    assert sorted(known) == [False, False, True, True]
    assert sum(len(pairs) for pairs, flag in zip(harmed.values(), known, strict=True) if flag) == 25
    assert (len(extra.pairs), extra.labels) == (50, INVERTED)
    invisible = dataclasses.replace(world, visible=0.0)
    with refused("conflict", "topics", "two"):
        decoy.extra(invisible.table(), 200, blind_spots(decoy, invisible, setting.run.weak))


@pytest.mark.parametrize("conflict", [Planted(ratio=0.9), InvertedTopics(ratio=0.9)])
def test_too_few_blind_rows_are_refused_by_what_they_are(setting: Setting, conflict: Inverted) -> None:
    world = dataclasses.replace(setting.run.data, **TOPICS)
    with refused("ratio", 0.9, "blind 200"):
        conflict.extra(world.table(), 200, blind_spots(conflict, world, setting.run.weak))


@pytest.mark.parametrize("conflict", [Inverted(), InvertedTopics(), Planted()])
def test_inverted_labels_are_an_oracle_s(setting: Setting, conflict: Inverted) -> None:
    assert oracles(setting.run._replace(conflict=conflict)) == ["conflict"]


def test_blind_spots_are_asked_of_data_that_know_them(setting: Setting) -> None:
    assert blind_spots(Inverted(), object(), object()) is None
    with refused("conflict", "Planted", "data=world"):
        blind_spots(Planted(), object(), setting.run.weak)


def test_unsure_labels_are_inverted_by_their_draws() -> None:
    targets = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
    chance = np.array([0.5, 0.36, 0.36, 0.0])  # at most 1/2
    below, above = (UnsureLabels(1.0).relabel(targets, np.maximum(chance + step, 0)) for step in (-1e-9, 1e-9))
    assert below == pytest.approx(np.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1], [1.0, 0.0]]))
    assert above.tolist() == targets.tolist()


def test_without_a_spare_part_there_is_no_more_data(setting: Setting) -> None:
    table = dataclasses.replace(setting.run.data, w2s_parts=1).table()
    with refused("ratio", 1.0, "data.w2s_parts 2"):
        MoreData().extra(table, 40)


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("ratio", [0.0, -1.0, 101.0, float("nan")])
def test_an_impossible_dose_is_refused(cls: type, ratio: float) -> None:
    with refused("ratio", ratio, "0"):
        cls(ratio=ratio)


@pytest.mark.parametrize(
    ("cls", "knob", "value"),
    [
        (Explicit, "alpha", -0.1),
        (Explicit, "alpha", float("inf")),
        (RandomMask, "alpha", -1.0),
        (RandomMask, "rate", 1.1),
        (RandomMask, "rate", -0.1),
        (UnsureLabels, "rate", 0.0),
        (WeightNoise, "weight_noise", 0.0),
    ],
)
def test_an_impossible_pull_is_refused(cls: Any, knob: str, value: float) -> None:
    with refused(knob, value):
        cls(**{knob: value})


def test_a_mask_that_does_not_exist_is_refused() -> None:
    with refused("mask", "week", "truth weak", "weak"):
        Explicit(mask="week")


def taught(setting: Setting, conflict: Conflict, **params: Any) -> tuple[list[Pair], list[float]]:
    """The rows that a conflict adds, and the target of each."""
    task = setting.task(conflict, **params)
    if params.get("supervision") == Gold():
        task = task._replace(inputs={role: path for role, path in task.inputs.items() if role != "labels"})
    extra = setting.extra(conflict)
    targets = training_targets.extra_targets(task, extra)
    assert list(targets) == [pair.id for pair in extra.pairs]  # the whole dose
    return extra.pairs, first_slots(targets)


def first_slots(targets: dict[str, np.ndarray]) -> list[float]:
    """P(first slot is better) of each row; the other slot has the rest."""
    first, second = np.array(list(targets.values())).T
    assert np.allclose(first + second, 1, rtol=0, atol=1e-15)
    return first.tolist()


def in_slots(pairs: list[Pair], p_correct: list[float]) -> list[float]:
    return [1 - p if coin(pair.id) else p for pair, p in zip(pairs, p_correct, strict=True)]


@pytest.mark.parametrize("cls", [Implicit, Unrelated])
def test_own_labels_are_what_their_source_says(setting: Setting, cls: type) -> None:
    pairs, targets = taught(setting, cls())
    assert targets == in_slots(pairs, [1.0] * 40)


@pytest.mark.parametrize("cls", [MoreData, Agreeing])
def test_the_teacher_s_labels_are_what_the_teacher_thinks(setting: Setting, cls: type) -> None:
    pairs, targets = taught(setting, cls())
    soft = in_slots(pairs, [setting.teacher[pair.id] for pair in pairs])
    assert targets == soft
    assert len(set(targets)) > 30
    # and become targets as those of every other row do, without leaving one out
    assert taught(setting, cls(), supervision=Hard())[1] == [float(p > 0.5) for p in soft]
    assert taught(setting, cls(), supervision=Confident(0.9))[1] == soft
    assert taught(setting, cls(), supervision=OracleConfident(0.9))[1] == soft
    assert taught(setting, cls(), supervision=TwoStage())[1] == soft  # there is no first student's word on them


def test_under_the_truth_the_truth_is_the_teacher(setting: Setting) -> None:
    pairs, targets = taught(setting, MoreData(), supervision=Gold())
    assert targets == in_slots(pairs, [1.0] * 40)


def test_labels_by_a_coin_are_right_half_of_the_time_and_know_nothing_of_the_slots(setting: Setting) -> None:
    """It is not the coin that put the pair in its slots: that one would tell the truth, or its opposite."""
    table = dataclasses.replace(setting.run.data, helpful=4000, w2s=4000, w2s_parts=1).table()
    extra = RandomHelpful().extra(table, 4000)
    targets = np.array(first_slots(training_targets.extra_targets(setting.task(RandomHelpful()), extra)))
    swapped = np.array([coin(pair.id) for pair in extra.pairs])
    error = 4 * 0.5 / 4000**0.5  # four standard deviations
    assert set(targets) == {0.0, 1.0}
    assert abs(targets.mean() - 0.5) < error
    assert abs((targets == ~swapped).mean() - 0.5) < error  # how often it is right
    assert abs(targets[swapped].mean() - targets[~swapped].mean()) < 2 * error
    again = training_targets.extra_targets(setting.task(RandomHelpful(), seed=9), extra)
    assert first_slots(again) == targets.tolist()  # a pair's coin is its own


@each(FEEDING)
def test_the_extra_rows_stand_after_the_own_rows_which_are_taught_as_ever(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch, conflict: Any
) -> None:
    arm = setting.arm(conflict, monkeypatch)
    n = round(40 * conflict.ratio)
    rows, own = arm.loader.rows, none.loader.rows
    assert (arm.said["n/pairs"], arm.said["n/extra"], len(rows)) == (40 + n, n, 40 + n)
    assert rows.targets[:40].tolist() == own.targets.tolist()
    assert rows.targets[40:].tolist() == taught(setting, conflict)[1]
    tokenizer = setting.run.strong.open_tokenizer()
    for pair, row in zip(setting.extra(conflict).pairs, rows.texts[40:], strict=True):
        sides = [pair.rejected, pair.chosen] if coin(pair.id) else [pair.chosen, pair.rejected]
        assert [[*row.prompt, *side] for side in row.answers] == [
            tokenizer(pair.prompt + side)["input_ids"] for side in sides
        ]


# --- how long an arm is trained ---------------------------------------------------------------------------------------


def test_a_baseline_takes_its_steps(none: Arm) -> None:
    assert none.said["n/steps"] == len(none.rates) == BASELINE_STEPS


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("ratio", [0.125, 1.0])
def test_with_matched_steps_an_arm_takes_exactly_those_of_its_baseline(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch, cls: type, ratio: float
) -> None:
    """The same number, on the same schedule: every step has the learning rate that it has without the extra rows."""
    arm = setting.arm(cls(ratio=ratio, match_steps=True), monkeypatch)
    assert arm.said["n/steps"] == BASELINE_STEPS
    assert arm.rates == none.rates
    assert arm.said["n/extra"] == 40 * ratio
    assert arm.weights != none.weights


def test_without_matched_steps_an_arm_goes_over_all_its_rows_in_every_epoch(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = setting.arm(Implicit(), monkeypatch)
    assert arm.said["n/steps"] == len(arm.rates) == 2 * 5
    fit = setting.run.fit
    assert arm.rates == pytest.approx([fit.lr * fit.factor(step, 10) for step in range(10)])


@pytest.mark.parametrize("conflict", [NoConflict(), Implicit(match_steps=True)], ids=["baseline", "matched"])
def test_rows_that_are_too_long_count_for_neither_arm(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, conflict: Conflict
) -> None:
    """Steps are matched to the rows that a baseline has left when responses that do not fit were dropped."""
    encode = train.encode_for

    def dropping(*at: Any) -> Encoded:
        whole = encode(*at)
        kept = [n for n in whole.kept if n >= 10 and n != 45]
        sides = [[side[n] for n in kept] for side in whole[:3]]
        return Encoded(*sides, kept, 0, len(whole.kept) - len(kept), 0)

    monkeypatch.setattr(train, "encode_for", dropping)
    arm = setting.arm(conflict, monkeypatch)
    assert arm.said["n/steps"] == 2 * 2  # 30 rows in batches of 16
    assert arm.said["n/extra"] == (39 if isinstance(conflict, Implicit) else 0)
    assert arm.said["n/pairs"] == 30 + arm.said["n/extra"]
    assert arm.said["n/dropped_long"] == 10 + isinstance(conflict, Implicit)


def test_the_bar_of_a_matched_arm_ends_at_its_last_step(setting: Setting) -> None:
    told: list[tuple[int, int]] = []
    task = setting.task(Implicit(match_steps=True))._replace(advance=lambda done, total: told.append((done, total)))
    train.run(task)
    assert told == [(step, BASELINE_STEPS) for step in range(1, BASELINE_STEPS + 1)]


# --- how often a student is pulled at ---------------------------------------------------------------------------------


def test_a_placebo_pulls_as_often_as_its_student_was_pulled_at(
    setting: Setting, none: Arm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told, drawn = setting.arm(Explicit(), monkeypatch).said, RandomMask(rate=None)
    assert 0 < told["pulled"] < 1
    assert "pulled" not in none.said
    write_json(tmp_path / "metrics.json", told)
    task = setting.task(drawn)
    said = train.run(task._replace(inputs={**task.inputs, "like": tmp_path}))
    beside = setting.arm(RandomMask(rate=told["pulled"]), monkeypatch)
    assert said == beside.said
    assert {name: (task.out / name).read_bytes() for name in beside.weights} == beside.weights
    write_json(tmp_path / "metrics.json", {})  # of a student from before this was measured
    with pytest.raises(StageFailed, match=r"force=\[train\]"):
        train.run(task._replace(inputs={**task.inputs, "like": tmp_path}))


# --- placebos and options ---------------------------------------------------------------------------------------------


def test_the_placebos_of_a_conflict() -> None:
    """P1 and P2 in the same dose, or P5 as strong; a placebo and no conflict have none."""
    assert Implicit(0.25, True).placebos() == {
        "more_data": MoreData(0.25, True),
        "random_helpful": RandomHelpful(0.25, True),
    }
    assert Explicit(0.25, form="sft").placebos() == {"random_mask": RandomMask(0.25, None, "sft")}
    assert [conflict.placebos() for conflict in (NoConflict(), MoreData(), Unrelated(), RandomMask())] == [{}] * 4


def test_steps_are_matched_on_request_alone() -> None:
    assert not any(conflict.match_steps for conflict in (Conflict(), NoConflict(), Explicit(), RandomMask()))
    assert not any(cls().match_steps for cls in KINDS)
    assert all(cls(match_steps=True).match_steps for cls in KINDS)


@pytest.mark.parametrize("name", ["none", "implicit", "explicit", "explicit_random_mask", "placebo_more_data"])
def test_the_options_of_the_paper_have_the_defaults_of_their_classes(name: str) -> None:
    assert OPTIONS[name] == type(OPTIONS[name])()
    assert (Implicit().ratio, Implicit().match_steps, Explicit().alpha, Explicit().mask) == (1.0, False, 0.5, "truth")
