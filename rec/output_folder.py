"""Output folders: whether a verb may write, resume or overwrite there. One rule for all verbs.

    OUT/.multigate.json     {"verb", "spec", "made_of": {part: digest or version}, "entries": [...], "finished": bool}

    OUT holds               what happens
    nothing                 it is filled
    the same, interrupted   it goes on
    the same, finished      nothing: it is here already
    anything else of ours   refused; with `overwrite` the entries of its record are removed, and it is filled
    what is not ours        refused, whatever is said
    what the verb reads     refused, whatever is said

The same means: written by the same verb from the same parts of the spec, the same input and the same version of the
step. What a person put into a folder of ours is never removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rec.atomic import RECORD, read_json, write_json
from rec.errors import BundleError
from rec.progress import Progress

FORMAT = 1
_BESIDE = re.compile(r"^\.(?P<name>.+?)(\.\d+)?(\.old)?\.tmp$")  # what rec/atomic.py writes before it renames
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
    inputs: tuple[Path, ...] = ()  # folders that are read while it is written

    def record(self, *, finished: bool) -> dict[str, Any]:
        """The record of a folder with this origin."""
        about = {"format": FORMAT, "verb": self.verb, "spec": self.spec, "made_of": dict(self.made_of)}
        return {**about, "entries": list(self.entries), "finished": finished}


def digest(*values: Any) -> str:
    """One short digest of any JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def opened(out: Path, origin: Origin, *, overwrite: Overwrite, progress: Progress) -> Iterator[State]:
    """The state of a folder that may be filled while the block runs, and counts as finished when the block ends well.

    A block that fails before it wrote anything leaves no folder. Raises FileExistsError where the folder holds anything
    else and must not be overwritten.
    """
    state = _begin(out, origin, overwrite, progress)
    if state == "finished":
        yield state
        return
    created = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RECORD, origin.record(finished=False))
    try:
        yield state
    except BaseException:
        if [file.name for file in out.iterdir()] == [RECORD]:
            (out / RECORD).unlink()
            if created or state == "interrupted":
                out.rmdir()
        raise
    write_json(out / RECORD, origin.record(finished=True))


def kept(out: Path, origin: Origin) -> list[str]:
    """Names in a folder that outlive its replacement: the record, and what a person put there."""
    return [file.name for file in out.iterdir() if not _ours(file.name, origin.entries) or file.name == RECORD]


def _begin(out: Path, origin: Origin, overwrite: Overwrite, progress: Progress) -> State:
    """What the folder holds, after what may be removed is removed; FileExistsError where that is not enough."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: a file is in the place of a folder; give another --out")
    for folder in origin.inputs:
        if out.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise FileExistsError(f"{out}: holds what this command reads ({folder}); give another --out")
    names = sorted(file.name for file in out.iterdir()) if out.exists() else []
    if not names:
        return "new"
    record = _record(out, names)
    other = _difference(record, origin)
    wrote = "wrote" if record["finished"] else "began"
    said = f"what `multigate {record['verb']}` {wrote} for spec {record['spec']!r}"
    if not other and overwrite != "always":
        if record["finished"]:
            progress.say(f"{out}: {said} is here already; nothing to do")
            return "finished"
        progress.say(f"{out}: going on with {said}")
        return "interrupted"
    if overwrite == "never":
        raise FileExistsError(f"{out}: holds {said}{other}; give another --out, or --force to make it again")
    progress.say(f"{out}: removing {said}{other}")
    _remove(out, record["entries"])
    return "new"


def _record(out: Path, names: list[str]) -> dict[str, Any]:
    """The record of a folder that holds something."""
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
    if not isinstance(record, dict) or set(record) != keys or record["format"] != FORMAT:
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


def _ours(name: str, entries: tuple[str, ...] | list[str]) -> bool:
    beside = _BESIDE.match(name)
    return name == RECORD or name in entries or (beside is not None and beside["name"] in (*entries, RECORD))


def _remove(out: Path, entries: list[str]) -> None:
    """Remove what a record names, and unfinished copies of it; the record goes last, should this be interrupted."""
    for file in sorted(out.iterdir()):
        # only names directly in the folder, whatever the record says
        if file.name != RECORD and _ours(file.name, entries):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    (out / RECORD).unlink()
