"""Models from scratch: an architecture of your size, with random weights or pretrained on your own text."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.data.reading import content, read
from w2sd.errors import Refused, choose, require
from w2sd.models.hub import load_backbone, load_language_model, load_tokenizer
from w2sd.parts.fit import Fit

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from w2sd.data.text import Corpus

ARCHITECTURES = ("gpt2", "llama", "mistral", "opt", "qwen2")
ROTARY = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class Text:
    """Plain text to pretrain on: JSONL (.gz too) with a column `text`, or a .txt file."""

    path: str
    tokenizer: str  # a folder
    context: int
    VERSION: ClassVar[int] = 1
    seed: ClassVar[int] = 0  # it has no randomness of its own to add to the model's

    def identity(self) -> dict[str, Any]:
        digests = {"text": content(Path(self.path).expanduser()), "tokenizer": _digest_folder(self.tokenizer)}
        return {"VERSION": self.VERSION, "context": self.context, **digests}

    def documents(self, model: Any) -> Corpus:
        """Rows of `context` tokens and a weight of 1 for each; the last, shorter row is left out."""
        import numpy as np

        from w2sd.data.text import Corpus

        tokenizer = load_tokenizer(self.tokenizer)
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        stream: list[int] = []
        for text in self._texts():
            stream += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] + end
        n_rows = len(stream) // self.context
        require(n_rows >= 1, "corpus", self.path, f"a text of at least {self.context} tokens; it has {len(stream)}")
        tokens = np.array(stream[: n_rows * self.context], dtype=np.int32).reshape(n_rows, self.context)
        return Corpus(tokens, np.ones(tokens.shape, dtype=np.float32))

    def _texts(self) -> Iterator[str]:
        path = Path(self.path).expanduser()
        if path.name.endswith(".txt"):
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise Refused("corpus", self.path, f"text in UTF-8 ({error})") from error
            return
        for where, row in read(path, path.name):
            require(isinstance(row.get("text"), str), where, row, "a row with a text in its column text")
            yield row["text"]


class FromScratch(ABC):
    """How a model begins that has an architecture and a seed: with random weights, or as it was pretrained here."""

    @property
    @abstractmethod
    def init_seed(self) -> int:
        """What decides random weights."""

    @abstractmethod
    def open_config(self) -> PretrainedConfig:
        """The architecture."""

    def relate(self, model: PreTrainedModel) -> None:
        """Hook: start embeddings from what is known of the words (chess does). Draws from torch's RNG.

        Default: nothing.
        """
        return

    def open_backbone(self, base: Path | None) -> PreTrainedModel:
        """From `base` where it was pretrained, else with random weights that `init_seed` decides."""
        from transformers import AutoModel

        return self.begin(AutoModel, self.init_seed) if base is None else load_backbone(base / "model")

    def open_language_model(self, base: Path | None) -> PreTrainedModel:
        """The whole causal language model, likewise."""
        from transformers import AutoModelForCausalLM

        if base is None:
            return self.begin(AutoModelForCausalLM, self.init_seed)
        return load_language_model(base / "model")

    def begin(self, auto: Any, random: int) -> PreTrainedModel:
        """With random weights that this number decides."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(random)
            model = auto.from_config(self.open_config())
            self.relate(model)
        return model


@dataclass(frozen=True)
class Scratch(FromScratch):
    """A small transformer of a known architecture."""

    architecture: str = "gpt2"  # gpt2 | llama | mistral | opt | qwen2
    width: int = 64
    layers: int = 2
    heads: int = 2
    context: int = 512
    tokenizer: str = ""  # a folder with a tokenizer
    corpus: str = ""  # text to pretrain on; empty: random weights
    init_seed: int = 0
    lr: float = 1e-3  # of the pretraining, as the rest below
    epochs: int = 1
    batch: int = 16
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        choose("architecture", self.architecture, ARCHITECTURES)
        for knob in ("width", "layers", "heads", "context", "epochs", "batch"):
            require(getattr(self, knob) >= 1, knob, getattr(self, knob), "an integer of 1 or more")
        require(self.width % self.heads == 0, "width", self.width, f"a multiple of heads ({self.heads})")
        # Rotary positions turn pairs of dimensions, so the width of one head must be even.
        odd = self.architecture in ROTARY and self.width // self.heads % 2
        require(not odd, "width", self.width, f"an even multiple of heads ({self.heads}) for {self.architecture}")
        require(self.init_seed >= 0, "init_seed", self.init_seed, "an integer of 0 or more")
        require(0 < self.lr < float("inf"), "lr", self.lr, "a number above 0")
        is_folder = self.tokenizer != "" and Path(self.tokenizer).expanduser().is_dir()
        require(is_folder, "tokenizer", self.tokenizer, "a folder with a tokenizer")
        is_file = not self.corpus or Path(self.corpus).expanduser().is_file()
        require(is_file, "corpus", self.corpus, "a text file that exists")

    def identity(self) -> dict[str, Any]:
        shape = {
            knob: getattr(self, knob) for knob in ("architecture", "width", "layers", "heads", "context", "init_seed")
        }
        recipe = {knob: getattr(self, knob) for knob in ("lr", "epochs", "batch")} if self.corpus else {}
        return {"VERSION": self.VERSION, **shape, **recipe, "tokenizer": _digest_folder(self.tokenizer)}

    def text(self, data: Any) -> Text | None:
        return Text(self.corpus, self.tokenizer, self.context) if self.corpus else None

    def fit(self) -> Fit:
        """How it is pretrained."""
        return Fit(
            lr=self.lr, epochs=self.epochs, batch=self.batch, weight_decay=0.01, warmup=0.05, floor=0.02, clip=1.0
        )

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.tokenizer)

    def sizes(self) -> dict[str, Any]:
        """The architecture and its sizes, by their names in a config.json; without a tokenizer.json, no vocabulary."""
        return {"model_type": self.architecture, "vocab_size": _vocabulary(self.tokenizer), **_shape(self)}

    def open_config(self) -> PretrainedConfig:
        from transformers import CONFIG_MAPPING

        names = {"vocab_size": len(self.open_tokenizer()), **_shape(self)}
        make: Any = CONFIG_MAPPING[self.architecture]
        return make(**names, bos_token_id=None, eos_token_id=None, pad_token_id=None)


def _shape(model: Scratch) -> dict[str, Any]:
    """The knobs of this architecture's config."""
    if model.architecture == "gpt2":
        return {"n_embd": model.width, "n_layer": model.layers, "n_head": model.heads, "n_positions": model.context}
    shape = {
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "max_position_embeddings": model.context,
    }
    if model.architecture == "opt":
        return {**shape, "ffn_dim": 4 * model.width, "word_embed_proj_dim": model.width}
    return {**shape, "num_key_value_heads": model.heads, "intermediate_size": 3 * model.width}


def _vocabulary(folder: str) -> int | None:
    """How many tokens a tokenizer.json has, read without transformers; None where there is no such file."""
    path = Path(folder).expanduser() / "tokenizer.json"
    if not path.is_file():
        return None
    written = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = written["model"]["vocab"]  # names, or pairs of a name and a score
    names = {each if isinstance(each, str) else each[0] for each in vocabulary}
    return len(names | {added["content"] for added in written.get("added_tokens", ())})


def _digest_folder(folder: str) -> dict[str, str]:
    files = sorted(path for path in Path(folder).expanduser().iterdir() if path.is_file())
    return {path.name: content(path) for path in files}
