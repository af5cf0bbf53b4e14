"""The policy student: a language model, trained on which of two answers it should find more likely."""

from __future__ import annotations

import torch
from torch import Tensor

from w2sd.data.batch import PairBatch
from w2sd.data.layout import Tokens
from w2sd.objectives.scores import PairLogProbs
from w2sd.students.learner import Learner
from w2sd.students.student import Student

LOGP = ("logp_chosen", "logp_rejected")
REF_LOGP = ("ref_logp_chosen", "ref_logp_rejected")


class PolicyStudent(Student):
    """A student whose model gives each answer a log-probability.

    The reference of an objective that needs one is not here: a batch carries what it said.
    """

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


class SftLearner(Learner):
    """Supervised fine-tuning: the mean over examples of an answer's negative log-probability per token."""

    knob = "sft.fit"
    example = "answer"

    def losses(self, micro: Tokens) -> Tensor:
        return -(self.model(micro) / micro.n_answer_B).sum()

    def mass(self, micro: Tokens) -> Tensor:
        return torch.tensor(float(len(micro.n_answer_B)), device=self.device)


class TextLearner(SftLearner):
    """The same over whole texts, of which all is read and nothing is prompt."""

    knob = "generative.fit"
    example = "text"
