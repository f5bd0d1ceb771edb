"""Every expert model at one size: the rows of suites that compare models.

The size is that of an AdaTT with two levels, of 128 and 64 as its paper has them unless the suite says otherwise, six
experts a level and towers of 32. Every other model has six experts a level too, or what comes nearest, and all its
widths are scaled until the body and the towers hold as many weights. Embedding tables are not counted: they are the
same for all, except where a model has several copies of them, or one per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.quality import Made, Results, Row, model
from benchmarks.speed import equal_size
from rec import models
from rec.data import preprocessor
from rec.modules.layout import layout
from rec.spec.tasks import given

TOWER = [32]
EXPERTS = 6
REFERENCE = "shared_bottom"  # what experts are compared with


def rows(
    made: Made, extra: Mapping[str, Any], groups: Mapping[str, list[str]], *, levels: tuple[int, int] = (128, 64)
) -> list[Row]:
    """A row per model, and one more where a model comes in two forms; `extra` are settings for all of them."""
    widths, wanted = sides(made), size(made, levels)
    found = []
    for row, settings in settings_of(len(widths["tasks"]), groups, levels).items():
        if settings["name"] in models.names():
            full = {**settings, "tower_widths": TOWER, **extra}
            found.append(Row(row, (model(equal_size.fitted_to(full, **widths, parameters=wanted)),)))
    return found


def sides(made: Made) -> dict[str, Any]:
    """Input of benchmarks/speed/equal_size.py: the widths of the experts' input, and the tasks with their parents."""
    shape = layout(made.spec, preprocessor.load(made.spec, made.data / "fitted")).widths()
    return {"context": sum(shape.context), "candidate": sum(shape.candidate), "tasks": given(made.spec.tasks)}


def size(made: Made, levels: tuple[int, int] = (128, 64)) -> int:
    """The weights of the AdaTT that all models are as large as."""
    widths = sides(made)
    settings = settings_of(len(widths["tasks"]), {}, levels)["adatt_sp"]
    return equal_size.parameters({**settings, "tower_widths": TOWER}, **widths)


def model_of(results: Results) -> dict[str, str]:
    """The model of every row, from what was trained."""
    return {row: found[0]["model"]["name"] for row, found in results.items()}


def settings_of(
    tasks: int, groups: Mapping[str, list[str]], levels: tuple[int, int] = (128, 64)
) -> dict[str, dict[str, Any]]:
    """`[model]` of every row before its widths are scaled; `groups` are for HoME."""
    each = max(1, EXPERTS // tasks)  # of a task, where experts belong to tasks alone
    one, two = list(levels), [[width] for width in levels]
    mixed = {"task_experts": 1, "shared_experts": max(2, EXPERTS - tasks)}
    hierarchy = {"meta_experts": 2, "shared_experts": 2, "group_experts": 1, "task_experts": 1}
    return {
        "single_task": {"name": "single_task", "bottom_widths": one},
        "single_task, own tables": {"name": "single_task", "bottom_widths": one, "tables": "own"},
        "shared_bottom": {"name": "shared_bottom", "bottom_widths": one},
        "omoe": {"name": "omoe", "experts": EXPERTS, "expert_widths": one},
        "mmoe": {"name": "mmoe", "experts": EXPERTS, "expert_widths": one},
        "ml_mmoe": {"name": "ml_mmoe", "experts": EXPERTS, "levels": two},
        "cgc": {"name": "cgc", "expert_widths": one, **mixed},
        "ple": {"name": "ple", "levels": two, **mixed},
        "cross_stitch": {"name": "cross_stitch", "levels": two},
        "home": {"name": "home", "levels": two, "groups": dict(groups), **hierarchy},
        "adatt_sp": {"name": "adatt_sp", "levels": two, "task_experts": each},
        "adatt": {"name": "adatt", "levels": two, **mixed},
        "stem": {"name": "stem", "expert_widths": one, **mixed},
    }
