"""CPU-only fast paths, off on every other device: the result of the plain operation with another memory layout.

    product_by_expert      fewer than 16 output columns, training: the gradients of a narrow batched product run at a
                           fraction of the speed of unbatched ones
    product_expert_major   training: the gradient comes expert by expert, so nothing is transposed in memory
    batch_norm_by_expert   training: an expert's contiguous activations stay in the cache
    softmax_over_experts   training: rows of a few experts are too short for a softmax of the last axis
    dropout_by_bytes       training: a random number per unit costs as much as the product before it; eight share one

On other devices kernels are tuned for the plain operations, and callers use those: `pays(x)` decides.
docs/log.md has the measured gains.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def dropout_by_bytes(x: Tensor, share: int) -> Tensor:
    """Inverted dropout of `x` at rate `share` / 256, with one random byte per unit."""
    random = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    # in x's memory layout: a view with experts side by side stays one
    layout = torch.empty_like(x, device="meta").stride()
    mask = random[: x.numel()].as_strided(x.shape, layout) >= share
    return x * mask.to(x.dtype).mul_(256 / (256 - share))
