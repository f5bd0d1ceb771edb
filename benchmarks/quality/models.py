"""Every expert model at one size: the rows of suites that compare models.

The size is that of an AdaTT with two levels, of 128 and 64 as in its paper unless the suite says otherwise, six
experts a level and towers of 32. Every other model has six experts a level too, or the nearest possible number, and all
widths are scaled so that expert model and towers have as many weights. Embedding tables are not counted: they are the
same for all, except for models with several copies of embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.quality import Results, SuiteData, Variant, model
from benchmarks.speed import equal_size
from rec import models
from rec.data import preprocessor
from rec.modules.layout import layout
from rec.spec.tasks import given

TOWER = [32]
EXPERTS = 6
REFERENCE = "shared_bottom"  # what experts are compared with


def rows(
    data: SuiteData, extra: Mapping[str, Any], groups: Mapping[str, list[str]], *, levels: tuple[int, int] = (128, 64)
) -> list[Variant]:
    """A row per model, and one more where a model comes in two forms; `extra` are settings for all of them."""
    widths, parameters = sides(data), size(data, levels)
    variants = []
    for row, settings in settings_of(len(widths["tasks"]), groups, levels).items():
        if settings["name"] in models.names():
            full = {**settings, "tower_widths": TOWER, **extra}
            variants.append(Variant(row, (model(equal_size.fitted_to(full, **widths, parameters=parameters)),)))
    return variants


def baselines() -> list[Variant]:
    """A row per baseline, as it comes, on one core: the same features as the networks."""
    return [
        Variant("gbdt", (model({"name": "gbdt", "threads": 1}),)),
        Variant("popularity", (model({"name": "popularity"}),)),
    ]


def sides(data: SuiteData) -> dict[str, Any]:
    """Input of benchmarks/speed/equal_size.py: the widths of the experts' input, and the tasks with their parents."""
    shape = layout(data.spec, preprocessor.load(data.spec, data.data / "fitted")).widths()
    return {"context": sum(shape.context), "candidate": sum(shape.candidate), "tasks": given(data.spec.tasks)}


def size(data: SuiteData, levels: tuple[int, int] = (128, 64)) -> int:
    """The weights of the AdaTT that all models are as large as."""
    widths = sides(data)
    settings = settings_of(len(widths["tasks"]), {}, levels)["adatt_sp"]
    return equal_size.parameters({**settings, "tower_widths": TOWER}, **widths)


def model_of(results: Results) -> dict[str, str]:
    """The model of every row, from what was trained."""
    return {row: trainings[0]["model"]["name"] for row, trainings in results.items()}


def settings_of(
    tasks: int, groups: Mapping[str, list[str]], levels: tuple[int, int] = (128, 64)
) -> dict[str, dict[str, Any]]:
    """`[model]` of every row before its widths are scaled; `groups` are for HoME."""
    per_task = max(1, EXPERTS // tasks)  # of a task, where experts belong to tasks alone
    widths, by_level = list(levels), [[width] for width in levels]
    mixed = {"task_experts": 1, "shared_experts": max(2, EXPERTS - tasks)}
    hierarchy = {"meta_experts": 2, "shared_experts": 2, "group_experts": 1, "task_experts": 1}
    return {
        "single_task": {"name": "single_task", "bottom_widths": widths},
        "single_task, own tables": {"name": "single_task", "bottom_widths": widths, "tables": "own"},
        "shared_bottom": {"name": "shared_bottom", "bottom_widths": widths},
        "omoe": {"name": "omoe", "experts": EXPERTS, "expert_widths": widths},
        "mmoe": {"name": "mmoe", "experts": EXPERTS, "expert_widths": widths},
        "ml_mmoe": {"name": "ml_mmoe", "experts": EXPERTS, "levels": by_level},
        "cgc": {"name": "cgc", "expert_widths": widths, **mixed},
        "ple": {"name": "ple", "levels": by_level, **mixed},
        "cross_stitch": {"name": "cross_stitch", "levels": by_level},
        "home": {"name": "home", "levels": by_level, "groups": dict(groups), **hierarchy},
        "adatt_sp": {"name": "adatt_sp", "levels": by_level, "task_experts": per_task},
        "adatt": {"name": "adatt", "levels": by_level, **mixed},
        "stem": {"name": "stem", "expert_widths": widths, **mixed},
    }
