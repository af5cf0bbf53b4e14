"""The same mathematics in fewer and smaller steps than it comes in."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh, NewGELUActivation

PIECE = 256  # tokens whose logits are in memory together,
LOGITS = 2**27  # or on a GPU so many logits: half a GB in single precision
Model = TypeVar("Model", bound=nn.Module)


def with_fewer_kernels(model: Model) -> Model:
    """The model, with GPT-2's GELU (eight kernels, as transformers writes it) as the one that torch has of it."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
    return model


def log_probs(hidden_ND: Tensor, weight_VD: Tensor, ids_N: Tensor) -> Tensor:
    """log softmax(hidden · weightᵀ) at `ids`, [N], in single precision at least.

    Few tokens have logits at a time (`_pieces`): not for the gradient either, which makes them again. One more
    matrix product costs less than reading and writing a number for every token and word three times over.
    """
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
    return _LogProbs.apply(hidden_ND.to(dtype), weight_VD.to(dtype), ids_N)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, ids_N: Tensor) -> Tensor:
        full = torch.promote_types(hidden_ND.dtype, torch.float32)
        total_N = torch.empty(len(ids_N), dtype=full, device=ids_N.device)  # ln of the sum of all e^logit
        chosen_N = torch.empty_like(total_N)
        for place in _pieces(len(ids_N), weight_VD):
            logits_PV = (hidden_ND[place] @ weight_VD.t()).to(full)
            total_N[place] = logits_PV.logsumexp(dim=1)
            chosen_N[place] = logits_PV.gather(1, ids_N[place, None]).squeeze(1)
        ctx.save_for_backward(hidden_ND, weight_VD, ids_N, total_N)
        return chosen_N - total_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_ND, weight_VD, ids_N, total_N = ctx.saved_tensors
        of_hidden, of_weight, _ = ctx.needs_input_grad
        grad_ND = torch.empty_like(hidden_ND) if of_hidden else None
        grad_VD = torch.zeros_like(weight_VD, dtype=total_N.dtype) if of_weight else None
        for place in _pieces(len(ids_N), weight_VD):
            p_PV = (hidden_ND[place] @ weight_VD.t()).to(total_N.dtype).sub_(total_N[place, None]).exp_()
            of_logits_PV = p_PV.mul_(-grad_N[place, None]).scatter_add_(1, ids_N[place, None], grad_N[place, None])
            of_logits_PV = of_logits_PV.to(hidden_ND.dtype)
            if grad_ND is not None:
                torch.mm(of_logits_PV, weight_VD, out=grad_ND[place])
            if grad_VD is not None:
                if grad_VD.dtype == of_logits_PV.dtype:
                    grad_VD.addmm_(of_logits_PV.t(), hidden_ND[place])
                else:
                    grad_VD += of_logits_PV.t() @ hidden_ND[place]
        return grad_ND, None if grad_VD is None else grad_VD.to(weight_VD.dtype), None


def _pieces(n: int, weight_VD: Tensor) -> list[slice]:
    """What stays in the caches of a CPU.

    A GPU has more to do at a time, and would else spend that time on adding up gradients as large as the output
    embedding, one for each piece.
    """
    size = max(PIECE, LOGITS // len(weight_VD)) if weight_VD.is_cuda else PIECE
    return [slice(start, start + size) for start in range(0, n, size)]
