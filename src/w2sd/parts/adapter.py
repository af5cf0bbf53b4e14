"""Which weights are trained."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from w2sd.errors import Refused, choose, nearest, require
from w2sd.supervision.base import LAYERS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from w2sd.models.heads import HeadedModel, PolicyModel


class Adapter:
    """What every adapter can be asked for; this one trains all weights and adds none."""

    reads_features: ClassVar[bool] = False  # of the stage `features`, instead of tokens
    layer: str  # whose states are these features
    trains_all: ClassVar[bool] = True  # of the weights

    def check_installed(self) -> None:
        """Refuse what needs a package that is not here."""

    def check(self, config: PretrainedConfig, is_policy: bool) -> None:
        """Refuse, before anything is trained, an architecture that this cannot be applied to."""

    def apply(self, model: HeadedModel | PolicyModel, seed: int = 0) -> None:
        """Freeze what is not trained, and add what is; `seed` decides the weights that are added."""

    def merge(self, model: HeadedModel | PolicyModel) -> None:
        """Leave the weights of an ordinary model, which scores the same."""


@dataclass(frozen=True)
class Full(Adapter):
    """All of them."""

    VERSION: ClassVar[int] = 1


@dataclass(frozen=True)
class HeadOnly(Adapter):
    """The head alone, on frozen features: the scalar of a reward model, the output embedding of a policy."""

    VERSION: ClassVar[int] = 1
    trains_all: ClassVar[bool] = False

    def check(self, config: PretrainedConfig, is_policy: bool) -> None:
        if is_policy and getattr(config, "tie_word_embeddings", False):
            raise _tied(config)

    def apply(self, model: HeadedModel | PolicyModel, seed: int = 0) -> None:
        """Freeze the transformer."""
        if any(weights is own for weights in model.backbone.parameters() for own in model.head.parameters()):
            raise _tied(model.backbone.config)
        model.requires_grad_(False)
        model.head.requires_grad_(True)


def _tied(config: PretrainedConfig) -> Refused:
    reason = f"the output embedding of this {config.model_type} model is its input embedding too, which is frozen"
    return Refused("adapter", "head_only", f"full or lora: {reason}")


@dataclass(frozen=True)
class LinearProbe(Adapter):
    """A head on features that were read before: what `head_only` is to a reward model, without reading rows again."""

    layer: str = "last"  # last: what a head of the model reads | middle: after half of its blocks
    VERSION: ClassVar[int] = 1
    trains_all: ClassVar[bool] = False
    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choose("layer", self.layer, LAYERS)


@dataclass(frozen=True)
class Lora(Adapter):
    """Low-rank additions to linear layers of the transformer (Hu et al. 2021), and the head of a reward model.

    They begin as nothing. Dropout acts on their inputs, whatever `fit.dropout` says of the rest.
    """

    r: int = 8  # the rank
    alpha: float = 16.0  # what is added is multiplied by alpha / r
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)  # how names of layers end; empty: as peft has it for the model
    VERSION: ClassVar[int] = 1
    trains_all: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.r >= 1, "r", self.r, "an integer of 1 or more")
        require(0 < self.alpha < math.inf, "alpha", self.alpha, "a number above 0")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")

    def check_installed(self) -> None:
        """Refuse to go on without peft, which takes seconds to import."""
        if importlib.util.find_spec("peft") is None:
            raise Refused("adapter", "lora", "peft beside it; make setup EXTRAS=lora")

    def check(self, config: PretrainedConfig, is_policy: bool) -> None:
        import torch
        from transformers import AutoModel

        is_from_hub = type(config).__module__.startswith("transformers_modules")  # its class: asked when it is there
        if not is_from_hub:
            with torch.device("meta"):
                self._layers(AutoModel.from_config(config))

    def apply(self, model: HeadedModel | PolicyModel, seed: int = 0) -> None:
        """Freeze the rest, and add to the layers that are named."""
        import peft
        import torch

        layers = self._layers(model.backbone)
        config = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(layers),
            fan_in_fan_out=any(not isinstance(layer, torch.nn.Linear) for layer in layers.values()),
        )
        model.requires_grad_(False)
        with torch.random.fork_rng():  # neither disturbed by what was drawn before, nor disturbing what comes after
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, model.backbone)
        if model.has_new_head:  # that of a policy is part of the language model
            model.head.requires_grad_(True)

    def merge(self, model: HeadedModel | PolicyModel) -> None:
        """Add the products to the layers that they belong to."""
        import peft

        backbone = cast("Any", model.backbone)
        for name, layer in list(backbone.named_modules()):
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                layer.merge()
                backbone.set_submodule(name, layer.get_base_layer())
        del backbone.peft_config  # what peft noted down of its layers

    def _layers(self, backbone: PreTrainedModel) -> dict[str, nn.Module]:
        """The layers that are added to, by name."""
        import peft
        from torch.nn import Linear
        from transformers.pytorch_utils import Conv1D

        linear = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, Linear | Conv1D)}
        has = ", ".join(sorted({_ending(name, 1) for name in linear}))
        kind = backbone.config.model_type
        usual = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
        targets = self.targets or usual
        if not isinstance(targets, list):
            raise Refused("adapter.targets", [], f"names of layers, since peft knows none for {kind}; it has {has}")
        for target in targets:
            near = {_ending(name, target.count(".") + 1) for name in linear}
            if target not in near:
                accepted = f"the end of a layer's name; {kind} has {has}"
                raise Refused("adapter.targets", target, accepted, nearest(target, sorted(near)))
        return {
            name: layer
            for name, layer in linear.items()
            if any(_ending(name, target.count(".") + 1) == target for target in targets)
        }


def _ending(name: str, parts: int) -> str:
    return ".".join(name.split(".")[-parts:])
