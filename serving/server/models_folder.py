"""A folder of models: a bundle per version, and the labels that some of them have.

    DIR/20261119/  DIR/20261120/    versions, as `multigate export` writes bundles
    DIR/labels.json                 what has which label (serving/server/labels.py)
    DIR/.copies/<digest>/           a private copy of each version that has a label, or can have it back by a rollback

What is served is the copies, so a version that is changed or deleted while it has a label changes nothing, and after a
restart the same bytes are served. One server at a time has the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rec import atomic
from rec.errors import BundleError
from serving.server.generations import Generation, GenerationStore
from serving.server.labels import FILE, VERSION, Label, Labelled, VersionLabels, missing_version, read_labels

_COPIES, _LOCK = ".copies", ".lock"
_SALT_BYTES = 8


class ModelsFolder:
    """The versions, labels and copies of a folder, which this server alone has."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError when its labels cannot be read, or name what is not there."""
        self._path = path
        self._file = path / FILE
        self._store = GenerationStore(path / _COPIES)
        self._written = self._bytes()
        salt = secrets.token_hex(_SALT_BYTES)
        labelled = self._written is not None
        self.labels = read_labels(self._file, self.versions(), salt=salt) if labelled else self._first(salt)
        self._store.sweep(self.labels.digests())

    def versions(self) -> list[str]:
        """The versions on the disk."""
        return sorted(
            folder.name
            for folder in self._path.iterdir()
            if re.fullmatch(VERSION, folder.name) and (folder / "manifest.json").is_file()
        )

    def take(self, version: str) -> Generation:
        """A verified copy of a version as it is now; BundleError where it is none, OSError without room for it."""
        versions = self.versions()
        if version not in versions:
            raise BundleError(f"{self._path}: {missing_version(version, versions)}")
        return replace(self._store.take(self._path / version), version=version)

    def generation(self, labelled: Labelled) -> Generation:
        """The copy of what has a label, or of its version, where that is still the same; BundleError otherwise."""
        copy = None if labelled.digest is None else self._store.adopt(labelled.digest)
        if copy is not None:
            return replace(copy, version=labelled.version)
        taken = self.take(labelled.version)
        if labelled.digest not in (None, taken.digest):
            raise BundleError(
                f"{self._path}: {labelled.version} has changed since it got its label, and its copy is gone: "
                f"expected the digest {labelled.digest}, got {taken.digest}"
            )
        return taken

    def write(self, labels: VersionLabels) -> None:
        """Replace the labels, whole or not at all; BundleError where somebody else has written them meanwhile."""
        if self._bytes() != self._written:
            raise BundleError(f"{self._file}: was changed by somebody else; restart the server to have it read")
        atomic.write_json(self._file, labels.model_dump(exclude_none=True))
        self.labels, self._written = labels, self._bytes()

    def pin(self, label: Label, generation: Generation) -> None:
        """Note the digest that a label is served with, where its version was named by hand, or by nobody."""
        labelled = self.labels.get(label)
        if labelled is not None and labelled.digest is None and labelled.version == generation.version:
            pinned = labelled.model_copy(update={"digest": generation.digest})
            self.write(self.labels.model_copy(update={label: pinned}))

    def clean(self, needed: set[str]) -> None:
        """Remove copies that have no label, cannot have it back, and are not `needed`."""
        self._store.keep(self.labels.digests() | needed, most=0)

    def _bytes(self) -> bytes | None:
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            return None

    def _first(self, salt: str) -> VersionLabels:
        """The labels of a folder that has none: its only version is stable."""
        versions = self.versions()
        if len(versions) != 1:
            choices = ", ".join(versions[-8:]) or "none"
            raise BundleError(
                f'{self._file}: missing: expected {{"stable": {{"version": "..."}}}} in it, or one version alone '
                f"in the folder, which is stable then (there is: {choices})"
            )
        return VersionLabels(salt=salt, stable=Labelled(version=versions[0]))


@contextmanager
def models_folder(path: Path) -> Iterator[ModelsFolder]:
    """A folder of models, for this server alone; BundleError where another has it."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder of models")
    copies = path / _COPIES
    if copies.is_symlink() or (copies.exists() and not copies.is_dir()):
        raise BundleError(f"{copies}: expected a folder that only servers write, got a link or a file")
    copies.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(copies / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"{path}: another server has this folder of models") from None
        yield ModelsFolder(path)
    finally:
        os.close(lock)
