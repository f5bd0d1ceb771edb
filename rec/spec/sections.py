"""The parts of a spec that each result depends on: session tables, a trained model, a bundle, a report."""

from __future__ import annotations

from typing import Any

from rec.spec.spec import Spec
from rec.spec.training import NOT_LEARNT

_OF_TABLES = ("source", "logs", "keys", "requests", "sessions", "split")
_OF_LABELS = {"label", "time", "given", "window", "predict", "quantile", "bins", "negatives"}
_OF_MODEL = {"dim", "pretrained", "bias", "id_dropout", "l2"}  # keys of features
_NOT_LEARNT = ("name", "evaluate", "serve")


def of_tables(spec: Spec) -> dict[str, Any]:
    """What session tables, vocabularies and scales depend on: not what a model, or its training, makes of them."""
    parts = {f"[{name}]": spec.model_dump(mode="json", include={name})[name] for name in _OF_TABLES}
    for side, features in spec.sides():
        for name, feature in features.items():
            parts[f"{side}.{name}"] = feature.model_dump(mode="json", exclude=_OF_MODEL)
    parts |= {f"events.{name}": event.model_dump(mode="json") for name, event in spec.events.items()}
    for name, task in spec.tasks.items():
        weight = set() if task.sample_weight is None else {"sample_weight"}  # without one, tables are what they were
        parts[f"tasks.{name}"] = task.model_dump(mode="json", include=_OF_LABELS | weight)
    return parts


def of_model(spec: Spec) -> dict[str, Any]:
    """What trained weights depend on; task values, evaluation and serving settings are not part of it."""
    parts = of_everything(spec)
    parts["[tasks]"] = {name: task.model_dump(mode="json", exclude={"value"}) for name, task in spec.tasks.items()}
    parts["[train]"] = {key: value for key, value in parts["[train]"].items() if key not in NOT_LEARNT}
    return {place: part for place, part in parts.items() if place.strip("[]") not in _NOT_LEARNT}


def of_everything(spec: Spec) -> dict[str, Any]:
    """The whole spec, section by section, as a bundle holds it."""
    whole = spec.model_dump(mode="json")
    tables = {name for name, value in whole.items() if isinstance(value, dict)}
    return {f"[{name}]" if name in tables else name: value for name, value in whole.items()}
