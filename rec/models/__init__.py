"""The expert models: one file each, and the folder is the registry.

A file `name.py` offers `Config`, its settings in `[model]`, and `Body(config, context=C, candidate=D, tasks=given)`,
an `nn.Module` from (context [B, C], candidate [N, D], owner [N]) to one representation per task [T, N, H], whose
`width` is H. Where `config.copies(tasks)` is U > 1, every id has U embeddings, and both sides have a leading axis of U.
What a representation becomes is the objective's business (rec/objectives). tests/rec/models/test_contract.py holds
every file in this folder to the laws of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rec.modules.config import Sizes
from rec.spec import registry


def names() -> dict[str, str]:
    """Every model and the first line of its description."""
    return registry.names(__name__, __path__)


def config_of(name: str) -> type[Sizes]:
    """The settings a model understands."""
    return registry.config_of(__name__, __path__, name, "model")  # pyright: ignore[reportReturnType]


def configured(settings: Mapping[str, Any]) -> Sizes:
    """The settings `[model]` gives, checked.

    Raises SpecError when the name or a setting is unknown.
    """
    return registry.configured(__name__, __path__, settings, "model")[1]


def create(settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> nn.Module:
    """The model that `[model]` describes, for inputs of the given widths and tasks with their parents."""
    module, config = registry.configured(__name__, __path__, settings, "model")
    return module.Body(config, context=context, candidate=candidate, tasks=tasks)
