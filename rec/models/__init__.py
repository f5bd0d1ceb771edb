"""The expert models: one file each, and the folder is the registry; other packages add theirs (docs/plugins.md).

A file `name.py` offers `Config`, its settings in `[model]`, and `Model(config, context=C, candidate=D, tasks=given)`,
an `nn.Module` from (context [B, C], candidate [N, D], owner [N]) to one representation per task [T, N, H], whose
`width` is H. Where `config.copies(tasks)` is U > 1, every id has U embeddings, and both sides have a leading axis of U.
Towers above the representations belong to the objective (rec/objectives). `multigate check-model` tests a model against
the contract (pipelines/laws), and tests/rec/models/test_contract.py every file in this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rec.errors import SpecError
from rec.modules.config import ModelConfig
from rec.spec.registry import BASELINES, Registry

RENAMED = {
    "expert": "expert_widths",
    "bottom": "bottom_widths",
    "tower": "tower_widths",
    "refine": "feature_gating",
}
REGISTRY = Registry(
    __name__,
    list(__path__),
    "model",
    base=ModelConfig,
    make="Model",
    default="mmoe",
    renamed=RENAMED,
    elsewhere=dict.fromkeys(BASELINES, "a baseline (rec/baselines), and what is asked for is a network"),
)


def names() -> dict[str, str]:
    """The built-in models, with the first line of their docstrings."""
    return REGISTRY.names()


def config_of(name: str) -> type[ModelConfig]:
    """The settings class of a model."""
    return REGISTRY.entry(name).config  # pyright: ignore[reportReturnType]


def configured(settings: Mapping[str, Any]) -> ModelConfig:
    """The settings `[model]` gives, checked.

    Raises SpecError when the name or a setting is unknown.
    """
    return REGISTRY.configured(settings)[1]


def create(settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> nn.Module:
    """The model that `[model]` describes, for inputs of the given widths and tasks with their parents."""
    entry, config = REGISTRY.configured(settings)
    model = entry.create("model.name", config, context=context, candidate=candidate, tasks=tasks)
    if not isinstance(model, nn.Module):
        raise SpecError(f"model.name: {entry.target!r}: expected a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(getattr(model, "width", None), int):
        raise SpecError(f"model.name: {entry.target!r}: expected an attribute width, the H of [T, N, H], got none")
    return model
