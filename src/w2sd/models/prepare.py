"""Make a model ready to train: fewer kernels, no dropout, activation checkpointing, torch.compile."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from transformers.activations import GELUTanh, NewGELUActivation

from w2sd.errors import Refused
from w2sd.models.fsdp import blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound=nn.Module)


def with_fewer_kernels(model: Model) -> Model:
    """The model, with GPT-2's GELU (eight kernels, as transformers writes it) as the one that torch has of it."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
    return model


def silence_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability to 0, and leave the model in train mode.

    In eval mode, the usual way to the same end, activation checkpointing would silently be off.
    """
    for part in (model.config, *model.modules()):
        for name, value in vars(part).items():
            if isinstance(value, float) and ("drop" in name or (isinstance(part, nn.Dropout) and name == "p")):
                setattr(part, name, 0.0)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep what goes into each layer, and compute what is inside it again on the way back.

    It acts in train mode alone: in eval mode, which transformers hands models over in, it would silently be off.
    """
    if not model.supports_gradient_checkpointing:
        raise Refused("trainer.checkpointing", True, f"false: {type(model).__name__} cannot compute its layers again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # later versions of transformers 5 have another name for it too
        # the other way of torch needs inputs with gradients, which frozen embeddings do not give
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def compile_layers(model: nn.Module) -> None:
    """Have the blocks of a transformer compiled when they are first used.

    Block by block: they share one program, where the whole model would be as many times as long. In place: weights keep
    their names, and what is saved is what is saved of any model. Lengths are variables, because no two rows have the
    same.
    """
    # each shape of weights and each length of one is a program, and past the limit blocks would run as they are
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in blocks(model):
        block.compile(dynamic=True)
