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
        weights = {name: value.contiguous() for name, value in self.head.state_dict().items()}
        save_file(weights, folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """What `save` wrote."""
        weights = load_file(folder / "head.safetensors")
        n_outputs, width = weights["weight"].shape
        probe = cls(width, n_outputs)
        probe.head.load_state_dict(weights)
        return probe
