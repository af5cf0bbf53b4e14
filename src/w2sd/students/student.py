"""Students: what they share, the reward model, the classifier and the policy."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from w2sd.conflicts.base import Conflict
from w2sd.data.batch import ItemBatch, PairBatch
from w2sd.data.loader import Batch
from w2sd.metrics.torch_metrics import DeceptionScore, PairwiseAccuracy, PerformanceGapRecovered
from w2sd.models.heads import HeadedModel, PolicyModel, Probe, RewardModel
from w2sd.objectives.base import OWN, Moment, Objective
from w2sd.objectives.reward import StepObjective
from w2sd.objectives.scores import ClassScores, PairLogProbs, PairScores
from w2sd.parts.fit import Fit
from w2sd.students.learner import Learner, unwrapped

LOGP = ("logp_chosen", "logp_rejected")
REF_LOGP = ("ref_logp_chosen", "ref_logp_rejected")


class Examination(NamedTuple):
    """What is known of the pairs or items that a student is scored on, in the order of their index."""

    uid: Tensor  # [n] int64
    cluster: Tensor  # [n] int64: numbers, equal where rows are not independent
    truth: Tensor  # [n] which option is right: of a pair the slot of its better answer, of an item its class
    references: dict[str, Tensor]  # per role [n] the confidence of another model in the truth
    reading: str = OWN  # which margin speaks for the student, of those that its objective knows


class Student(Learner):
    """Model, objective and conflict. `training_step` descends `objective(scores, targets) + conflict.loss(...)`."""

    model_type: ClassVar[type[HeadedModel | PolicyModel]]  # or Probe, over states

    def __init__(
        self,
        model: HeadedModel | PolicyModel | Probe,
        objective: Objective,
        conflict: Conflict,
        fit: Fit,
        n_steps: int = 1,
        log_every: int = 1,
    ) -> None:
        super().__init__(model, fit, n_steps, log_every)
        self.objective, self.conflict = objective, conflict
        self.metrics: MetricCollection | None = None
        self.n_pulled: Tensor | None = None  # rows of the last piece at which the conflict's loss pulled
        self.fixed: Objective | None = None  # what the objective is at this step, once that is known

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Scores of the two answers of each pair, in slot order; of an item, those of its classes."""

    def losses(self, micro: Any) -> Tensor:
        scores = self(micro)
        objective = self.fixed or self.objective
        if isinstance(objective, StepObjective):  # one piece, the whole batch: its own scores tell
            objective = objective.fixed(self.moment, scores.logits.detach(), micro.targets)
        loss = objective(scores, micro.targets)
        extra = self.conflict.loss(scores, micro, objective)
        self.n_pulled = None if extra is None else (extra != 0).sum()
        return (loss if extra is None else loss + extra).sum()

    def note(self) -> Tensor | None:
        return self.n_pulled

    def mass(self, micro: Any) -> Tensor:
        return torch.tensor(float(len(micro.rows)), device=self.device)

    def survey(self, batch: Batch) -> None:
        """Fix an objective that is another one at every step, from what all pieces in all processes show."""
        self.fixed = None
        if isinstance(self.objective, StepObjective) and (len(batch.pieces) > 1 or self.trainer.world_size > 1):
            parts = [part for part in self._each(batch, self._look) if part is not None]
            every: list[Any] = [parts]
            if self.trainer.world_size > 1:
                every = every * self.trainer.world_size
                dist.all_gather_object(every, parts)
            logits, targets = zip(*itertools.chain.from_iterable(every), strict=True)
            seen = torch.cat(logits) if self.objective.reads_scores else None
            self.fixed = self.objective.fixed(self.moment, seen, torch.cat(targets))

    @torch.no_grad()
    def _look(self, piece: Any, is_last: bool) -> tuple[Tensor | None, Tensor] | None:
        """Scores of a piece, if the objective asks for them, and its targets; of one that does not count, None."""
        assert isinstance(self.objective, StepObjective)
        micro, counts = unwrapped(piece)
        logits = self(micro).logits.cpu() if self.objective.reads_scores else None
        return (logits, micro.targets.cpu()) if counts else None

    @property
    def moment(self) -> Moment:
        """How far the training is."""
        return Moment(self.global_step, self.n_steps)

    def prefers(self, scores: Any) -> Tensor:
        """1 for the option that is preferred, of a pair a slot, 0 for others, a share in a tie; [B, K], on the CPU."""
        sign_B = self.objective.margin(scores).double().cpu().sign()
        return torch.stack([1 + sign_B, 1 - sign_B], dim=1) / 2

    def examine(self, examination: Examination) -> None:
        """Prepare for being scored on these; only here, after training, does the truth come in."""
        self.examination = examination
        self.predictions: dict[str, np.ndarray] = {}  # what `judge` makes of each, by the name of its column
        metrics: dict[str, Metric | MetricCollection] = {"accuracy": PairwiseAccuracy()}
        if {"weak", "ceiling"} <= set(examination.references):
            metrics["pgr"] = PerformanceGapRecovered()
        if {"weak", "ceiling", "baseline"} <= set(examination.references):
            metrics |= {f"deception/{figure}": DeceptionScore(figure) for figure in ("score", "base_rate", "flips")}
        self.metrics = MetricCollection(metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.metrics is not None
        for index, p_correct in self._scored(batch):
            references = {role: column[index] for role, column in self.examination.references.items()}
            uid, cluster = self.examination.uid[index], self.examination.cluster[index]
            self.metrics.update(uid=uid, p_correct=p_correct, cluster=cluster, **references)
        self.log_dict(self.metrics, on_step=False, on_epoch=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self._scored(batch)

    def on_test_epoch_end(self) -> None:
        """Each process has scored its part of the pairs; from here on, all of them know all."""
        columns = list(self.predictions.values())
        every: list[Any] = [columns] * self.trainer.world_size
        if len(every) > 1:
            dist.all_gather_object(every, columns)
        for column, *parts in zip(columns, *every, strict=True):
            column[:] = np.fmax.reduce(parts)  # the one number among what is NaN elsewhere

    on_predict_epoch_end = on_test_epoch_end

    def _scored(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Of each piece, which pairs it has and how sure the student is of them."""
        return self._each(batch, lambda piece, _: self._score(*unwrapped(piece)))

    def judge(self, scores: Any, truth_B: Tensor) -> dict[str, Tensor]:
        """Margin of the better over the worse answer, and confidence in the better; on the CPU, as all that is kept."""
        better_first, reading = scores.swapped(truth_B.bool()), self.examination.reading
        return {
            "margin": self.objective.margin(better_first, reading),
            "p_correct": self.objective.confidence(better_first, reading),
        }

    def _score(self, micro: Any, counts: float) -> tuple[Tensor, Tensor]:
        index = micro.rows.cpu()
        scores = self(micro)
        scores = type(scores)(*(None if side is None else side.double().cpu() for side in scores))
        judged = self.judge(scores, self.examination.truth[index])
        for name, column in judged.items():
            values = column.numpy()
            if name not in self.predictions:
                whole = (len(self.examination.uid), *values.shape[1:])
                self.predictions[name] = np.full(whole, np.nan, dtype=values.dtype)
            if counts:
                self.predictions[name][index.numpy()] = values  # a tensor with one element would be a plain number
        return index, judged["p_correct"]


class RewardStudent(Student):
    """A student whose model gives each answer a score of its own."""

    model_type = RewardModel

    def forward(self, batch: PairBatch) -> PairScores:
        return PairScores(*self.model(batch.tokens).float().chunk(2))


class ClassStudent(Student):
    """A student whose model gives each item a logit for every class.

    Its margin is that of the true class over the strongest other one, and its confidence the sigmoid of that: with two
    classes the probability of the true one, with more what it would be if there were only those two.
    """

    example = "item"
    model_type = HeadedModel

    def forward(self, batch: ItemBatch) -> ClassScores:
        return ClassScores(self.model(batch.tokens).float())

    def prefers(self, scores: ClassScores) -> Tensor:
        strongest_BC = (scores.logits == scores.logits.amax(dim=1, keepdim=True)).double().cpu()
        return strongest_BC / strongest_BC.sum(dim=1, keepdim=True)

    def judge(self, scores: ClassScores, truth_B: Tensor) -> dict[str, Tensor]:
        logits_BC, truth_B1 = scores.logits, truth_B[:, None]
        true_B = logits_BC.gather(1, truth_B1).squeeze(1)
        margin_B = true_B - logits_BC.scatter(1, truth_B1, -torch.inf).amax(dim=1)
        return {"margin": margin_B, "p_correct": margin_B.sigmoid(), "logits": logits_BC.float()}


class PolicyStudent(Student):
    """A student whose model gives each answer a log-probability.

    The reference of an objective that needs one is not here: a batch carries what it said.
    """

    model_type = PolicyModel

    def forward(self, batch: PairBatch) -> PairLogProbs:
        sums_B = self.model(batch.tokens).float()
        sides = [sums_B, batch.tokens.n_answer_B.to(sums_B.dtype)]
        if self.objective.needs_reference:
            sides.append(batch.reference_B)
        return PairLogProbs(*(side for both in sides for side in both.chunk(2)))

    def judge(self, scores: PairLogProbs, truth_B: Tensor) -> dict[str, Tensor]:
        """The sums over the tokens of each answer too, from which every other reading can be computed again."""
        first, second, _, _, *references = scores.swapped(truth_B.bool())
        sides = zip(LOGP + REF_LOGP, (first, second, *references), strict=True)
        return super().judge(scores, truth_B) | {name: side for name, side in sides if side is not None}
