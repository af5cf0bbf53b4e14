"""A transformer that is asked for its states, and a head on states that were asked for before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from w2sd.models.kernels import with_fewer_kernels
from w2sd.models.score import inputs_of, new_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from w2sd.data.layout import Tokens
    from w2sd.data.states import States


class StateModel(nn.Module):
    """A transformer, asked for its state at the last token of each answer.

    The `last` layer is the one that a head of the model would read, the `middle` one comes after half of its blocks.
    """

    def __init__(self, backbone: PreTrainedModel, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = with_fewer_kernels(backbone), layer

    def forward(self, tokens: Tokens) -> Tensor:
        """One state for each answer, [B, D]."""
        if self.layer == "last":
            hidden_BTD = self.backbone(**inputs_of(tokens)).last_hidden_state
        else:
            _, *blocks = self.backbone(**inputs_of(tokens), output_hidden_states=True).hidden_states
            hidden_BTD = blocks[(len(blocks) - 1) // 2]
        return hidden_BTD.flatten(0, 1)[tokens.end_B]


class Probe(nn.Module):
    """The head of a reward model, alone: what it reads are states of a transformer that stays as it is."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.head = new_head(width, seed)

    def forward(self, states: States) -> Tensor:
        """One score for each answer, [B]."""
        return self.head(states.of_BD.to(self.head.weight.dtype)).squeeze(-1)

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the head, as a reward model does; its transformer is where the states came from."""
        weights = {name: value.contiguous() for name, value in self.head.state_dict().items()}
        save_file(weights, folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """What `save` wrote."""
        weights = load_file(folder / "head.safetensors")
        probe = cls(weights["weight"].shape[1])
        probe.head.load_state_dict(weights)
        return probe
