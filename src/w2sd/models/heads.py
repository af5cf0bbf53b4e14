"""A transformer with a head: reward models, classifiers and policies, and heads on cached states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from w2sd.models.hub import load_backbone, load_language_model
from w2sd.models.log_probs import PIECE, from_logits, log_probs
from w2sd.models.packing import inputs_of
from w2sd.models.prepare import with_fewer_kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from w2sd.data.batch import States
    from w2sd.data.layout import Tokens


class HeadedModel(nn.Module):
    """A transformer and a linear head on the last token of a text: an output for each class, or one for a reward.

    That token is found by its place and never from a pad id, so a score depends neither on padding (its side or
    amount) nor on the other texts of the batch.
    """

    has_new_head: ClassVar[bool] = True  # made here, and no part of the pretrained model

    def __init__(self, backbone: PreTrainedModel, seed: int = 0, n_outputs: int = 1) -> None:
        super().__init__()
        self.backbone = with_fewer_kernels(backbone)
        config = backbone.config
        width = getattr(config, "word_embed_proj_dim", None) or config.hidden_size  # OPT projects its last layer
        self.head = new_head(width, n_outputs, seed)

    @classmethod
    def of_words(cls, lm: PreTrainedModel, words: list[int], seed: int = 0) -> Self:
        """A classifier that begins as what a language model says of these tokens, one for each class."""
        backbone: Any = lm.base_model
        model, output = cls(backbone, seed, len(words)), lm.get_output_embeddings()
        with torch.no_grad():
            model.head.weight.copy_(output.weight[words])
            if output.bias is not None:
                model.head.bias.copy_(output.bias[words])
        return model

    def forward(self, tokens: Tokens) -> Tensor:
        """What the head says at the end of each text, [B, outputs]."""
        hidden_ND = self.backbone(**inputs_of(tokens)).last_hidden_state.flatten(0, 1)
        return self.head(hidden_ND[tokens.end_B].to(self.head.weight.dtype))

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write `model/` as transformers reads it, and the head beside it."""
        self.backbone.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        _save_head(self.head, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote."""
        head = load_file(folder / "head.safetensors")
        model = cls(load_backbone(folder / "model"), n_outputs=len(head["bias"]))
        model.head.load_state_dict(head)
        return model


class RewardModel(HeadedModel):
    """One output: a score for each answer."""

    def forward(self, tokens: Tokens) -> Tensor:
        """One score for each answer, [B]."""
        return super().forward(tokens).squeeze(-1)


def new_head(width: int, n_outputs: int, seed: int) -> nn.Linear:
    """A head before its training."""
    head = nn.Linear(width, n_outputs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.01, generator=generator)
        head.bias.zero_()
    return head


def _save_head(head: nn.Linear, folder: Path) -> None:
    weights = {name: value.contiguous() for name, value in head.state_dict().items()}
    save_file(weights, folder / "head.safetensors")


class PolicyModel(nn.Module):
    """A causal language model, asked how likely it finds each answer after its prompt.

    Answers are found by their places, never from an id, so that a score depends neither on padding nor on the other
    texts of the batch. The output embedding is applied where an answer's tokens are predicted and nowhere else, and
    to few of them at a time: logits for every token of a batch would need more memory than the model.
    """

    has_new_head: ClassVar[bool] = False

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = with_fewer_kernels(lm)
        self.has_plain_head = _has_plain_head(lm)

    @property
    def backbone(self) -> PreTrainedModel:
        """The transformer without its output embedding."""
        return self.lm.base_model  # type: ignore[return-value]

    @property
    def head(self) -> nn.Module:
        """The output embedding."""
        return self.lm.get_output_embeddings()

    def forward(self, tokens: Tokens) -> Tensor:
        """The log-probability of each answer given what is before it, [B]."""
        if self.has_plain_head:
            hidden_ND = self.lm.base_model(**inputs_of(tokens)).last_hidden_state.flatten(0, 1)
            log_probs_N = self._read(hidden_ND[tokens.from_N], tokens.token_N)
        else:
            logits_NV = self.lm(**inputs_of(tokens)).logits.flatten(0, 1)
            log_probs_N = from_logits(logits_NV[tokens.from_N], tokens.token_N)
        return log_probs_N.new_zeros(len(tokens.n_answer_B)).index_add(0, tokens.of_N, log_probs_N)

    def _read(self, hidden_ND: Tensor, ids_N: Tensor) -> Tensor:
        """The log-probability of each token given the state before it."""
        head: Any = self.head
        if type(head) is nn.Linear and head.bias is None:
            return log_probs(hidden_ND, head.weight, ids_N)

        def read(hidden_ND: Tensor, ids_N: Tensor) -> Tensor:
            return from_logits(head(hidden_ND), ids_N)

        pieces = zip(hidden_ND.split(PIECE), ids_N.split(PIECE), strict=True)
        return torch.cat([checkpoint(read, *each, use_reentrant=False) for each in pieces])

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write `model/` as transformers reads it."""
        self.lm.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")

    @classmethod
    def load(cls, folder: Path) -> PolicyModel:
        """What `save` wrote."""
        return cls(load_language_model(folder / "model"))


@torch.no_grad()
def _has_plain_head(lm: PreTrainedModel) -> bool:
    """Whether the model's logits are its output embedding applied to its last hidden states, and nothing more.

    Some architectures scale them or cap them (Cohere, Granite, Gemma 2). Which ones do is seen from what the model
    does, so that one that nobody has thought of is slow and not wrong: any difference in any bit counts.
    """
    training = lm.training
    lm.eval()
    ids_BT = torch.arange(2, device=lm.device)[None]
    inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "position_ids": ids_BT}
    head = lm.get_output_embeddings()
    hidden_BTD = lm.base_model(**inputs, use_cache=False).last_hidden_state
    is_plain = head is not None and torch.equal(head(hidden_BTD), lm(**inputs, use_cache=False).logits)
    lm.train(training)
    return is_plain


class StateModel(nn.Module):
    """A transformer, asked for its state at the last token of each text.

    The `last` layer is the one that a head of the model would read, the `middle` one comes after half of its blocks.
    """

    def __init__(self, backbone: PreTrainedModel, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = with_fewer_kernels(backbone), layer

    def forward(self, tokens: Tokens) -> Tensor:
        """One state for each text, [B, D]."""
        if self.layer == "last":
            hidden_BTD = self.backbone(**inputs_of(tokens)).last_hidden_state
        else:
            _, *blocks = self.backbone(**inputs_of(tokens), output_hidden_states=True).hidden_states
            hidden_BTD = blocks[(len(blocks) - 1) // 2]
        return hidden_BTD.flatten(0, 1)[tokens.end_B]


class Probe(nn.Module):
    """The head of a reward model or a classifier, alone: it reads states of a transformer that stays as it is."""

    def __init__(self, width: int, n_outputs: int, seed: int = 0) -> None:
        super().__init__()
        self.head = new_head(width, n_outputs, seed)

    def forward(self, states: States) -> Tensor:
        """What the head says of each text, [B, outputs]; [B] where there is one output, a reward."""
        scores_BC = self.head(states.of_BD.to(self.head.weight.dtype))
        return scores_BC.squeeze(-1) if self.head.out_features == 1 else scores_BC

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the head, as other models do; the transformer is where the states came from."""
        _save_head(self.head, folder)

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """What `save` wrote."""
        weights = load_file(folder / "head.safetensors")
        n_outputs, width = weights["weight"].shape
        probe = cls(width, n_outputs)
        probe.head.load_state_dict(weights)
        return probe
