"""Small transformers for chess, from scratch: with random weights, or pretrained on what a simple player would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.chess import vocabulary
from w2sd.errors import Refused, require
from w2sd.fit import Fit, one_pass
from w2sd.models.scratch import FromScratch

if TYPE_CHECKING:
    from transformers import GPT2Config, PreTrainedTokenizerBase

    from w2sd.chess.corpus import ChessText


@dataclass(frozen=True)
class ChessModel(FromScratch):
    """A GPT-2 of your size that reads the words of chess."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    documents: int = 40_000  # positions that it is pretrained on; 0: random weights
    lr: float = 4e-3  # peak, of the pretraining, as the next
    batch: int = 16  # documents per step; each is read once
    init_seed: int = 0
    VERSION: ClassVar[int] = 1
    ladder: ClassVar[str] = "chess"

    def __post_init__(self) -> None:
        for knob in ("width", "layers", "heads", "batch"):
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

    def text(self, data: Any) -> ChessText | None:
        """What it is pretrained on; whatever else it is to read must be in its words too."""
        from w2sd.chess.corpus import ChessText
        from w2sd.chess.puzzles import ChessPuzzles

        if not isinstance(data, ChessPuzzles) or data.form == "fen":
            accepted = (
                "a model that reads this data; its words are those of data=chess_puzzles with form board or moves"
            )
            raise Refused("", "a model of chess", accepted)
        return ChessText(self.documents) if self.documents else None

    def fit(self) -> Fit:
        """How it is pretrained: one pass over its documents."""
        return one_pass(self.lr, self.batch)

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        return vocabulary.tokenizer()

    def open_config(self) -> GPT2Config:
        """The architecture, for a model with random weights."""
        from transformers import GPT2Config

        return GPT2Config(
            vocab_size=len(vocabulary.WORDS),
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            n_positions=vocabulary.CONTEXT,
            initializer_range=0.05,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
