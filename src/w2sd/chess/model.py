"""Small transformers for chess, from scratch: with random weights, or pretrained on what a simple player would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from w2sd.chess import games
from w2sd.chess.puzzles import ChessPuzzles
from w2sd.errors import Refused, require
from w2sd.models.scratch import FromScratch
from w2sd.parts.fit import Fit, pretraining

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPT2Config, PreTrainedModel, PreTrainedTokenizerBase

OWN = 0.3  # how much of a word is its own when it begins, where each of its parts is 1


@dataclass(frozen=True)
class ChessModel(FromScratch):
    """A GPT-2 of your size that reads the words of chess."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    documents: int = 20_000  # positions that it is pretrained on; 0: random weights
    epochs: int = 2  # how often it reads them
    lr: float = 4e-3  # peak, of the pretraining, as the next
    batch: int = 32  # documents per step
    init_seed: int = 0
    VERSION: ClassVar[int] = 2
    ladder: ClassVar[str] = "chess"

    def __post_init__(self) -> None:
        for knob in ("width", "layers", "heads", "epochs", "batch"):
            require(getattr(self, knob) >= 1, knob, getattr(self, knob), "an integer of 1 or more")
        require(self.width % self.heads == 0, "width", self.width, f"a multiple of heads ({self.heads})")
        enough = self.documents == 0 or self.documents >= self.batch
        require(enough, "documents", self.documents, f"0 (random weights) or at least one batch ({self.batch})")
        require(0 < self.lr < 1, "lr", self.lr, "a number between 0 and 1")
        require(self.init_seed >= 0, "init_seed", self.init_seed, "an integer of 0 or more")

    @property
    def height(self) -> int:
        """Its place on the ladder: the weights of its blocks."""
        return 12 * self.layers * self.width**2

    def text(self, data: Any) -> games.ChessText | None:
        """What it is pretrained on; whatever else it is to read must be in its words too."""
        if not isinstance(data, ChessPuzzles) or data.form == "fen":
            accepted = (
                "a model that reads this data; its words are those of data=chess_puzzles with form board or moves"
            )
            raise Refused("", "a model of chess", accepted)
        return games.ChessText(self.documents) if self.documents else None

    def fit(self) -> Fit:
        """How it is pretrained."""
        return pretraining(self.lr, self.batch, self.epochs)

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        return games.tokenizer()

    def relate(self, model: PreTrainedModel) -> None:
        """Words with the same piece or square begin alike: what is learnt of one is then half known of the others.

        Without, each of the 2,736 pieces and moves has to be met often enough to be learnt by itself.
        """
        import torch

        of = [games.parts(word) for word in games.WORDS]
        names = sorted({name for parts in of for name in parts})
        has_VP = torch.tensor([[name in parts for name in names] for parts in of], dtype=torch.float32)
        n_V1 = has_VP.sum(1, keepdim=True)
        own_VD = cast("Tensor", model.get_input_embeddings().weight)
        with torch.no_grad():
            shared_VD = has_VP @ torch.randn(len(names), self.width) * model.config.initializer_range
            mixed_VD = (OWN * own_VD + shared_VD) / (OWN**2 + n_V1).sqrt()
            own_VD.copy_(torch.where(n_V1 > 0, mixed_VD, own_VD))

    def sizes(self) -> dict[str, Any]:
        """The architecture and its sizes, by their names in a config.json."""
        return {
            "model_type": "gpt2",
            "vocab_size": len(games.WORDS),
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_positions": games.CONTEXT,
        }

    def open_config(self) -> GPT2Config:
        """The architecture, for a model with random weights."""
        from transformers import GPT2Config

        sizes = self.sizes()
        del sizes["model_type"]
        return GPT2Config(
            **sizes,
            initializer_range=0.05,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
