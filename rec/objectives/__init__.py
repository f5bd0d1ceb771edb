"""The objectives: towers and losses above the experts, one file each; other packages add theirs (docs/plugins.md).

A file `name.py` offers `Config`, its settings in `[objective]`, and `Objective(config, heads=..., tasks=...)`, an
`nn.Module` over one representation per task, [T, N, H]. Its forward returns `{task: logit [N]}`, of the conditional
probability if a task has a parent; `losses(hidden, labels)` returns the terms of the training loss. One whose
losses read sample weights (rec.spec.tasks.sample_weights) says so: `sample_weights = True`. Every objective
works with every model and with any tree of `given`; tests/rec/models/test_contract.py tests all of them against the
contract. An objective has the classification tasks of a spec; regression heads are beside it (rec/losses).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rec.errors import SpecError
from rec.modules.heads import Heads
from rec.spec import Strict, Task
from rec.spec.registry import Registry

REGISTRY = Registry(
    __name__,
    list(__path__),
    "objective",
    base=Strict,
    make="Objective",
    default="esmm",
    methods=("losses",),
)


def names() -> dict[str, str]:
    """The built-in objectives, with the first line of their docstrings."""
    return REGISTRY.names()


def config_of(name: str) -> type[Strict]:
    """The settings class of an objective."""
    return REGISTRY.entry(name).config


def configured(settings: Mapping[str, Any]) -> Strict:
    """The settings `[objective]` gives, checked.

    Raises SpecError when the name or a setting is unknown.
    """
    return REGISTRY.configured(settings)[1]


def create(settings: Mapping[str, Any], heads: Heads, tasks: Mapping[str, Task]) -> nn.Module:
    """The objective that `[objective]` describes.

    Raises SpecError when the name or a setting is unknown.
    """
    entry, config = REGISTRY.configured(settings)
    objective = entry.create("objective.name", config, heads=heads, tasks=tasks)
    if not isinstance(objective, nn.Module):
        raise SpecError(f"objective.name: {entry.target!r}: expected a torch.nn.Module, got {type(objective).__name__}")
    return objective
