"""Single-task models side by side: one perceptron per task, nothing shared above the tables.

    h_t = f_t(x)            tables = "own":  h_t = f_t(x_t), every id with an embedding per task

The baseline of a multi-task model. With `tables = "own"` no parameter is shared between tasks.
Caruana, Multitask Learning, Machine Learning 28, 1997, section 2 (single-task learning).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from rec.modules.config import ModelConfig, create_experts
from rec.modules.linear import GroupInputLayer, SharedInputLayer
from rec.spec import Positive


class Config(ModelConfig):
    """Settings of one perceptron per task."""

    bottom_widths: list[Positive] = Field(default=[512, 256], min_length=1, description="widths of each task's layers")
    tables: Literal["shared", "own"] = Field(
        default="shared", description="own: every id has an embedding for each task"
    )

    def copies(self, tasks: Mapping[str, str | None]) -> int:
        """One embedding of every id per task if `tables = "own"`."""
        return len(tasks) if self.tables == "own" else 1


class Model(nn.Module):
    """context [B, C] or [T, B, C], candidate [N, D] or [T, N, D], owner [N] -> [T, N, H]."""

    def __init__(self, config: Config, *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> None:
        super().__init__()
        count, out = len(tasks), config.bottom_widths[0]
        first = (
            SharedInputLayer(context, candidate, count=count, out=out)
            if config.copies(tasks) == 1
            else GroupInputLayer(context, candidate, counts=[1] * count, out=out)
        )
        self.bottoms = create_experts(config, first, list(tasks), config.bottom_widths)
        self.width = config.bottom_widths[-1]

    def forward(self, context_BC: Tensor, candidate_ND: Tensor, owner_N: Tensor) -> Tensor:
        """One representation per task [T, N, H]."""
        return self.bottoms(context_BC, candidate_ND, owner_N)
