"""Log-probabilities of single tokens: of a whole vocabulary, few tokens have their logits in memory at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

PIECE = 256  # tokens whose logits are in memory together,
LOGITS = 2**27  # or on a GPU so many logits: half a GB in single precision
KEPT = 2**24  # numbers made of logits that wait for their gradient: 64 MB in single precision


def log_probs(hidden_ND: Tensor, weight_VD: Tensor, ids_N: Tensor) -> Tensor:
    """log softmax(hidden · weightᵀ) at `ids`, [N], in single precision at least.

    Few tokens have logits at a time (`_pieces`). Of those that the gradient needs, a bounded number are kept for it
    (`KEPT`), and the others are made again, for one more matrix product.
    """
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
    return _LogProbs.apply(hidden_ND.to(dtype), weight_VD.to(dtype), ids_N, KEPT if torch.is_grad_enabled() else 0)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, ids_N: Tensor, room: int) -> Tensor:
        full = torch.promote_types(hidden_ND.dtype, torch.float32)
        total_N = torch.empty(len(ids_N), dtype=full, device=ids_N.device)  # ln of the sum of all e^logit
        chosen_N = torch.empty_like(total_N)
        ctx.kept = []  # of the first pieces: e^logit, over that of the largest
        for place in _pieces(len(ids_N), weight_VD):
            logits_PV = (hidden_ND[place] @ weight_VD.t()).to(full)
            chosen_N[place] = logits_PV.gather(1, ids_N[place, None]).squeeze(1)
            largest_P1 = logits_PV.amax(dim=1, keepdim=True)
            powers_PV = logits_PV.sub_(largest_P1).exp_()
            total_N[place] = powers_PV.sum(dim=1).log_().add_(largest_P1.squeeze(1))
            room -= powers_PV.numel()
            if room >= 0:
                ctx.kept.append(powers_PV)
        ctx.save_for_backward(hidden_ND, weight_VD, ids_N, total_N)
        return chosen_N - total_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_ND, weight_VD, ids_N, total_N = ctx.saved_tensors
        of_hidden, of_weight, *_ = ctx.needs_input_grad
        kept, ctx.kept = iter(ctx.kept), []  # once: they are overwritten
        grad_ND = torch.empty_like(hidden_ND) if of_hidden else None
        grad_VD = torch.zeros_like(weight_VD, dtype=total_N.dtype) if of_weight else None
        for place in _pieces(len(ids_N), weight_VD):
            grad_P1 = grad_N[place, None]
            if (p_PV := next(kept, None)) is None:
                p_PV = (hidden_ND[place] @ weight_VD.t()).to(total_N.dtype).sub_(total_N[place, None]).exp_()
                p_PV.mul_(-grad_P1)
            else:
                p_PV.mul_(-grad_P1 / p_PV.sum(dim=1, keepdim=True))
            of_logits_PV = p_PV.scatter_add_(1, ids_N[place, None], grad_P1).to(hidden_ND.dtype)
            if grad_ND is not None:
                torch.mm(of_logits_PV, weight_VD, out=grad_ND[place])
            if grad_VD is not None:
                if grad_VD.dtype == of_logits_PV.dtype:
                    grad_VD.addmm_(of_logits_PV.t(), hidden_ND[place])
                else:
                    grad_VD += of_logits_PV.t() @ hidden_ND[place]
        return grad_ND, None if grad_VD is None else grad_VD.to(weight_VD.dtype), None, None


def _pieces(n: int, weight_VD: Tensor) -> list[slice]:
    """What stays in the caches of a CPU.

    A GPU has more to do at a time, and would else spend that time on adding up gradients as large as the output
    embedding, one for each piece.
    """
    size = max(PIECE, LOGITS // len(weight_VD)) if weight_VD.is_cuda else PIECE
    return [slice(start, start + size) for start in range(0, n, size)]


def from_logits(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """The log-probability of each token, in single precision at least."""
    return -cross_entropy(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)), ids_N, reduction="none")
