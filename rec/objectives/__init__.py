"""The objectives: towers and losses above the experts, one file each; other packages add theirs (docs/plugins.md).

A file `name.py` offers `Config`, its settings in `[objective]`, and `Objective(config, heads=..., tasks=...)`, an
`nn.Module` over one representation per task, [T, N, H]. Called, it gives `{task: logit [N]}`, of the conditional
probability where a task has a parent; `losses(hidden, labels)` gives what training adds up. Every objective goes with
every model, and reads the task graph: any tree of `given`. tests/rec/models/test_contract.py holds all of them to
the contract. An objective is given a spec's classification tasks; regression is learnt beside it (rec/losses).
Other packages add theirs (docs/plugins.md).
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
    """Every objective of ours and the first line of its description."""
    return REGISTRY.names()


def config_of(name: str) -> type[Strict]:
    """The settings an objective understands."""
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
