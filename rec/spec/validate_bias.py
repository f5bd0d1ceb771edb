"""Validation of bias features: nothing but the tower of biases may read them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rec.spec.features import AnyFeature, Id, Ids, Number, is_bias
from rec.spec.spec import Spec


def contradictions(spec: Spec) -> Iterator[str]:
    """Each as `path: what is wrong`."""
    biases = {name for _, features in spec.sides() for name, f in features.items() if is_bias(f)}
    if not biases:
        return
    if all(task.predict != "event" for task in spec.tasks.values()):
        yield f"bias: {min(biases)!r} moves the odds of events, and no task predicts one"
    if spec.objective.get("name") == "aitm":
        yield f"bias: objective 'aitm' has no place for it; leave out the bias of {min(biases)!r}, or take another"
    if all(name in biases for _, features in spec.sides() for name in features):
        yield "bias: every feature is one; the network needs something to read"
    for side, features in spec.sides():
        for name, feature in features.items():
            yield from _of_feature(f"{side}.{name}", feature, biases)


def _of_feature(path: str, feature: AnyFeature, biases: Collection[str]) -> Iterator[str]:
    if isinstance(feature, Id | Ids) and feature.table in biases:
        yield f"{path}.table: {feature.table!r} is a bias, which has no embedding table"
    if isinstance(feature, Id) and feature.bias and (feature.table or feature.pretrained):
        key = "table" if feature.table else "pretrained"
        yield f"{path}.{key}: a bias has a weight per value, and no embedding; leave it out"
    if not isinstance(feature, Id | Number) or feature.bias:
        return
    for part in [feature.of] if isinstance(feature.of, str) else feature.of or []:
        if part in biases:
            yield f"{path}.of: {part!r} is a bias, of which the network must not know; say bias = true here too"
