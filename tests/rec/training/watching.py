"""Runs that are watched, and what is said of them."""

from __future__ import annotations

from rec.progress import Silent
from rec.spec import Watching
from rec.training import checkpoint, tensor_folder


def watched(spec, *, epochs=2, **settings):
    """The tiny shop with other looks at training."""
    train = spec.train.model_copy(update={"epochs": epochs, "patience": 9, "watch": Watching(**settings)})
    return spec.model_copy(update={"train": train})


def weights(run):
    """Every tensor of the newest checkpoint as bytes."""
    return {k: v.numpy().tobytes() for k, v in tensor_folder.tensors(checkpoint.steps(run)[-1])}


class Said(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)
