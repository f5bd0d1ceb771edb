"""What every expert model can be told in `[model]`, whatever else it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from rec.modules.attention import AttentionConfig
from rec.modules.cross_network import CrossConfig
from rec.modules.feature_gating import FeatureGatingConfig
from rec.spec import Positive, Strict

Levels = Annotated[list[Annotated[list[Positive], Field(min_length=1)]], Field(min_length=1)]


class ModelConfig(Strict):
    """Settings all models share: task towers, the layers of an expert, and interaction layers before the experts."""

    tower_widths: list[Positive] = Field(default=[64], description="widths of each task's own layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of units left out while training"
    )
    activation: Literal["relu", "swish"] = Field(default="relu", description="of an expert's layers")
    normalise: bool = Field(
        default=False, description="batch normalisation before every activation of an expert (HoME)"
    )
    attention: AttentionConfig | None = Field(
        default=None, description="each candidate looks into its request's histories"
    )
    feature_gating: FeatureGatingConfig | None = Field(
        default=None, description="weighs fields or columns before the experts see them"
    )
    cross: CrossConfig | None = Field(default=None, description="products of columns, before the experts")

    def copies(self, tasks: Mapping[str, str | None]) -> int:
        """How many embeddings of its own every id has: 1, or one per task where a model asks for it."""
        del tasks
        return 1
