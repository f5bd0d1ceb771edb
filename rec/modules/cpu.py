"""CPU-only fast paths, off on every other device: the result of the plain operation with another memory layout.

    product_by_expert      fewer than 16 output columns, training: the gradients of a narrow batched product run at a
                           fraction of the speed of unbatched ones
    product_expert_major   training: the gradient comes expert by expert, so nothing is transposed in memory
    batch_norm_by_expert   training: an expert's contiguous activations stay in the cache
    softmax_over_experts   training: rows of a few experts are too short for a softmax of the last axis
    mix_by_bags            training: a product of 3 x 8 by 8 x 128 for each candidate is too small a one
    dropout_by_bytes       training: a random number per unit costs as much as the product before it; eight share one

On other devices kernels are tuned for the plain operations, and callers use those: `pays(x)` decides.
docs/log.md has the measured gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rec.modules.precision import to_candidates

NARROW = 16  # columns


def pays(x: Tensor) -> bool:
    """Whether the fast paths pay for a tensor: it is in CPU memory."""
    return x.device.type == "cpu"


def product_by_expert(x_ENH: Tensor, weight_EHO: Tensor, bias_E1O: Tensor) -> Tensor:
    """`x W + b` [E, N, out], one expert after the other."""
    experts = zip(x_ENH, weight_EHO.transpose(1, 2).contiguous(), bias_E1O.squeeze(1), strict=True)
    return torch.stack([F.linear(x_NH, weight, bias) for x_NH, weight, bias in experts])


def product_expert_major(
    inputs: tuple[Tensor, Tensor, Tensor], weight_KC: Tensor, weight_KD: Tensor, bias_K: Tensor | None, *, count: int
) -> Tensor:
    """`W_c context + W_d candidate + b` for K = E * out rows of weights, as [E, N, out] in memory.

    `inputs` are context [B, C], candidate [N, D] and owner [N].
    """
    context_BC, candidate_ND, owner_N = inputs
    context_EBO = F.linear(context_BC, weight_KC, bias_K).unflatten(1, (count, -1)).transpose(0, 1)
    weight_EDO = weight_KD.unflatten(0, (count, -1)).transpose(1, 2)
    return to_candidates(context_EBO, owner_N).baddbmm_(candidate_ND.expand(count, -1, -1), weight_EDO)


def batch_norm_by_expert(x_ENH: Tensor, parts: Sequence[Tensor], *, momentum: float, epsilon: float) -> list[Tensor]:
    """E tensors [N, H], each batch-normalised; `parts` are mean, variance, scale and shift [E, 1, H]."""
    experts = zip(x_ENH.unbind(0), *(part.squeeze(1).unbind(0) for part in parts), strict=True)
    return [F.batch_norm(*expert, training=True, momentum=momentum, eps=epsilon) for expert in experts]


def softmax_over_experts(logit_NGE: Tensor) -> Tensor:
    """Softmax of the last axis [N, G, E], vectorised over candidates."""
    return logit_NGE.permute(1, 2, 0).softmax(1).permute(2, 0, 1).contiguous()


def mix_by_bags(gate_NGE: Tensor, expert_ENH: Tensor) -> Tensor:
    """Each gate's weighted sum of expert outputs [G, N, H]: a bag of E rows per gate and candidate, summed in fp32."""
    return _MixByBags.apply(gate_NGE, expert_ENH)  # pyright: ignore[reportReturnType]


class _MixByBags(torch.autograd.Function):
    """The weighted sum and the gradient of experts are bags of rows; that of gates is one product per candidate."""

    @staticmethod
    def forward(ctx: Any, gate_NGE: Tensor, expert_ENH: Tensor) -> Tensor:
        ctx.save_for_backward(gate_NGE, expert_ENH)
        return _weighted_sums(gate_NGE.permute(1, 0, 2), expert_ENH)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gate_NGE, expert_ENH), (mixed_GNH,) = ctx.saved_tensors, gradients
        gate = expert = None
        if ctx.needs_input_grad[0]:
            gate = torch.bmm(expert_ENH.transpose(0, 1), mixed_GNH.permute(1, 2, 0)).transpose(1, 2)
        if ctx.needs_input_grad[1]:
            expert = _weighted_sums(gate_NGE.permute(2, 0, 1), mixed_GNH)
        return gate, expert


def _weighted_sums(weight_ONI: Tensor, rows_INH: Tensor) -> Tensor:
    """Sums over I of `weight * row` [O, N, H]."""
    outputs, candidates, inputs = weight_ONI.shape
    row_NI = torch.arange(candidates).unsqueeze(1) + torch.arange(inputs) * candidates
    sums = F.embedding_bag(
        row_NI.expand(outputs, -1, -1).reshape(-1),
        rows_INH.flatten(0, 1),
        torch.arange(outputs * candidates) * inputs,
        mode="sum",
        per_sample_weights=weight_ONI.reshape(-1),
    )
    return sums.unflatten(0, (outputs, candidates))


def dropout_by_bytes(x: Tensor, share: int) -> Tensor:
    """Inverted dropout of `x` at rate `share` / 256, with one random byte per unit."""
    random = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    # in x's memory layout: a view with experts side by side stays one
    layout = torch.empty_like(x, device="meta").stride()
    mask = random[: x.numel()].as_strided(x.shape, layout) >= share
    return x * mask.to(x.dtype).mul_(256 / (256 - share))
