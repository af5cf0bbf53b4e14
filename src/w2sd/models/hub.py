"""Pretrained models from the hub or a folder, and whether their weights are whole before anything is loaded."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from w2sd.errors import Refused, require

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Hub:
    """A pretrained causal language model by hub id or folder; a folder that exists wins."""

    is_pretrained: ClassVar[bool] = True  # and so large enough to gain from several threads

    id: str = "gpt2"
    revision: str = ""  # branch, tag or commit; empty: the hub's default branch
    trust_remote_code: bool = False
    ladder: str = ""  # that it is a rung of, for `chain=ladder`; neither this nor its height changes what it is
    height: float = 0.0  # its place there
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        is_placed = 0 < self.height < math.inf if self.ladder else self.height == 0
        require(is_placed, "height", self.height, "a number above 0 for a model with a ladder, and 0 for one without")
        if self._is_folder():
            if not any(self._folder.glob("*.safetensors")):
                raise Refused("id", self.id, "a model folder with weights in *.safetensors")
            if not (self._folder / "config.json").is_file():
                raise Refused("id", self.id, "a model folder with a config.json")
        elif self.id.startswith((".", "/", "~")):
            raise Refused("id", self.id, "a folder that exists, or a hub id such as gpt2")

    @property
    def _folder(self) -> Path:
        return Path(self.id).expanduser()

    def _is_folder(self) -> bool:
        return self._folder.is_dir()

    def identity(self) -> dict[str, Any]:
        """A local folder is known by its files, wherever it lies; a hub model by id and revision."""
        if self._is_folder():
            from w2sd.data.reading import content

            files = sorted(
                path
                for path in self._folder.iterdir()
                if path.suffix in (".safetensors", ".json", ".txt", ".model", ".py")
            )
            return {"VERSION": self.VERSION, "files": {path.name: content(path) for path in files}}
        return {"VERSION": self.VERSION, "id": self.id, "revision": self.revision}

    def check_weights(self) -> None:
        """Refuse weights that are here and not whole; those that are not here yet are the hub's to give."""
        from huggingface_hub.constants import HF_HUB_OFFLINE

        if (whole := self._find(ONE)) is not None:
            self._open(whole)
        elif self._is_folder() or HF_HUB_OFFLINE:
            self._check_shards()

    def _check_shards(self) -> None:
        """Refuse weights in several files if one is missing, cut off or not what the index says."""
        index = self._find(INDEX)
        if index is None:
            raise Refused("id", self.id, f"a model with {ONE}, or with {INDEX} and the files that it names")
        shards: dict[str, set[str]] = {}
        try:
            for weights, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
                shards.setdefault(shard, set()).add(weights)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused("id", str(index), f"the index of a model's weights ({error!r})") from error
        for shard, names in sorted(shards.items()):
            if (path := self._find(shard)) is None:
                raise Refused(
                    "id", self.id, f"a model with all of its weights; {shard}, which {INDEX} names, is missing"
                )
            if lacking := sorted(names - self._open(path)):
                raise Refused("id", str(path), f"the weights {lacking[0]}, which {INDEX} says are in it")

    def _open(self, path: Path) -> set[str]:
        """The names of the weights in a file; to open it is to read its header and to hold its size against that."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                return set(file.keys())
        except (OSError, SafetensorError) as error:
            accepted = f"a model whose {path.name} is whole ({error}); copy or download it again"
            raise Refused("id", self.id, accepted) from error

    def _find(self, name: str) -> Path | None:
        """A file of the model, if it is here; by hand, for plans have no time to import the hub's client."""
        from huggingface_hub.constants import HF_HUB_CACHE

        place = self._folder
        if not self._is_folder():
            cache, revision = Path(HF_HUB_CACHE) / f"models--{self.id.replace('/', '--')}", self.revision or "main"
            branch = cache / "refs" / revision
            commit = branch.read_text().strip() if branch.is_file() else revision
            place = cache / "snapshots" / commit
        return place / name if (place / name).is_file() else None

    def sizes(self) -> dict[str, Any]:
        """The config.json in the folder or the hub's cache; empty where the model has not been downloaded."""
        if (path := self._find("config.json")) is None:
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise Refused("id", str(path), f"a config.json that can be read ({error})") from error

    def text(self, data: Any) -> None:
        """Nothing to pretrain on: the weights exist."""

    def open_config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        return self._fetch(AutoConfig.from_pretrained, "config")

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self._fetch(_open_tokenizer, "tokenizer")
        whole = len(tokenizer) > len(tokenizer.all_special_tokens)  # from no files transformers makes an empty one
        require(whole, "id", self.id, "a model with its tokenizer beside it")
        return tokenizer

    def open_backbone(self, base: Path | None) -> PreTrainedModel:
        """The transformer without its language-model head; from `base` where it was trained further here."""
        return self._fetch(load_backbone, "weights") if base is None else load_backbone(base / "model")

    def open_language_model(self, base: Path | None) -> PreTrainedModel:
        """The whole causal language model; from `base` where it was trained further here."""
        return self._fetch(load_language_model, "weights") if base is None else load_language_model(base / "model")

    def _fetch(self, load: Callable[..., Any], what: str) -> Any:
        place = self._folder if self._is_folder() else self.id
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision and not self._is_folder():
            options["revision"] = self.revision
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the outcome is told below
        with _readable("id", self.id, f"a hub id that can be reached, or a local folder, with a {what}"):
            return load(place, **options)


def load_backbone(place: Any, **options: Any) -> PreTrainedModel:
    """A transformer in float32 with every one of its weights from `place`; missing weights are an error, not noise.

    Without options it comes out of the store, which brings no code along.
    """
    from transformers import AutoModel

    return _load(AutoModel, place, **options)


def load_language_model(place: Any, **options: Any) -> PreTrainedModel:
    """A causal language model with its head, likewise."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, place, **options)


def _load(auto: Any, place: Any, **options: Any) -> PreTrainedModel:
    if not options:
        with _readable("store", str(place), "a model without code of its own"):
            return _load(auto, place, trust_remote_code=False)
    model, info = auto.from_pretrained(
        place, use_safetensors=True, dtype="float32", output_loading_info=True, **options
    )
    if info["missing_keys"]:
        raise Refused("id", str(place), f"weights for {sorted(info['missing_keys'])[0]} (and all the rest)")
    return model.train()  # transformers hands models over in eval mode, where dropout would silently stay off


def _open_tokenizer(place: Any, **options: Any) -> PreTrainedTokenizerBase:
    """What `AutoTokenizer` opens, which is not asked where it would replace the tokenizer of a folder by another.

    It looks at the config of the model as well, and for some architectures (Qwen2 among them) makes that
    architecture's usual tokenizer from whatever vocabulary it finds.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(place) / "tokenizer_config.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class") == "TokenizersBackend":
        return PreTrainedTokenizerFast.from_pretrained(place)
    return AutoTokenizer.from_pretrained(place, **{"trust_remote_code": False, **options})


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder: as transformers saves one, or a bare GPT-2 pair of vocab.json and merges.txt."""
    from transformers import PreTrainedTokenizerFast

    place = Path(folder).expanduser()
    with _readable("tokenizer", str(folder), "a folder with a tokenizer"):
        if (place / "tokenizer_config.json").is_file():
            return _open_tokenizer(place)
        if (place / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast(tokenizer_file=str(place / "tokenizer.json"))
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            from tokenizers import ByteLevelBPETokenizer

            bpe = ByteLevelBPETokenizer.from_file(str(place / "vocab.json"), str(place / "merges.txt"))
            end = "<|endoftext|>" if bpe.token_to_id("<|endoftext|>") is not None else None
            return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end)
    raise Refused("tokenizer", str(folder), "a folder with tokenizer.json, or with vocab.json and merges.txt")


@contextmanager
def _readable(knob: str, value: str, accepted: str) -> Iterator[None]:
    """Refuse what a library cannot read; which error a broken file makes, transformers does not say."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        if not isinstance(error, OSError):  # of a KeyError, say, the message is no more than the key
            reason = f"{type(error).__name__}: {reason}"
        raise Refused(knob, value, f"{accepted} that can be read ({reason})") from error
