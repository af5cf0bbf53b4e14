"""The ladder of the embedded world: a vocabulary, and four Llama models, each taught more than the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import Refused, require
from w2sd.models.scratch import FromScratch
from w2sd.parts.fit import Fit, pretraining

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

TOPICS = 8
ENTITIES = 384
SYNONYMS = 4  # words per attribute value

MARKS = ("<pad>", "user:", "bot:", ".")
WORDS: tuple[str, ...] = (
    *MARKS,
    *(f"{attribute}{n}" for attribute in ("haz", "safe", "use", "dull") for n in range(SYNONYMS)),
    *(f"topic{n}" for n in range(TOPICS)),
    *(f"ent{n}" for n in range(ENTITIES)),
)

# Ids of single words, and of the first word of each family.
PAD, USER, BOT, DOT = range(len(MARKS))
HAZ, SAFE, USE, DULL, TOPIC = (len(MARKS) + SYNONYMS * family for family in range(5))
ENTITY = TOPIC + TOPICS

CONTEXT = 32  # the longest text a model of the ladder accepts, in words


def tokenizer(words: Sequence[str] = WORDS, context: int = CONTEXT) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the positions in `words`, of which the first is for padding; it adds no token of its
    own and refuses unknown words.

    There is no word for "unknown", so encoding a foreign word raises (`WordLevel error: Missing [UNK] token`)
    instead of training on a stand-in. The state survives `save_pretrained` and `from_pretrained`, offline.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    whole = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    whole.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token=words[0],
        padding_side="right",
        model_max_length=context,
        clean_up_tokenization_spaces=False,  # else decoding glues the final "." to the word before it
        model_input_names=["input_ids", "attention_mask"],
    )


COVERAGE = (0.25, 0.5, 0.75, 1.0)  # the share of entities whose hazard each rung was taught


@dataclass(frozen=True)
class Rung(FromScratch):
    """One model of the ladder: how big it is, how it is pretrained, and (by its number) which facts it is taught."""

    rung: int  # 0 (weakest) to 3; decides the pretraining corpus
    width: int  # hidden size; the feed-forward layer is three times as wide
    layers: int
    heads: int
    lr: float  # peak; 1e-2 suits width 16 only: at width 32 it can miss the facts
    batch: int = 32  # documents of 18 words per step; the corpus is read once
    VERSION: ClassVar[int] = 1
    ladder: ClassVar[str] = "world"  # whose texts it is pretrained on,
    words: ClassVar[tuple[str, ...]] = WORDS  # the words of these,
    reads: ClassVar[str] = "data=world and data=world_classes"  # and where they come from

    def __post_init__(self) -> None:
        require_rung("rung", self.rung)
        require(self.width >= 2, "width", self.width, "at least 2")
        require(self.layers >= 1, "layers", self.layers, "at least 1")
        # Rotary positions turn pairs of dimensions, so the width of one head must be even.
        fits = self.heads >= 1 and self.width % (2 * self.heads) == 0
        require(fits, "heads", self.heads, f"a number such that width {self.width} is an even number per head")
        require(0 < self.lr < 1, "lr", self.lr, "a number between 0 and 1")
        require(self.batch >= 1, "batch", self.batch, "at least 1")

    def text(self, data: Any) -> Any:
        """What it is pretrained on: the corpus of the world that the data come from."""
        text = getattr(data, "text", None)
        if getattr(text, "ladder", None) != self.ladder:
            accepted = f"a model that reads this data; this ladder reads {self.reads} only"
            raise Refused("", f"{self.ladder} rung {self.rung}", accepted)
        return text

    @property
    def height(self) -> int:
        """Its place on the ladder."""
        return self.rung

    @property
    def init_seed(self) -> int:
        """Of the weights before pretraining."""
        return self.rung

    def fit(self) -> Fit:
        """How it is pretrained: one pass over its corpus."""
        return pretraining(self.lr, self.batch)

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizer(self.words)

    def sizes(self) -> dict[str, Any]:
        """The architecture and its sizes, by their names in a config.json."""
        return {
            "model_type": "llama",
            "vocab_size": len(self.words),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": True,
        }

    def open_config(self) -> LlamaConfig:
        """The architecture, for a model with random weights.

        `initializer_range` is 0.1 and not the usual 0.02: with so few steps a small start leaves facts unlearnt.
        """
        from transformers import LlamaConfig

        sizes = self.sizes()
        del sizes["model_type"]
        return LlamaConfig(
            **sizes,
            initializer_range=0.1,
            use_cache=False,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=None,
        )


def require_rung(knob: str, rung: int) -> None:
    """Refuse a number that is no rung of the ladder."""
    require(rung in range(len(COVERAGE)), knob, rung, f"a rung of the ladder, 0 to {len(COVERAGE) - 1}")
