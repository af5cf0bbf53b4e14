"""Make a model ready to train: fewer kernels, no dropout, checkpointing, torch.compile, weights dealt by FSDP2."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.activations import GELUTanh, NewGELUActivation

from w2sd.errors import Refused

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


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """A copy of `model` whose weights are dealt over the processes of `mesh`, one transformer block at a time.

    `model` itself stays what it is, classes and tied weights included, but gives its weights away; `gather` brings
    them back.
    """
    shared = {id(weights): weights for weights in model.parameters()}  # the copy has the same ones
    sharded = copy.deepcopy(model, shared)
    for block in blocks(sharded):
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for weights in model.parameters():
        weights.data = weights.new_empty(0)
    return sharded


def gather(sharded: nn.Module, model: nn.Module, keep: bool) -> None:
    """Put the weights of `sharded` into the `model` that it was made from, in the processes that `keep` them.

    Every process has to take part.
    """
    for shards, weights in zip(sharded.parameters(), model.parameters(), strict=True):
        full = whole(shards.detach(), keep)
        if keep:
            weights.data = full


def whole(value: Any, keep: bool) -> Any:
    """The same tree of dicts and lists with whole tensors in place of sharded ones, where they are kept.

    Every process has to take part.
    """
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, dict):
        return {name: whole(item, keep) for name, item in value.items()}
    return [whole(item, keep) for item in value] if isinstance(value, list) else value


def part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that all of them have, if `like` is one that was dealt; otherwise all of it."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: of the lists of modules in it, the one with most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=lambda blocks: sum(weights.numel() for weights in blocks.parameters()), default=()))
