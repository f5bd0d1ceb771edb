"""Networks that were validated before on this machine: the same one needs no torch again to be told from a mistake.

    CACHE/multigate/networks/DIGEST      an empty file for each; CACHE is $XDG_CACHE_HOME, or ~/.cache

The digest is of the spec but for its data, of this package's files, and of the versions of Python and torch. A network
with classes of other packages is validated every time, since they may change and keep their names.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rec
from rec.output_folder import digest
from rec.spec import Spec

MOST = 1000  # files; with more, all are forgotten
_OF_DATA = {"name", "source", "logs", "split"}
_PACKAGE = Path(rec.__file__).parent


def known(spec: Spec) -> bool:
    """Whether the network of a spec was validated before."""
    try:
        return _of_ours(spec) and _file(spec).exists()
    except (OSError, RuntimeError, PackageNotFoundError):  # no home, no access to it, or no torch
        return False


def keep(spec: Spec) -> None:
    """The network of a spec is valid; where nothing can be written, it is validated again next time."""
    if not _of_ours(spec):
        return
    with suppress(OSError, RuntimeError, PackageNotFoundError):
        file = _file(spec)
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = list(file.parent.iterdir())
        for old in kept if len(kept) >= MOST else ():
            old.unlink()
        file.touch()


def _of_ours(spec: Spec) -> bool:
    """Whether model and objective are files of this package, which come before those of others of the same name."""
    named = (("models", spec.model), ("objectives", spec.objective))
    ours = {folder: {file.name for file in pkgutil.iter_modules([str(_PACKAGE / folder)])} for folder, _ in named}
    return all(table.get("name") is None or table["name"] in ours[folder] for folder, table in named)


def _file(spec: Spec) -> Path:
    """Raises PackageNotFoundError without torch, RuntimeError without a home."""
    states = [(str(file), file.stat()) for file in _files()]
    code = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
    described = digest(spec.model_dump(mode="json", exclude=_OF_DATA), code, sys.version, version("torch"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multigate" / "networks" / described


def _files() -> list[Path]:
    return sorted(_PACKAGE.rglob("*.py"))
