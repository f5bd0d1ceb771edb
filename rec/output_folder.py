"""Output folders: whether a verb may write, resume or overwrite there, and that only one does. One rule for all verbs.

    OUT/.multigate.json     {"verb", "spec", "made_of": {part: digest or version}, "entries": [...], "finished": bool,
                             "files": [...]}  what lay there when it was finished
    .OUT.lock               beside it while a process writes: which verb, and its pid

    OUT                             what happens
    holds nothing                   it is filled
    holds the same, interrupted     it goes on
    holds the same, finished        nothing: it is here already
    ... of which a file is gone     refused; with `overwrite` it is made again
    holds anything else of ours     refused; with `overwrite` it is made again
    holds what is not ours          refused, whatever is said
    holds, or lies in, an input     refused, whatever is said
    is being written                refused: BlockingIOError names the process

The same means: written by the same verb from the same parts of the spec, the same input and the same version of the
step. What a person put into a folder of ours is never removed. What is made again stays until the new one is whole
where a verb builds that elsewhere (`replaced`), or in a hidden entry of the folder (`Origin.apart`); otherwise the
entries of its record are removed first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rec.atomic import RECORD, read_json, sweep, whole_folder, write_json
from rec.errors import BundleError
from rec.progress import Progress

FORMAT = 1
LOCK = ".multigate.lock"  # in a folder beside which nothing may be written
_BESIDE = re.compile(r"^\.(?P<name>.+?)(\.\d+)?(\.old)?\.tmp$")  # what rec/atomic.py writes before it renames
_UNLOCKABLE = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)  # some network file systems have no locks
State = Literal["new", "interrupted", "finished"]
# never; only what was made of something else; also what is interrupted or finished and the same
Overwrite = Literal["never", "stale", "always"]


@dataclass(frozen=True)
class Origin:
    """What a verb is about to write: what decides its bytes, part by part, and the names it may use in the folder."""

    verb: str
    spec: str
    made_of: Mapping[str, str | int]
    entries: tuple[str, ...]
    inputs: tuple[Path, ...] = ()  # files and folders that are read while it is written
    stable: tuple[str, ...] | None = None  # entries that stay as they are once they are finished; None: all

    @property
    def apart(self) -> tuple[str, ...]:
        """Hidden entries: unfinished work, beside which an earlier result can stay until it is replaced as a whole."""
        return tuple(name for name in self.entries if name.startswith("."))

    def record(self, *, finished: bool, files: Iterable[str] = ()) -> dict[str, Any]:
        """The record of a folder with this origin; `files` are those that must be there for it to be whole."""
        about = {"format": FORMAT, "verb": self.verb, "spec": self.spec, "made_of": dict(self.made_of)}
        return {**about, "entries": list(self.entries), "finished": finished, "files": sorted(files)}

    def files(self, out: Path) -> list[str]:
        """Files of the stable entries in a folder, by their path in it."""
        stable = [out / name for name in (self.entries if self.stable is None else self.stable) if name[:1] != "."]
        inside = [file for place in stable for file in ([place] if place.is_file() else place.rglob("*"))]
        return [file.relative_to(out).as_posix() for file in inside if file.is_file()]


def digest(*values: Any) -> str:
    """One short digest of any JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def opened(out: Path, origin: Origin, *, overwrite: Overwrite, progress: Progress) -> Iterator[State]:
    """The state of a folder that may be filled while the block runs, and counts as finished when the block ends well.

    A block that fails before it wrote anything leaves the folder as it was. Raises FileExistsError where the folder
    holds anything else and must not be overwritten, BlockingIOError where another process writes it.
    """
    refuse_overlap(out, origin.inputs)
    with locked(out, origin.verb):
        before = _record(out)
        stays = before is not None and origin.apart != () and before["verb"] == origin.verb
        state = _state(out, origin, before, overwrite, progress, stays=stays)
        if state == "finished":
            yield state
            return
        if before is not None and state == "new":
            _clear(out, before["entries"], stay={*origin.entries} - {*origin.apart} if stays else set[str]())
        created = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, origin.record(finished=False))
        folder = out.stat()
        try:
            yield state
        except BaseException:
            names = {file.name for file in out.iterdir()} - {LOCK}
            if names == {RECORD}:  # nothing was written
                (out / RECORD).unlink()
                if created or state == "interrupted":
                    out.rmdir()
            elif stays and before is not None and not names & {*origin.apart} and os.path.samestat(folder, out.stat()):
                write_json(out / RECORD, before)
            raise
        write_json(out / RECORD, origin.record(finished=True, files=origin.files(out)))


@contextmanager
def replaced(out: Path, origin: Origin, *, overwrite: Overwrite, progress: Progress) -> Iterator[Path | None]:
    """A new folder to fill, which takes the place of `out` when the block ends well; None where `out` is finished.

    Until then `out` stays as it is, and for good if the block fails. Raises as `opened` does.
    """
    refuse_overlap(out, origin.inputs)
    with locked(out, origin.verb):
        before = _record(out)
        if _state(out, origin, before, overwrite, progress, stays=True) == "finished":
            yield None
            return
        entries = (*origin.entries, *(before["entries"] if before else ()), RECORD)
        keep = [file.name for file in out.iterdir() if not _ours(file.name, entries)] if out.exists() else []
        with whole_folder(out, keep=keep) as beside:
            yield beside
            write_json(beside / RECORD, origin.record(finished=True, files=origin.files(beside)))


@contextmanager
def locked(out: Path, verb: str) -> Iterator[None]:
    """No other process writes `out`, a folder or a file, while the block runs; BlockingIOError where one does.

    The system frees the lock when the process ends, however it ends.
    """
    place = out.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        inside = place.is_dir() and (place == place.parent or not os.access(place.parent, os.W_OK))
        path = place / LOCK if inside else place.with_name(f".{place.name}.lock")
        descriptor = _lock(path, out)
    except BlockingIOError:
        raise
    except OSError as error:  # its own text names a lock or a folder above, which nobody gave
        above = next((folder for folder in place.parents if folder.exists() and not folder.is_dir()), None)
        reason = error.strerror if above is None else f"{above} is a file, not a folder"
        raise type(error)(error.errno, f"cannot be written: {reason}", str(out)) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"`multigate {verb}` (pid {os.getpid()})".encode(), 0)
        if not inside:
            sweep(place)  # what a killed writer left
        yield
    finally:
        path.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # child processes may have inherited the descriptor
        os.close(descriptor)


def _lock(path: Path, out: Path) -> int:
    """The descriptor of a lock file that this process holds."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # whoever held it removes it, so another file may be in its place by now
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode() or "another command"
            os.close(descriptor)
            raise BlockingIOError(
                f"{out}: {holder} is writing it; wait until that has ended, or give another --out"
            ) from None
        except OSError as error:
            if error.errno in _UNLOCKABLE:
                return descriptor
            raise
        os.close(descriptor)


def refuse_overlap(out: Path, inputs: Iterable[Path]) -> None:
    """FileExistsError where an output folder holds, is, or lies in something that is read while it is written."""
    place = out.resolve()
    for path in inputs:
        read = path.resolve()
        if place in (read, *read.parents):
            raise FileExistsError(f"{out}: holds what this command reads ({path}); give another --out")
        if read in place.parents:
            raise FileExistsError(f"{out}: lies in what this command reads ({path}); give another --out")


def outliving(out: Path, origin: Origin) -> list[str]:
    """Names in a folder that outlive its replacement: the record, and what a person put there."""
    return [file.name for file in out.iterdir() if not _ours(file.name, origin.entries) or file.name == RECORD]


def _state(
    out: Path,
    origin: Origin,
    record: Mapping[str, Any] | None,
    overwrite: Overwrite,
    progress: Progress,
    *,
    stays: bool,
) -> State:
    """What is to be done with a folder, said in a line; FileExistsError where it must not be written."""
    if record is None:
        return "new"
    other = _difference(record, origin) or _gone(out, record)
    wrote = "wrote" if record["finished"] else "began"
    contents = f"what `multigate {record['verb']}` {wrote} for spec {record['spec']!r}"
    if not other and overwrite != "always":
        if record["finished"]:
            progress.say(f"{out}: {contents} is here already")
            return "finished"
        progress.say(f"{out}: going on with {contents}")
        return "interrupted"
    if overwrite == "never":
        raise FileExistsError(f"{out}: holds {contents}{other}; give another --out, or --force to make it again")
    if stays and record["finished"]:
        progress.say(f"{out}: making again {contents}{other}, which stays until the new one is whole")
    else:
        progress.say(f"{out}: removing {contents}{other}")
    return "new"


def _record(out: Path) -> dict[str, Any] | None:
    """The record of a folder that holds something; None where it holds nothing, or is not there."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: a file is in the place of a folder; give another --out")
    for file in out.glob(f".{RECORD}.*.tmp"):  # of a process that was killed at its very first step
        file.unlink()
    names = sorted(file.name for file in out.iterdir() if file.name != LOCK) if out.exists() else []
    if not names:
        return None
    if RECORD not in names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise FileExistsError(
            f"{out}: holds {shown}, which no verb of multigate wrote; --force does not remove it: give another --out"
        )
    try:
        record = read_json(out / RECORD)
    except BundleError:
        record = None
    keys = {"format", "verb", "spec", "made_of", "entries", "finished"}
    if not isinstance(record, dict) or set(record) - {"files"} != keys or record["format"] != FORMAT:
        raise FileExistsError(f"{out / RECORD}: not a record that this version wrote; give another --out")
    return record


def _difference(record: Mapping[str, Any], origin: Origin) -> str:
    """What a folder was made of that is another now, in a clause; empty where nothing is."""
    if record["verb"] != origin.verb:
        return f" (not what `multigate {origin.verb}` writes)"
    before, now = record["made_of"], origin.made_of
    parts = [part for part in {**before, **now} if before.get(part) != now.get(part)]
    named = [f"{part} {before[part]}" if isinstance(before.get(part), int) else part for part in parts]
    return f" (of another {', '.join(named)})" if parts else ""


def _gone(out: Path, record: Mapping[str, Any]) -> str:
    """The first file of a finished folder that is there no more, in a clause; empty where all are."""
    gone = [name for name in record.get("files", ()) if not (out / name).is_file()] if record["finished"] else []
    more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    return f" (of which {gone[0]}{more} {'are' if more else 'is'} missing)" if gone else ""


def whole(out: Path) -> bool:
    """Whether a folder was finished by a verb, and no file of it is missing."""
    try:
        record = _record(out)
    except FileExistsError:
        return False
    return record is not None and record["finished"] and not _gone(out, record)


def _ours(name: str, entries: Iterable[str]) -> bool:
    beside = _BESIDE.match(name)
    ours = {*entries, RECORD, LOCK}
    return name in ours or (beside is not None and beside["name"] in ours)


def _clear(out: Path, entries: Iterable[str], *, stay: set[str]) -> None:
    """Remove what a record names, and unfinished copies of it."""
    for file in sorted(out.iterdir()):
        # only names directly in the folder, whatever the record says
        if file.name not in {RECORD, LOCK, *stay} and _ours(file.name, entries):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
