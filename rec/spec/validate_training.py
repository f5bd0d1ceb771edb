"""Validation of `[train]`: an average of epochs' ends, and a refit."""

from __future__ import annotations

from collections.abc import Iterator

from rec.spec.spec import Spec


def contradictions(spec: Spec) -> Iterator[str]:
    """Each as `path: what is wrong`."""
    train = spec.train
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
