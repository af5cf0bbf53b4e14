"""FSDP2: a model whose weights are dealt over processes, and the way back to an ordinary one."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


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
    return list(max(lists, key=_count, default=()))


def _count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())
