"""Validates a whole spec before any data is read, by building its parts instead of a second list of rules.

the tables of the spec, and references between them  rec/spec
[source]                                             features/sources creates the source, and reads nothing
labels                                               features/transforms/labels parses them
[model] [objective] [context] [candidates]           rec/ranker.py builds the network on torch's meta device
[train] device, watch                                torch and watchers, if the spec is to be trained on this machine
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rec import spec as specs
from rec.errors import SpecError
from rec.spec import Spec


def load(path: Path, overrides: Sequence[str] = (), *, trained_here: bool = False) -> Spec:
    """The spec of a TOML file with overrides, every part of it validated; SpecError says what is wrong, and where.

    `trained_here` validates the device and the watchers of `[train]` too.
    """
    spec = specs.load(path, overrides)
    try:
        validate(spec, trained_here=trained_here)
    except SpecError as error:
        raise SpecError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error.__cause__
    return spec


def validate(spec: Spec, *, trained_here: bool = False) -> None:
    """Raise SpecError for what building a part of the spec would refuse."""
    from features import checks, sources
    from features.transforms import joins, labels, sample_weights
    from rec import ranker
    from rec.training import watchers
    from rec.training.step import device_of

    sources.create(spec)
    for kind, behaviours in (("tasks", spec.tasks), ("events", spec.events)):
        for name, behaviour in behaviours.items():
            labels.columns(f"{kind}.{name}", behaviour.label)
    for name in spec.tasks:
        sample_weights.columns(spec, name)
    joins.refuse_reserved(spec)
    leaks = checks.of_spec(spec)
    if not leaks.passed:
        raise SpecError(f"{leaks.examples[0]}; the model would be given the answer")
    for weighing in sample_weights.leaks(spec, {}):
        raise SpecError(weighing)
    ranker.validate(spec)
    if trained_here:
        device_of(spec.train)
        watchers.check(spec.train.watch)
