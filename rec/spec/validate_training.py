"""Validation of `[train]`, and of what features say of their training: averages, a refit, id dropout, penalties."""

from __future__ import annotations

from collections.abc import Iterator

from rec.spec.features import CLOCKS, Id, Ids, Number, has_rows, is_bias
from rec.spec.spec import Spec


def contradictions(spec: Spec) -> Iterator[str]:
    """Each as `path: what is wrong`."""
    train = spec.train
    yield from _of_features(spec)
    passes_once = "and a progressive run learns each day once; leave it out"
    if train.mode == "progressive" and train.average > 1:
        yield f"train.average: is of the ends of several epochs, {passes_once}"
    elif train.average > 1 and train.validate_every is not None:
        yield "train.average: is of the ends of epochs, and train.validate_every looks inside them; leave out one"
    if not train.refit:
        return
    if train.mode == "progressive":
        yield f"train.refit: trains for the epochs that validation chose, {passes_once}"
    for name, task in spec.tasks.items():
        if task.negatives < 1:
            yield (
                f"train.refit: learns from validation, where all candidates are observed, and "
                f"tasks.{name}.negatives = {task.negatives:g} leaves out those of train; leave out one"
            )


def _of_features(spec: Spec) -> Iterator[str]:
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Id | Ids) and feature.id_dropout and feature.make in CLOCKS:
                yield f"{side}.{name}.id_dropout: an {feature.make} is never unknown; leave it out"
            if is_bias(feature):
                for key in {"id_dropout", "l2"} & feature.model_fields_set:
                    yield f"{side}.{name}.{key}: a bias has a weight per value, and no embedding; leave it out"
            elif isinstance(feature, Number) and feature.l2 is not None and not has_rows(feature):
                yield f"{side}.{name}.l2: only for scale = 'quantile', whose buckets have rows; got {feature.scale!r}"
