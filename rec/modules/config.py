"""Settings of `[model]` that all expert models share, and the builder of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from rec.modules.attention import AttentionConfig
from rec.modules.cross_network import CrossConfig
from rec.modules.experts import Activation, Experts
from rec.modules.feature_gating import FeatureGatingConfig
from rec.modules.request_layers import RequestConfig
from rec.spec import Positive, Strict

Levels = Annotated[list[Annotated[list[Positive], Field(min_length=1)]], Field(min_length=1)]


class ModelConfig(Strict):
    """Settings all models share: task towers, the layers of an expert, and interaction layers before the experts."""

    tower_widths: list[Positive] = Field(default=[64], description="widths of each task's own layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of units left out while training"
    )
    activation: Activation = Field(default="relu", description="of an expert's layers")
    normalise: bool = Field(
        default=False, description="batch normalisation before every activation of an expert (HoME)"
    )
    attention: AttentionConfig | None = Field(
        default=None, description="target attention: each candidate attends to its request's histories"
    )
    request: RequestConfig | None = Field(
        default=None, description="request layers: each candidate among the others of its request, before the experts"
    )
    feature_gating: FeatureGatingConfig | None = Field(
        default=None, description="feature gating: learned weights of fields or columns, before the experts"
    )
    cross: CrossConfig | None = Field(
        default=None, description="cross network (DCN-v2): products of columns, before the experts"
    )

    def copies(self, tasks: Mapping[str, str | None]) -> int:
        """Number of embeddings of every id: 1, or one per task in some models."""
        del tasks
        return 1


def create_experts(config: ModelConfig, first: nn.Module, owners: Sequence[str], widths: Sequence[int]) -> Experts:
    """Experts as `[model]` describes their layers: `first`, what reads the input, then batched layers of `widths`."""
    return Experts(first, owners, widths, norm=config.normalise, activation=config.activation, dropout=config.dropout)
