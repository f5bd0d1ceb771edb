"""The objectives: what is learnt above the experts, one file each, and the folder is the registry.

A file `name.py` offers `Config`, its settings in `[objective]`, and `Objective(config, heads=..., tasks=...)`, an
`nn.Module` over one representation per task, [T, N, H]. Called, it gives `{task: logit [N]}`, of the conditional
probability where a task has a parent; `losses(hidden, labels)` gives what training adds up. Every objective goes with
every model, and reads the task graph: any tree of `given`. tests/rec/models/test_contract.py holds all of them to
the contract. An objective is given the events among a spec's tasks; quantities are learnt beside it (rec/losses).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rec.modules.heads import Heads
from rec.spec import Strict, Task, registry


def names() -> dict[str, str]:
    """Every objective and the first line of its description."""
    return registry.names(__name__, __path__)


def config_of(name: str) -> type[Strict]:
    """The settings an objective understands."""
    return registry.config_of(__name__, __path__, name, "objective")


def create(settings: Mapping[str, Any], heads: Heads, tasks: Mapping[str, Task]) -> nn.Module:
    """The objective that `[objective]` describes.

    Raises SpecError when the name or a setting is unknown.
    """
    module, config = registry.configured(__name__, __path__, settings, "objective")
    return module.Objective(config, heads=heads, tasks=tasks)
