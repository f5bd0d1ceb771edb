"""Baselines of a spec, trained."""

from __future__ import annotations

from pathlib import Path

from rec.progress import Silent
from rec.spec import Spec
from rec.training import trainer


def as_baseline(spec: Spec, name: str, threads: int = 1) -> Spec:
    """The spec with a baseline in the place of its model: few trees."""
    few = {"trees": 30, "min_leaf": 20, "threads": threads} if name == "gbdt" else {}
    return spec.model_copy(update={"model": {"name": name, **few}})


def trained(name: str, spec: Spec, data: Path, folder: Path) -> Path:
    """A trained baseline in a folder of its name."""
    trainer.train(as_baseline(spec, name), data, folder / name, progress=Silent())
    return folder / name
