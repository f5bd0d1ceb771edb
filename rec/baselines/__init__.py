"""The baselines: models that are no network, named in `[model]` as networks are; the folder is the registry.

A file `name.py` offers `Config`, its settings in `[model]`; `fit(spec, learnt, data, folder, progress)`, which learns
from DATA/train and DATA/validation, leaves its files in `folder`, and returns what history.json holds of it; and
`load(spec, learnt, folder)`, a `Baseline`. Everything else is that of a network: session tables, splits, metrics,
report, bundle, batch scores (rec/training/baseline_run.py, serving/graph/baseline.py).

A baseline learns every task alone: a child where its parent happened, whatever its `space`, and P(child) is the product
along the task graph. `[objective]` and `[train]`, but for `train.monitor`, are of networks.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from rec.errors import SpecError
from rec.request import RequestBatch
from rec.spec import Spec, Strict
from rec.spec.registry import Registry

REGISTRY = Registry(__name__, list(__path__), "model", base=Strict, make="fit")


class Baseline(Protocol):
    """A fitted baseline."""

    def conditional(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """{task: its probability or number where its parent happened [N] float32} of a numpy batch."""
        ...

    def numbers(self) -> int:
        """How many numbers were learnt: leaves, or rates."""
        ...


def names() -> dict[str, str]:
    """The baselines, with the first line of their docstrings."""
    return REGISTRY.names()


def config_of(name: str) -> type[Strict]:
    """The settings class of a baseline."""
    return REGISTRY.entry(name).config


def named(spec: Spec) -> bool:
    """Whether `[model]` names a baseline."""
    return spec.model.get("name") in REGISTRY.files()


def module(spec: Spec) -> Any:
    """The file of the baseline that `[model]` names."""
    return importlib.import_module(f"{__name__}.{spec.model['name']}")


def configured(settings: Mapping[str, Any]) -> Any:
    """The settings `[model]` gives, checked; SpecError for an unknown one."""
    return REGISTRY.configured(settings)[1]


def validate(spec: Spec, *, trained_here: bool = False) -> None:
    """Raise SpecError for settings that are unknown, and for a way to train that only networks have.

    `trained_here`: InstallationError where a library that training needs is not installed.
    """
    configured(spec.model)
    if trained_here and (needed := getattr(module(spec), "refuse_here", None)) is not None:
        needed()
    if spec.train.mode == "progressive":
        raise SpecError(
            f"train.mode: 'progressive' is for networks, which learn day by day; {spec.model['name']!r} learns from "
            "the whole training split at once"
        )
    if spec.train.refit:
        raise SpecError(f"train.refit: for networks; {spec.model['name']!r} is trained on the training split alone")
