"""From rows of tokens to scores of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from w2sd.models.hub import load_backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PairScores(NamedTuple):
    """What a model says of the two answers of each pair, in slot order."""

    first: Tensor  # [B]
    second: Tensor  # [B]

    @property
    def margin(self) -> Tensor:
        """How much better the first answer is, in the units of the loss."""
        return self.first - self.second


class RewardModel(nn.Module):
    """A transformer and a scalar head on the last attended token.

    That token is found from the mask and never from a pad id, so a score depends neither on padding (its side or
    amount) nor on the other rows of the batch.
    """

    def __init__(self, backbone: PreTrainedModel, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        config = backbone.config
        width = getattr(config, "word_embed_proj_dim", None) or config.hidden_size  # OPT projects its last layer
        self.head = nn.Linear(width, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.normal_(0.0, 0.01, generator=generator)
            self.head.bias.zero_()

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """One score per row, [B]."""
        positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        hidden_BTD = self.backbone(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT
        ).last_hidden_state
        last_B = positions_BT.new_tensor(mask_BT.shape[1] - 1) - mask_BT.flip(1).argmax(dim=1)
        rows_B = torch.arange(len(ids_BT), device=ids_BT.device)
        return self.head(hidden_BTD[rows_B, last_B].to(self.head.weight.dtype)).squeeze(-1)

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write `model/` as transformers reads it, and the head beside it."""
        self.backbone.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        save_file(
            {name: weights.contiguous() for name, weights in self.head.state_dict().items()},
            folder / "head.safetensors",
        )

    @classmethod
    def load(cls, folder: Path) -> RewardModel:
        """What `save` wrote."""
        model = cls(load_backbone(folder / "model"))
        model.head.load_state_dict(load_file(folder / "head.safetensors"))
        return model


def silence_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability to 0, and leave the model in train mode.

    In eval mode, the usual way to the same end, activation checkpointing would silently be off.
    """
    for part in (model.config, *model.modules()):
        for name, value in vars(part).items():
            if isinstance(value, float) and ("drop" in name or (isinstance(part, nn.Dropout) and name == "p")):
                setattr(part, name, 0.0)
