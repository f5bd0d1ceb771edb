"""The models: one file each, and the folder is the registry.

A file `name.py` offers `Config`, its settings in `[model]`, and `Model(config, context=C, candidate=D, tasks=given)`,
an `nn.Module` from (context [B, C], candidate [N, D], owner [N]) to `{task: logit [N]}`. The logit of a task with a
parent is that of its conditional probability, so a child is never likelier than its parent. tests/test_models.py
holds every file in this folder to the laws of the contract.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import nn

from rec.errors import SpecError, nearest
from rec.mistakes import explain
from rec.spec import Strict


def names() -> dict[str, str]:
    """Every model and the first line of its description."""
    return {name: (_module(name).__doc__ or "").strip().splitlines()[0] for name in _files()}


def config_of(name: str) -> type[Strict]:
    """The settings a model understands."""
    if name not in _files():
        raise SpecError(f"model.name: no model {name!r}: {', '.join(_files())}{nearest(name, _files())}")
    return _module(name).Config


def create(settings: Mapping[str, Any], *, context: int, candidate: int, tasks: Mapping[str, str | None]) -> nn.Module:
    """The model that `[model]` describes, for inputs of the given widths and tasks with their parents.

    Raises SpecError when the name or a setting is unknown.
    """
    rest = dict(settings)
    name = rest.pop("name", "mmoe")
    kind = config_of(name)
    try:
        config = kind.model_validate(rest)
    except ValidationError as error:
        raise SpecError("\n".join(f"model.{explain(e, kind.model_fields)}" for e in error.errors())) from None
    return _module(name).Model(config, context=context, candidate=candidate, tasks=tasks)


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
