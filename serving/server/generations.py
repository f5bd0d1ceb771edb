"""Private copies of bundles, one per digest: what a server has verified cannot change under its workers.

A bundle is copied into a folder that only this server writes, verified there, and made read-only. Workers get that
folder and the digest, so one digest is served whatever happens at the path that the bundle came from.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rec.errors import BundleError
from serving import bundle as bundles

_PREFIX = "multigate-serve-"
_LOCK = ".lock"
_BESIDE = "copying-"
_OURS = re.compile(rf"[0-9a-f]{{64}}|{_BESIDE}\w+")
_CLONE = 0x40049409  # FICLONE: share the blocks of a file, where the file system can
_MOST_FILES = 1_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEPT = 3  # copies that are kept: the one that is served, and those before it


@dataclass(frozen=True)
class Generation:
    """A verified bundle: the name and digest of its manifest, the private copy of it, and its number, from 1."""

    name: str
    digest: str
    path: Path
    number: int = 1
    version: str = ""  # in a folder of models

    @property
    def named(self) -> dict[str, str]:
        """Name, digest, and version where there is one, as answers, metrics and events have them."""
        return {"model": self.name, **({"version": self.version} if self.version else {}), "digest": self.digest}


class GenerationStore:
    """The copies of one server, newest last."""

    def __init__(self, folder: Path) -> None:
        """`folder` is written by this server alone."""
        self.folder = folder
        self._generations: dict[str, Generation] = {}
        self._taken = 0

    def take(self, source: Path) -> Generation:
        """Copy and verify a bundle; one that is here already is not copied again.

        Raises BundleError when it is no bundle or has changed, OSError when there is no room for it, which says where.
        """
        if not source.is_dir():
            raise BundleError(f"{source}: no such bundle")
        bundles.refuse_others(source)
        with _room(self.folder.parent):
            beside = Path(tempfile.mkdtemp(prefix=_BESIDE, dir=self.folder))
        try:
            with _room(self.folder.parent):
                _copy(source, beside)
            try:
                manifest = bundles.verified_manifest(beside)
            except BundleError as error:
                raise BundleError(str(error).replace(str(beside), str(source))) from None
            digest = bundles.digest_of(beside)
            if digest not in self._generations:
                place = self.folder / digest
                beside.rename(place)
                _seal(place)
                self._taken += 1
                self._generations[digest] = Generation(manifest["name"], digest, place, self._taken)
        finally:
            _remove(beside)
        return self._generations[digest]

    def adopt(self, digest: str) -> Generation | None:
        """The copy that an earlier server has left here, verified anew; None where there is none that is whole."""
        place = self.folder / digest
        if digest in self._generations or not place.is_dir():
            return self._generations.get(digest)
        try:
            manifest = bundles.verified_manifest(place)
            whole = bundles.digest_of(place) == digest
        except (BundleError, OSError):
            whole, manifest = False, {}
        if not whole:
            _remove(place)
            return None
        _seal(place)
        self._taken += 1
        self._generations[digest] = Generation(manifest["name"], digest, place, self._taken)
        return self._generations[digest]

    def known(self, digest: str) -> Generation | None:
        """The copy of a digest, if it is kept."""
        return self._generations.get(digest)

    def keep(self, digests: set[str], *, most: int = KEPT) -> None:
        """Remove all copies but those of `digests` and the newest, `most` in all."""
        others = [digest for digest in self._generations if digest not in digests]
        for digest in others[: max(0, len(self._generations) - most)]:
            _remove(self._generations.pop(digest).path)

    def sweep(self, digests: set[str]) -> None:
        """Remove what earlier servers have left, but for copies of `digests`."""
        for stale in self.folder.iterdir():
            ours = _OURS.fullmatch(stale.name) is not None and stale.name not in digests
            if ours and stale.is_dir() and not stale.is_symlink():
                _remove(stale)


@contextmanager
def generation_store() -> Iterator[GenerationStore]:
    """A store in a temporary folder of its own; what servers that were killed have left is removed first."""
    home = Path(tempfile.gettempdir())
    for stale in home.glob(f"{_PREFIX}*"):
        _sweep(stale)
    with _room(home):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    tidy = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(tidy, fcntl.LOCK_SH)  # systemd-tmpfiles, which removes what is old, leaves a locked folder alone
    try:
        yield GenerationStore(folder)
    finally:
        _remove(folder)
        os.close(tidy)
        os.close(lock)


@contextmanager
def _room(home: Path) -> Iterator[None]:
    """An error that the disk is full says which, and what is to be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        hint = "; TMPDIR names another folder" if home == Path(tempfile.gettempdir()) else ""
        text = f"no room for a copy of the bundle ({os.strerror(error.errno)}){hint}"
        raise OSError(error.errno, text, str(home)) from None


def _sweep(folder: Path) -> None:
    """Remove the folder of a server that is no more: nobody holds its lock.

    In a folder that all users share, what another has put there, or a link, is none of ours.
    """
    try:
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
            return
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _remove(folder)
    finally:
        os.close(lock)


def _copy(source: Path, target: Path) -> None:
    files = sorted(islice(source.rglob("*"), _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        raise BundleError(f"{source}: more than {_MOST_FILES} files; is it a bundle?")
    for file in files:
        place = target / file.relative_to(source)
        state = file.lstat()
        if stat.S_ISDIR(state.st_mode):
            place.mkdir()
        elif stat.S_ISLNK(state.st_mode):
            name = file.relative_to(source).as_posix()
            raise BundleError(f"{source}: {name} is a symbolic link; a bundle holds its own files")
        elif stat.S_ISREG(state.st_mode):
            _copy_file(file, place)
        else:
            raise BundleError(f"{source}: {file.relative_to(source).as_posix()} is no regular file")


def _copy_file(source: Path, target: Path) -> None:
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as read, target.open("wb") as written:
        try:
            fcntl.ioctl(written.fileno(), _CLONE, read.fileno())
        except OSError:
            shutil.copyfileobj(read, written, 1 << 20)


def _seal(folder: Path) -> None:
    for file in (*folder.rglob("*"), folder):
        file.chmod(0o500 if file.is_dir() else 0o400)


def _remove(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
