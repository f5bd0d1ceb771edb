"""Optional interaction layers before the experts: target attention, request layers, feature gating, DCN-v2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rec.modules import attention as attentions
from rec.modules import cross_network, feature_gating
from rec.modules.attention import AttentionConfig
from rec.modules.cross_network import CrossConfig
from rec.modules.feature_gating import FeatureGatingConfig
from rec.modules.inputs import Inputs, InputWidths
from rec.modules.request_layers import RequestConfig, RequestLayers


class InteractionLayers(nn.Module):
    """Inputs of one embedding copy -> the experts' input, `context` and `candidate` columns wide.

    `attention` has a module per history, whose output is appended to the candidate. `request` appends summaries of the
    candidates to the context, and what each learns of the others to the candidate. `gating` weighs the fields of
    both sides. The output of `cross` depends on the pair, so all of it is candidate columns and the context has none.
    """

    def __init__(
        self,
        *,
        context: int,
        candidate: int,
        attention: Sequence[nn.Module] | None = None,
        request: nn.Module | None = None,
        gating: nn.Module | None = None,
        cross: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.context, self.candidate = (context, candidate) if cross is None else (0, context + candidate)
        self.attention = None if attention is None else nn.ModuleList(attention)
        self.request = request
        self.gating = gating
        self.cross = cross

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(context [B, C], candidate [N, D])."""
        context, candidate, owner = inputs.context, inputs.candidate, inputs.owner
        if self.attention is not None:
            attended = [
                module(history, owner) for module, history in zip(self.attention, inputs.histories, strict=True)
            ]
            candidate = torch.cat([candidate, *attended], 1)
        if self.request is not None:
            summaries, attended = self.request(context, candidate, owner)
            context, candidate = torch.cat([context, summaries], 1), torch.cat([candidate, attended], 1)
        if self.gating is not None:
            context, candidate = self.gating(context, candidate, owner)
        if self.cross is not None:
            context, candidate = context[:, :0], self.cross(context, candidate, owner)
        return context, candidate


def create(
    widths: InputWidths,
    *,
    attention: AttentionConfig | None = None,
    request: RequestConfig | None = None,
    gating: FeatureGatingConfig | None = None,
    cross: CrossConfig | None = None,
) -> InteractionLayers:
    """The layers configured in `[model]`, over inputs of these widths; the identity if there are none."""
    modules: list[nn.Module] | None = None
    fields_context, fields_candidate = list(widths.context), list(widths.candidate)
    if attention is not None:
        modules = [attentions.create(attention, width) for width in widths.histories]
        fields_candidate += widths.histories
    others = None
    if request is not None:
        others = RequestLayers(request, context=sum(fields_context), candidate=sum(fields_candidate))
        fields_context += [request.width] * (others.context // request.width)
        fields_candidate += [request.width] * (others.candidate // request.width)
    gates = None
    if gating is not None:
        gates = feature_gating.create(gating, context=fields_context, candidate=fields_candidate)
    context, candidate = sum(fields_context), sum(fields_candidate)
    crosses = None if cross is None else cross_network.create(cross, context=context, candidate=candidate)
    return InteractionLayers(
        context=context, candidate=candidate, attention=modules, request=others, gating=gates, cross=crosses
    )
