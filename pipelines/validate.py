"""Validates a whole spec before any data is read, by building its parts instead of a second list of rules.

the tables of the spec, and references between them  rec/spec
[source]                                             features/sources creates the source, and reads nothing
labels                                               features/transforms/labels parses them
[model] [objective] [context] [candidates]           rec/ranker.py builds the network on torch's meta device
[train] device, watch                                torch and watchers, if the spec is to be trained on this machine

The network needs torch, which takes longer to import than a small log takes to read. Work that needs no torch itself
has the network validated by a process beside it (`beside`), unless it was before (pipelines/valid_networks.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines import valid_networks
from rec import spec as specs
from rec.errors import SpecError
from rec.module_process import module_process
from rec.spec import Spec


def load(path: Path, overrides: Sequence[str] = (), *, trained_here: bool = False) -> Spec:
    """The spec of a TOML file with overrides, every part of it validated; SpecError says what is wrong, and where.

    `trained_here` validates the device and the watchers of `[train]` too.
    """
    spec = specs.load(path, overrides)
    with _at(path):
        validate(spec, trained_here=trained_here)
    return spec


class NetworkCheck:
    """The network of a spec, validated by a process beside the work that `confirm` is called from."""

    def __init__(self, spec: Spec, path: Path, overrides: Sequence[str]) -> None:
        """Starts the process, unless the network is known to be valid.

        Where torch is imported already, or there is no second core, `load` decides here.
        """
        self._path, self._overrides = path, overrides
        self._process: subprocess.Popen[bytes] | None = None
        if valid_networks.known(spec):
            return
        if "torch" in sys.modules or (os.cpu_count() or 1) == 1:
            load(path, overrides)
        else:
            self._process = _validating(path, overrides)

    def confirm(self, *, wait: bool) -> None:
        """Raise SpecError if the network turned out unusable; `wait` until that is known.

        What the process refused is refused here again, in words. A process that ended otherwise decides nothing.
        """
        if self._process is not None and (self._process.wait() if wait else self._process.poll()):
            self._process = None
            load(self._path, self._overrides)

    def end(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def beside(path: Path, overrides: Sequence[str] = ()) -> Iterator[tuple[Spec, NetworkCheck]]:
    """The spec as `load` gives it, before its network is validated: whoever works with it calls `confirm`.

    Of two mistakes, one in the spec and one that the work runs into, the spec's is told.
    """
    spec = specs.load(path, overrides)
    with _at(path):
        validate_data(spec)
    check = NetworkCheck(spec, path, overrides)
    try:
        yield spec, check
    except Exception:
        check.confirm(wait=True)
        raise
    finally:
        check.end()


def validate(spec: Spec, *, trained_here: bool = False) -> None:
    """Raise SpecError for what building a part of the spec would refuse."""
    validate_data(spec)
    _validate_network(spec, trained_here=trained_here)
    if trained_here:
        from rec.training import watchers
        from rec.training.step import device_of

        device_of(spec.train)
        watchers.check(spec.train.watch)


def validate_data(spec: Spec) -> None:
    """Raise SpecError for what the feature pipeline would refuse."""
    from features import checks, sources
    from features.transforms import joins, labels, sample_weights

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


def _validate_network(spec: Spec, *, trained_here: bool) -> None:
    from rec import baselines, ranker

    if baselines.named(spec):
        baselines.validate(spec, trained_here=trained_here)
        return
    ranker.validate(spec)
    valid_networks.keep(spec)


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """Every line of a SpecError says which file."""
    try:
        yield
    except SpecError as error:
        raise SpecError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error.__cause__


def _validating(path: Path, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that fails where the network does; it finds the packages that this one finds."""
    quiet = subprocess.DEVNULL
    return module_process("pipelines.validate", [str(path), *overrides], stdin=quiet, stdout=quiet)


if __name__ == "__main__":
    _validate_network(specs.load(Path(sys.argv[1]), sys.argv[2:]), trained_here=False)
