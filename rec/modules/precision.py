"""Experts and gates in bf16: weights and inputs are cast once per step, and what lies between layers stays bf16.

A cast at every operation, as torch.autocast has it, reads and writes all activations once more. Sums over a request's
candidates are fp32: bf16 counts to 256, and the gradient of a context of 1,000 candidates was off by a fifth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

_KEPT = ("scale", "shift", "mean", "variance")  # of batch normalisation, which takes them beside bf16 units


def quick(device: torch.device) -> bool:
    """Whether products in bf16 are worth it: on a CPU without AVX-512 they take many times as long as in fp32."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001


def expert_output(model: nn.Module, context: Tensor, candidate: Tensor, owner_N: Tensor, *, half: bool) -> Tensor:
    """The expert model's output [T, N, H] in fp32; gradients arrive in fp32 at the weights themselves."""
    if not half:
        return model(context, candidate, owner_N)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    halves = {name: x.bfloat16() for name, x in held.items() if x.is_floating_point() and _name(name) not in _KEPT}
    return functional_call(model, halves, (context.bfloat16(), candidate.bfloat16(), owner_N)).float()


def to_candidates(rows: Tensor, owner_N: Tensor) -> Tensor:
    """Each candidate's row of its request: [B, H] -> [N, H], or [E, B, H] -> [E, N, H]."""
    if rows.dtype is torch.bfloat16 and rows.requires_grad:
        return _ToCandidates.apply(rows, owner_N)  # pyright: ignore[reportReturnType]
    return rows.index_select(-2, owner_N)


class _ToCandidates(torch.autograd.Function):
    """The same in bf16, with a gradient that is summed in fp32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, owner_N: Tensor) -> Tensor:
        ctx.save_for_backward(owner_N)
        ctx.shape = rows.shape
        return rows.index_select(-2, owner_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (owner_N,), (gradient,) = ctx.saved_tensors, gradients
        out = gradient.new_empty(ctx.shape)
        if gradient.device.type == "cpu":
            # a bag of candidates per request, whose rows are added up in fp32 registers; no fp32 copy
            every_N = torch.arange(len(owner_N))
            first_B = torch.searchsorted(owner_N, torch.arange(out.shape[-2]))
            for sums, part in zip(_experts(out), _experts(gradient), strict=True):
                sums.copy_(F.embedding_bag(every_N, part, first_B, mode="sum"))
            return out, None
        # one expert after the other, whose fp32 copy stays in the cache
        for sums, part in zip(_experts(out), _experts(gradient), strict=True):
            sums.copy_(torch.zeros_like(sums, dtype=torch.float32).index_add_(0, owner_N, part.float()))
        return out, None


def _experts(x: Tensor) -> Tensor:
    return x if x.dim() == 3 else x.unsqueeze(0)


def _name(path: str) -> str:
    return path.rsplit(".", 1)[-1]
